# SPDX-License-Identifier: Apache-2.0
"""``consolectl token``: validate a console auth token."""

from __future__ import annotations

import argparse
import getpass
import pathlib
from collections.abc import Sequence
from typing import Any

from consoled import exception, token
from consoled.cli import app, output
from consoled.consolectl.base import Command

_MAX_LENGTH = 4096  # characters to read; anything longer is not a token


class ValidateToken(Command, app.ShowOne):
    """Validate a console auth token without using it up

    Shows which console the token opens, for whom, and until when. Fails with invalid_token (exit code 1) if
    it is unknown, expired or used up; the answer does not say which.

    The token is read from standard input, without echo from a terminal: on the command line it would appear
    in the process list and the shell history.
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
            help='Read the token from the first line of this file instead of standard input.',
        )
        parser.add_argument('misplaced', nargs='*', help=argparse.SUPPRESS)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        if parsed_args.misplaced:
            self.parser.error(
                'do not pass the token on the command line, where others can see it: it is read from '
                'standard input or --token-file. Consider the token that was given as disclosed'
            )
        value = self._read(parsed_args.token_file)
        if not token.well_formed(value):
            raise exception.InvalidToken()
        grant = self.app.call('validate', value)
        row = {name: getattr(grant, name) for name in self.columns}
        return self.columns, tuple({**row, 'expires': output.iso(grant.expires)}.values())

    def _read(self, path: str | None) -> str:
        try:
            if path is not None:
                with pathlib.Path(path).open() as file:
                    value = file.readline(_MAX_LENGTH)
            elif self.app.stdin.isatty():
                value = getpass.getpass('Token: ', stream=self.app.stderr)
            else:
                value = self.app.stdin.readline(_MAX_LENGTH)
        except OSError as exc:
            self.parser.error(f'the token cannot be read: {exc.strerror}')
        except (EOFError, UnicodeDecodeError):
            value = ''
        if not value.strip():
            self.parser.error('no token was given')
        return value.strip()
