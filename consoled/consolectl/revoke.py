# SPDX-License-Identifier: Apache-2.0
"""``consolectl revoke``: revoke tokens and cut sessions."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consoled.cli import app, errors
from consoled.consolectl import filters
from consoled.consolectl.base import Command

if TYPE_CHECKING:  # the bus is loaded when a command uses it
    from consoled.rpc.replies import Revocation

_OPTIONS = {
    'instance_uuid': 'instance',
    'project_id': 'project',
    'user_id': 'user',
    'compute_host': 'compute-host',
}


class Revoke(Command, app.ShowOne):
    """Revoke tokens and cut live sessions

    Selects everything of a guest, a project, a user or a compute host. At least one filter is required; with
    several, all must match. Shows the number of deleted tokens and of cut sessions. Users can still request
    new tokens: to keep them out, first revoke their permissions in your cloud.

    Without --instance it asks for confirmation, unless standard input is not a terminal. Exit code 0 with
    both counts at zero means that nothing matched. Exit code 1 with revoke_incomplete means that the cell
    also opens tokens of a source which does not record what a filter names, so that it may have missed some:
    Nova and an old consoleauth do not record the user, an old consoleauth does not record the project either.
    """

    columns = ('tokens', 'sessions')
    example = 'consolectl revoke --user mallory --reason "account closed" --yes'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        filters.add_filters(parser, 'Tokens and sessions')
        filters.add_reason(parser)
        parser.add_argument('--yes', action='store_true', help='Do not ask for confirmation.')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        selected = filters.given(parsed_args, filters.FILTERS)
        if not selected:
            self.parser.error('one of --instance, --project, --user, --compute-host is required')
        if 'instance_uuid' not in selected and not parsed_args.yes:
            shown = ' and '.join(f'{name} {value}' for name, value in selected.items())
            self.app.confirm(f'Revoke all tokens and cut all sessions of {shown}?', required=False)
        counts = self.app.call('revoke', parsed_args.reason, **selected)
        if counts.unmatched:
            raise _incomplete(counts, selected)
        return self.columns, tuple(getattr(counts, name) for name in self.columns)


def _incomplete(counts: Revocation, selected: Mapping[str, str]) -> errors.Failed:
    """Return the failure for a revocation that cannot have matched the tokens of all sources."""
    options = ' and '.join(f'--{_OPTIONS[name]}' for name in selected)
    return errors.Failed(
        errors.REFUSED,
        'revoke_incomplete',
        f'Deleted {counts.tokens} tokens and cut {counts.sessions} sessions, but none of '
        f'{" and ".join(counts.unmatched)}: its tokens do not say what {options} asks for.',
        'Revoke by --project, --instance or --compute-host, or cut sessions one by one (session cut).',
    )
