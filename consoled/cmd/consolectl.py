# SPDX-License-Identifier: Apache-2.0
"""``consolectl``: open consoles, see and take back what consoled has granted, over the cell's message bus."""

from __future__ import annotations

import argparse
import functools
import getpass
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from consoled.cmd import _backend, _cli, _console_attach, _console_bus, _console_commands

if TYPE_CHECKING:
    from consoled import objects
    from consoled.context import RequestContext
    from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI

_PAGE = 1000  # sessions in one call, the most a manager gives
_TIMEOUT = 10  # seconds
_LONGEST_TOKEN = 4096  # characters that are read; more is no token
_FILTERS = ('instance_uuid', 'project_id', 'user_id', 'compute_host')
_NO_AGENT = (
    'Check the name of the compute host (--host), that consoled-compute runs there, and [DEFAULT] '
    'transport_url.'
)


class Consolectl(_cli.App):
    """The program.

    :param api: the managers; None for those on the bus of the configuration
    :param agents: the same for the compute agents
    """

    NAME = 'consolectl'
    DESCRIPTION = (
        'Open consoles, see and take back what consoled has granted: free ports, tokens, live sessions. '
        'Talks to the managers and compute agents of one cell over its message bus: of the configuration it '
        'needs [DEFAULT] transport_url, and [oslo_messaging_rabbit] ssl* where the bus has TLS. "consolectl '
        'help COMMAND" has the arguments, the columns and an example of a command. Exit codes: 0 done, 1 '
        'refused, 2 wrong usage or configuration, 3 the service does not answer, 4 internal error.'
    )

    def __init__(
        self,
        api: ConsoleAuthAPI | None = None,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        agents: ComputeConsoleAPI | None = None,
    ) -> None:
        super().__init__(stdin, stdout, stderr)
        self._api = api
        self._agents = agents

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(description, version, argparse_kwargs)
        parser.add_argument(
            '--timeout',
            type=_cli.at_least(1),
            default=_TIMEOUT,
            metavar='SECONDS',
            help='How long to wait for each answer of a manager or compute agent, in seconds. '
            f'Default: {_TIMEOUT}.',
        )
        return parser

    @functools.cached_property
    def bus(self) -> _console_bus.Bus:
        """The cell's message bus."""
        bus = _console_bus.Bus(lambda: self.conf, self.options.timeout)
        self.resources.callback(bus.release)
        return bus

    def call(self, method: str, *args: Any, **values: Any) -> Any:
        """Call a method of the managers."""
        return self._reached(self._api or self.bus.managers, method, self.context, *args, **values)

    def call_agent(self, context: RequestContext, method: str, compute_host: str, *args: Any) -> Any:
        """Call a method of the agent of a compute host, on behalf of the user of the context."""
        return self._reached(self._agents or self.bus.agents, method, context, compute_host, *args)

    def _reached(self, peer: Any, method: str, *args: Any, **values: Any) -> Any:
        from consoled import exception

        try:
            return getattr(peer, method)(*args, **values)
        except (exception.ManagerUnreachable, exception.ComputeUnreachable):
            self.bus.forget()  # it may be the broker that could not be reached
            raise

    def explain(self, error: Exception) -> _cli.Failed:
        from consoled import exception

        if isinstance(error, exception.ComputeUnreachable):
            return _cli.Failed(_cli.UNREACHABLE, error.code, str(error), _NO_AGENT)
        if isinstance(error, exception.HypervisorUnreachable):
            hint = 'The log of consoled-compute there has the details.'
            return _cli.Failed(_cli.UNREACHABLE, error.code, str(error), hint)
        return super().explain(error)

    @functools.cached_property
    def context(self) -> RequestContext:
        """On whose behalf the managers are called: nobody's, under one request id."""
        from consoled.context import RequestContext

        return RequestContext()

    def sessions(self, filters: dict[str, str], total: int | None = None) -> Iterator[objects.ConsoleSession]:
        """The live sessions, page by page; one that comes or goes meanwhile may be among them or not."""
        marker = None
        left = sys.maxsize if total is None else total
        while left:
            asked = min(left, _PAGE)
            page = self.call('list_sessions', limit=asked, marker=marker, **filters).objects
            yield from page
            if len(page) < asked:
                return
            left -= asked
            marker = page[-1].id


