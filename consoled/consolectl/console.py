# SPDX-License-Identifier: Apache-2.0
"""``consolectl console``: list the consoles of a guest, and authorize a user to open one.

The managers know the compute host of a guest; the agent there knows its consoles and authorizes them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from consoled import exception, objects
from consoled.cli import app, arguments, errors, output
from consoled.consolectl.base import Command
from consoled.context import RequestContext
from consoled.objects import ConsoleType

# those that a proxy can open: all but rdp-html5
_OPENABLE = ('novnc', 'spice-html5', 'serial', 'webmks')


class ConsoleCommand(Command):
    """Base of the commands on the consoles of one guest."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('instance', type=arguments.uuid, metavar='INSTANCE', help='UUID of the guest.')
        return parser

    def call_agent(
        self, parsed_args: argparse.Namespace, method: str, console_type: str | None = None, **user: Any
    ) -> Any:
        """Call a method of the agent on the guest's compute host.

        :param console_type: its second argument after the guest, if it takes one
        :param user: ``user_id`` and ``project_id`` of the user for whom it is called
        :raises Failed: the compute host is unknown, or does not know the guest
        """
        host = parsed_args.host or self._find_host(parsed_args.instance, console_type)
        args = [parsed_args.instance] if console_type is None else [parsed_args.instance, console_type]
        context = RequestContext(request_id=self.app.context.request_id, **user)
        try:
            return self.app.call_agent(context, method, host, *args)
        except exception.InstanceNotFound as exc:
            hint = f'This is the answer of compute host {host}; use --host for another one.'
            raise errors.Failed(errors.REFUSED, exc.code, str(exc), hint) from exc

    def authorize(self, parsed_args: argparse.Namespace) -> objects.ConsoleAuthToken:
        """Return a new token, with its access URL, for a console of the guest.

        :raises Failed: the compute host has no base URL for this console type
        :raises ConsoledException: as the agent refuses it
        """
        grant: objects.ConsoleAuthToken = self.call_agent(
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
                f'Set [{consoles.GROUP_OF_TYPE[grant.console_type]}] base_url on that host.',
            )
        return grant

    def _find_host(self, instance: str, console_type: str | None) -> str:
        """Return the compute host of a guest, as its free consoles or its sessions name it.

        :raises Failed: it has neither
        """
        try:
            for kind in sorted(ConsoleType.ALL, key=lambda kind: kind != console_type):
                for console in self.app.call('list_free_ports', instance, kind).objects:
                    return str(console.compute_host)
        except exception.InstanceNotFound as exc:
            hint = 'The managers know no console of it. If you know its compute host, use --host.'
            raise errors.Failed(errors.REFUSED, exc.code, str(exc), hint) from exc
        for session in self.app.sessions({'instance_uuid': instance}, limit=1):
            return str(session.console.compute_host)
        raise errors.Failed(
            errors.REFUSED,
            'compute_host_unknown',
            f'Instance {instance} has no free or connected console that names its compute host.',
            'Use --host.',
        )


def add_host(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``--host``."""
    parser.add_argument(
        '--host',
        type=arguments.text(255),
        metavar='COMPUTE_HOST',
        help='Ask the agent of this compute host (name of its service). Default: the host on which the '
        'managers know consoles of the guest.',
    )


def add_user(parser: argparse.ArgumentParser) -> None:
    """Add the arguments ``--user-id`` and ``--project-id``."""
    for name in ('user', 'project'):
        parser.add_argument(
            f'--{name}-id',
            type=arguments.text(255),
            metavar='ID',
            help=f'The {name} to authorize: shown in the session list and matched by revoke. Default: none.',
        )


class ListFreePorts(ConsoleCommand, app.Lister):
    """List the consoles of a guest that are defined and not connected

    These are the ports on which the guest's next console of that type can be opened, ordered by port.
    """

    columns = ('port', 'host', 'console_type', 'compute_host')
    example = 'consolectl console list-free-ports 5c8a1c1e-7f9b-4a55-9d0c-2f4b5a0e1d11 --type serial'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
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
    """List the consoles of a guest

    The agent of its compute host is asked for the current consoles, and the managers for the sessions that
    are connected to them.
    """

    columns = ('console_type', 'host', 'port', 'connected', 'compute_host')
    example = 'consolectl console list 5c8a1c1e-7f9b-4a55-9d0c-2f4b5a0e1d11 --host compute-7'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_host(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
        found: objects.ConsoleConnectionList = self.call_agent(parsed_args, 'list_consoles')
        # list_free_ports would not do: a console missing there is either connected or not defined yet
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
    """Authorize a console of a guest and show the URL that opens it

    The agent of the guest's compute host authorizes it. The URL contains the token: until it expires, anyone
    who has the URL can open the console. Give it only to the user it is meant for.
    """

    columns = ('access_url', 'expires', 'console_type', 'compute_host')
    example = 'consolectl console open 5c8a1c1e-7f9b-4a55-9d0c-2f4b5a0e1d11 -f value -c access_url'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--type',
            dest='console_type',
            choices=_OPENABLE,
            default='novnc',
            help='Console type. If the guest has several of that type, the next free one is opened. '
            'Default: novnc.',
        )
        add_host(parser)
        add_user(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        grant = self.authorize(parsed_args)
        return self.columns, (
            grant.access_url,
            output.iso(grant.expires),
            grant.console_type,
            grant.compute_host,
        )
