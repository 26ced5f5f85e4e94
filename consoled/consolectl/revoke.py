# SPDX-License-Identifier: Apache-2.0
"""``consolectl revoke``: revoke tokens and cut sessions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from consoled.cli import app
from consoled.consolectl import filters
from consoled.consolectl.base import Command


class Revoke(Command, app.ShowOne):
    """Revoke tokens and cut live sessions

    Selects everything of a guest, a project, a user or a compute host. At least one filter is required; with
    several, all must match. Shows the number of deleted tokens and of cut sessions. Users can still request
    new tokens: to keep them out, first revoke their permissions in your cloud.

    Without --instance it asks for confirmation, unless standard input is not a terminal. Exit code 0 with
    both counts at zero means that nothing matched.
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
        return self.columns, tuple(getattr(counts, name) for name in self.columns)