class _ConsolectlCommand(_cli.Command):
    app: Consolectl


def _add_filters(parser: argparse.ArgumentParser, what: str) -> None:
    name = _cli.text(255)
    parser.add_argument(
        '--instance', dest='instance_uuid', type=_cli.uuid, metavar='UUID', help=f'{what} of this guest.'
    )
    parser.add_argument(
        '--project', dest='project_id', type=name, metavar='ID', help=f'{what} of this project.'
    )
    parser.add_argument('--user', dest='user_id', type=name, metavar='ID', help=f'{what} of this user.')
    parser.add_argument(
        '--compute-host',
        dest='compute_host',
        type=name,
        metavar='NAME',
        help=f'{what} of the guests on this compute host (the name of its service).',
    )


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--reason',
        type=_cli.text(64),
        default='operator',
        help='A word or two for the logs, the session lists and the user whose session is cut, at most 64 '
        'characters. Default: operator.',
    )


def _given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, str]:
    return {name: value for name in names if (value := getattr(args, name)) is not None}


class ValidateToken(_ConsolectlCommand, _cli.ShowOne):
    """Check a console auth token, without using it up

    Shows what the token opens, for whom, and until when; or fails with invalid_token (exit code 1), which is
    one answer for unknown, expired and used ones.

    The token is read from standard input, or asked for at a terminal: on the command line it would be seen
    in the process list and the shell's history.
    """

    columns = (
        'instance_uuid',
        'console_type',
        'host',
        'port',
        'compute_host',
        'user_id',
        'project_id',
        'expires',
    )
    example = 'consolectl token validate --token-file /run/user/0/token'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--token-file',
            metavar='PATH',
            help='Read the token from the first line of this file, not from standard input.',
        )
        parser.add_argument('misplaced', nargs='*', help=argparse.SUPPRESS)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        from consoled import exception, token

        if parsed_args.misplaced:
            self.parser.error(
                'the token does not belong on the command line, where others see it: it is read from '
                'standard input or --token-file. Take it that others know the one that was given'
            )
        value = self._read(parsed_args.token_file)
        if not token.well_formed(value):
            raise exception.InvalidToken()
        grant = self.app.call('validate', value)
        shown = {name: getattr(grant, name) for name in self.columns}
        return self.columns, tuple({**shown, 'expires': _cli.iso(grant.expires)}.values())

    def _read(self, path: str | None) -> str:
        try:
            if path is not None:
                with pathlib.Path(path).open() as file:
                    value = file.readline(_LONGEST_TOKEN)
            elif self.app.stdin.isatty():
                value = getpass.getpass('Token: ', stream=self.app.stderr)
            else:
                value = self.app.stdin.readline(_LONGEST_TOKEN)
        except OSError as exc:
            self.parser.error(f'the token can not be read: {exc.strerror}')
        except (EOFError, UnicodeDecodeError):
            value = ''
        if not value.strip():
            self.parser.error('no token was given')
        return value.strip()


