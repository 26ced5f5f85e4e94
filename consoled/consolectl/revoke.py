# SPDX-License-Identifier: Apache-2.0
"""``consolectl revoke``: take tokens and sessions back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from consoled.cli import app
from consoled.consolectl import filters
from consoled.consolectl.app import Command


class Revoke(Command, app.ShowOne):
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
        filters.add_filters(parser, 'Tokens and sessions')
        filters.add_reason(parser)
        parser.add_argument('--yes', action='store_true', help='Do not ask.')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        chosen = filters.given(parsed_args, filters.FILTERS)
        if not chosen:
            self.parser.error('one of --instance, --project, --user, --compute-host is needed')
        if 'instance_uuid' not in chosen and not parsed_args.yes:
            selected = ' and '.join(f'{name} {value}' for name, value in chosen.items())
            self.app.confirm(f'Revoke all tokens and cut all sessions of {selected}?', must=False)
        counts = self.app.call('revoke', parsed_args.reason, **chosen)
        return self.columns, tuple(getattr(counts, name) for name in self.columns)
