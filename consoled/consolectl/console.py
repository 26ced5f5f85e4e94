# SPDX-License-Identifier: Apache-2.0
"""``consolectl console``: which consoles a guest has, and who may open one.

The manager knows where a guest is, its compute agent which consoles it has and what opens them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from consoled.cli import app, arguments, errors, output

if TYPE_CHECKING:
    from consoled import objects
    from consoled.consolectl.app import ConsolectlApp

_OPENED = ('novnc', 'spice-html5', 'serial', 'webmks')  # by a proxy; the type that is none of them is not


class ConsoleCommand(app.Command):
    """Base of the commands about the consoles of one guest."""

    app: ConsolectlApp

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('instance', type=arguments.uuid, metavar='INSTANCE', help='UUID of the guest.')
        return parser

    def ask_agent(
        self, parsed_args: argparse.Namespace, method: str, console_type: str | None = None, **who: Any
    ) -> Any:
        """Call a method of the agent of the guest's compute host.

        :param console_type: its argument besides the guest, if it takes one
        :param who: ``user_id`` and ``project_id`` of the user that it is for
        """
        from consoled import exception
        from consoled.context import RequestContext

        host = parsed_args.host or self._find_host(parsed_args.instance, console_type)
        args = [parsed_args.instance] if console_type is None else [parsed_args.instance, console_type]
        context = RequestContext(request_id=self.app.context.request_id, **who)
        try:
            return self.app.call_agent(context, method, host, *args)
        except exception.InstanceNotFound as exc:
            hint = f'The compute host that was asked is {host}: another one is named with --host.'
            raise errors.Failed(errors.REFUSED, exc.code, str(exc), hint) from exc

    def authorized(self, parsed_args: argparse.Namespace) -> objects.ConsoleAuthToken:
        """A token, with its URL, for a console of the guest.

        :raises Failed: the compute host knows no URL; others as the agent raises them
        """
        grant: objects.ConsoleAuthToken = self.ask_agent(
            parsed_args,
            'get_console',
            parsed_args.console_type,
            user_id=parsed_args.user_id,
            project_id=parsed_args.project_id,
        )
        if grant.access_url is None:
            from consoled.conf import consoles

            raise errors.Failed(
                errors.REFUSED,
                'no_access_url',
                f'Compute host {grant.compute_host} has no URL for {grant.console_type} consoles.',
                f'Set [{consoles.GROUP_OF_TYPE[grant.console_type]}] base_url there.',
            )
        return grant

    def _find_host(self, instance: str, console_type: str | None) -> str:
        """The compute host of a guest: a console that is free tells it, and so does a session of one."""
        from consoled import exception
        from consoled.objects import ConsoleType

        try:
            for kind in sorted(ConsoleType.ALL, key=lambda kind: kind != console_type):
                for console in self.app.call('list_free_ports', instance, kind).objects:
                    return str(console.compute_host)
        except exception.InstanceNotFound as exc:
            hint = 'The managers know no console of it. If its compute host does, name that with --host.'
            raise errors.Failed(errors.REFUSED, exc.code, str(exc), hint) from exc
        for session in self.app.sessions({'instance_uuid': instance}, total=1):
            return str(session.console.compute_host)
        raise errors.Failed(
            errors.REFUSED,
            'compute_host_unknown',
            f'No console of instance {instance} is free or connected, which would tell its compute host.',
            'Name it with --host.',
        )


def add_host(parser: argparse.ArgumentParser) -> None:
    """Let the compute host be named."""
    parser.add_argument(
        '--host',
        type=arguments.text(255),
        metavar='COMPUTE_HOST',
        help='Ask the agent of this compute host (the name of its service). Default: where the managers '
        'know consoles of the guest.',
    )


def add_user(parser: argparse.ArgumentParser) -> None:
    """Let it be said whom a console is opened for."""
    for name, what in (('user', 'user'), ('project', 'project')):
        parser.add_argument(
            f'--{name}-id',
            type=arguments.text(255),
            metavar='ID',
            help=f'The {what} that it is for: shown in the session list, and what revoke goes by. '
            'Default: nobody.',
        )


class ListFreePorts(ConsoleCommand, app.Lister):
    """List the consoles of a guest that are defined and not connected

    These are the ports that the guest's next console of that type can be opened on, by port.
    """

    columns = ('port', 'host', 'console_type', 'compute_host')
    example = 'consolectl console list-free-ports 5c8a1c1e-7f9b-4a55-9d0c-2f4b5a0e1d11 --type serial'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        from consoled.objects import ConsoleType

        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--type',
            dest='console_type',
            choices=ConsoleType.ALL,
            default=ConsoleType.SERIAL,
            help='Console type. Default: serial.',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
        found = self.app.call('list_free_ports', parsed_args.instance, parsed_args.console_type)
        rows = [tuple(getattr(console, name) for name in self.columns) for console in found.objects]
        return self.columns, rows


class ListConsoles(ConsoleCommand, app.Lister):
    """List the consoles that a guest has

    Asks the agent of its compute host, so that they are those of now; whether a session is connected to them
    the managers say.
    """

    columns = ('console_type', 'host', 'port', 'connected', 'compute_host')
    example = 'consolectl console list 5c8a1c1e-7f9b-4a55-9d0c-2f4b5a0e1d11 --host compute-7'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_host(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
        found: objects.ConsoleConnectionList = self.ask_agent(parsed_args, 'list_consoles')
        # not from list_free_ports: what it does not name may be connected, or not defined yet
        sessions = self.app.sessions({'instance_uuid': parsed_args.instance})
        connected = {(session.console.host, session.console.port) for session in sessions}
        rows = [
            (
                console.console_type,
                console.host,
                console.port,
                (console.host, console.port) in connected,
                console.compute_host,
            )
            for console in sorted(found.objects, key=lambda console: (console.console_type, console.port))
        ]
        return self.columns, rows


class OpenConsole(ConsoleCommand, app.ShowOne):
    """Ask for a console of a guest, and show the URL that opens it

    The agent of the guest's compute host authorizes it. The URL holds the token: who has it opens the
    console, until it expires. Give it to the user it is for, and to nobody else.
    """

    columns = ('access_url', 'expires', 'console_type', 'compute_host')
    example = 'consolectl console open 5c8a1c1e-7f9b-4a55-9d0c-2f4b5a0e1d11 -f value -c access_url'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--type',
            dest='console_type',
            choices=_OPENED,
            default='novnc',
            help='Console type. Of several consoles of a type the next free one is opened. Default: novnc.',
        )
        add_host(parser)
        add_user(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        grant = self.authorized(parsed_args)
        return self.columns, (
            grant.access_url,
            output.iso(grant.expires),
            grant.console_type,
            grant.compute_host,
        )
