# SPDX-License-Identifier: Apache-2.0
"""``consolectl token``: check a console auth token."""

from __future__ import annotations

import argparse
import getpass
import pathlib
from collections.abc import Sequence
from typing import Any

from consoled.cli import app, output
from consoled.consolectl.app import Command

_LONGEST_TOKEN = 4096  # characters that are read; more is no token


class ValidateToken(Command, app.ShowOne):
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
        return self.columns, tuple({**shown, 'expires': output.iso(grant.expires)}.values())

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
