# SPDX-License-Identifier: Apache-2.0
"""``consolectl session``: list live sessions, cut one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from consoled import objects
from consoled.cli import app, arguments, errors, output
from consoled.consolectl import filters
from consoled.consolectl.base import Command


class ListSessions(Command, app.Lister):
    """List the live sessions of the cell

    With several filters, all must match. The table shows the most useful columns; --long, -c and the other
    formats show all of them. A session with a cut_reason is about to end.
    """

    _CONSOLE_COLUMNS = ('console_type', 'instance_uuid', 'compute_host', 'host', 'port')
    _SESSION_COLUMNS = (
        'user_id',
        'project_id',
        'client_address',
        'proxy_id',
        'connected_at',
        'ends_at',
        'cut_reason',
    )
    _SHORT = (
        'id',
        'console_type',
        'instance_uuid',
        'user_id',
        'client_address',
        'connected_at',
        'cut_reason',
    )
    columns = ('id', *_CONSOLE_COLUMNS, *_SESSION_COLUMNS)
    example = 'consolectl session list --project demo -f json'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        filters.add_filters(parser, 'Only sessions')
        parser.add_argument(
            '--proxy',
            dest='proxy_id',
            type=arguments.uuid,
            metavar='UUID',
            help='Only sessions of this run of a proxy process (column proxy_id).',
        )
        parser.add_argument(
            '--limit', type=arguments.at_least(1), metavar='N', help='List at most N sessions. Default: all.'
        )
        parser.add_argument('--long', action='store_true', help='Show all columns in the table.')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
        short = parsed_args.formatter == 'table' and not (parsed_args.long or parsed_args.columns)
        columns = self._SHORT if short else self.columns
        selected = filters.given(parsed_args, (*filters.FILTERS, 'proxy_id'))
        rows = [self._row(session, columns) for session in self.app.sessions(selected, parsed_args.limit)]
        return columns, rows

    def _row(self, session: objects.ConsoleSession, columns: Sequence[str]) -> tuple[Any, ...]:
        values = {name: getattr(session.console, name) for name in self._CONSOLE_COLUMNS}
        values |= {name: getattr(session, name) for name in ('id', *self._SESSION_COLUMNS)}
        values |= {name: output.iso(values[name]) for name in ('connected_at', 'ends_at')}
        return tuple(values[name] for name in columns)


class CutSession(Command, app.ShowOne):
    """Cut a live session

    The token that opened the session is revoked too; otherwise the user could simply open the next session
    with it. The session ends within a second, or within a lease if the message bus loses messages. Fails
    with session_not_found (exit code 1) if there is no such session or it is already being cut.
    """

    columns = ('tokens', 'sessions')
    example = 'consolectl session cut 0b5f3a52-9a0e-4f43-8f6a-1f2a90d1c5ce --reason maintenance'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'session', type=arguments.uuid, metavar='SESSION', help='Id of the session, from session list.'
        )
        filters.add_reason(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        counts = self.app.call('revoke', parsed_args.reason, session_id=parsed_args.session)
        if not counts.sessions:
            raise errors.Failed(
                errors.REFUSED,
                'session_not_found',
                f'There is no live session {parsed_args.session}, or it is already being cut.',
            )
        return self.columns, tuple(getattr(counts, name) for name in self.columns)