class ListSessions(_ConsolectlCommand, _cli.Lister):
    """List the live sessions of the cell

    All filters that are given must match. The table shows the most telling columns; --long, a choice of
    columns (-c) and the other formats have them all. A session with a cut_reason is about to end.
    """

    _OF_CONSOLE = ('console_type', 'instance_uuid', 'compute_host', 'host', 'port')
    _OF_USE = ('user_id', 'project_id', 'client_address', 'proxy_id', 'connected_at', 'ends_at', 'cut_reason')
    _SHORT = (
        'id',
        'console_type',
        'instance_uuid',
        'user_id',
        'client_address',
        'connected_at',
        'cut_reason',
    )
    columns = ('id', *_OF_CONSOLE, *_OF_USE)
    example = 'consolectl session list --project demo -f json'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_filters(parser, 'Only sessions')
        parser.add_argument(
            '--proxy',
            dest='proxy_id',
            type=_cli.uuid,
            metavar='UUID',
            help='Only sessions of this life of a proxy process (proxy_id in the list).',
        )
        parser.add_argument(
            '--limit', type=_cli.at_least(1), metavar='N', help='At most so many in all. Default: all.'
        )
        parser.add_argument('--long', action='store_true', help='All columns in the table.')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
        short = parsed_args.formatter == 'table' and not (parsed_args.long or parsed_args.columns)
        columns = self._SHORT if short else self.columns
        filters = _given(parsed_args, (*_FILTERS, 'proxy_id'))
        rows = [self._row(session, columns) for session in self.app.sessions(filters, parsed_args.limit)]
        return columns, rows

    def _row(self, session: objects.ConsoleSession, columns: Sequence[str]) -> tuple[Any, ...]:
        values = {name: getattr(session.console, name) for name in self._OF_CONSOLE}
        values |= {name: getattr(session, name) for name in ('id', *self._OF_USE)}
        values |= {name: _cli.iso(values[name]) for name in ('connected_at', 'ends_at')}
        return tuple(values[name] for name in columns)


class CutSession(_ConsolectlCommand, _cli.ShowOne):
    """Cut a live session

    The token that the session was opened with is deleted too: with it, the user would just open the next
    one. The user is cut off within a second, or within a lease while the message bus loses messages. Fails
    with session_not_found (exit code 1) if there is no such session, or it is being cut already.
    """

    columns = ('tokens', 'sessions')
    example = 'consolectl session cut 0b5f3a52-9a0e-4f43-8f6a-1f2a90d1c5ce --reason maintenance'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'session', type=_cli.uuid, metavar='SESSION', help='Id of the session, from session list.'
        )
        _add_reason(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        counts = self.app.call('revoke', parsed_args.reason, session_id=parsed_args.session)
        if not counts['sessions']:
            raise _cli.Failed(
                _cli.REFUSED,
                'session_not_found',
                f'There is no live session {parsed_args.session}, or it is being cut already.',
            )
        return self.columns, tuple(counts[name] for name in self.columns)


class Revoke(_ConsolectlCommand, _cli.ShowOne):
    """Delete tokens and cut live sessions

    Takes all of a guest, a project, a user or a compute host; all filters that are given must match, and
    there must be one. Shows how many tokens were deleted and how many sessions are cut. Users may ask for new
    tokens afterwards: to keep them out, take their rights away first.

    Without --instance it asks first, if there is a terminal to ask at. Exit code 0 with both counts at zero
    says that nothing matched.
    """

    columns = ('tokens', 'sessions')
    example = 'consolectl revoke --user mallory --reason "account closed" --yes'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_filters(parser, 'Tokens and sessions')
        _add_reason(parser)
        parser.add_argument('--yes', action='store_true', help='Do not ask.')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        filters = _given(parsed_args, _FILTERS)
        if not filters:
            self.parser.error('one of --instance, --project, --user, --compute-host is needed')
        if 'instance_uuid' not in filters and not parsed_args.yes:
            selected = ' and '.join(f'{name} {value}' for name, value in filters.items())
            self.app.confirm(f'Revoke all tokens and cut all sessions of {selected}?', must=False)
        counts = self.app.call('revoke', parsed_args.reason, **filters)
        return self.columns, tuple(counts[name] for name in self.columns)


Consolectl.COMMANDS = {
    'console open': _console_commands.OpenConsole,
    'console list': _console_commands.ListConsoles,
    'console list-free-ports': _console_commands.ListFreePorts,
    'console attach': _console_attach.AttachConsole,
    'token validate': ValidateToken,
    'session list': ListSessions,
    'session cut': CutSession,
    'revoke': Revoke,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``consolectl``; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    # a terminal needs threads that may wait for it, which eventlet's may not
    _backend.select('threading' if 'attach' in argv else None)
    return _cli.run(Consolectl(), argv)


if __name__ == '__main__':
    sys.exit(main())
