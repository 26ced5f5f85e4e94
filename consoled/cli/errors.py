# SPDX-License-Identifier: Apache-2.0
"""How a command fails: exit codes, and the line that says why.

This module is imported before the concurrency is chosen, so it imports nothing that looks at it: oslo's
libraries, SQLAlchemy and what uses them are imported in the functions that need them.
"""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from consoled import exception

# Exit codes: scripts branch on them, do not change them.
OK = 0
REFUSED = 1  # the answer is no
USAGE = 2  # the command line or the configuration is wrong
UNREACHABLE = 3  # the service or the database does not answer: try again later
INTERNAL = 4
BROKEN_PIPE = 141  # as a shell reports SIGPIPE

_EXIT_CODES = {
    exception.InternalError.code: INTERNAL,
    exception.ManagerUnreachable.code: UNREACHABLE,
    exception.ManagerBusy.code: UNREACHABLE,
    exception.DatabaseUnavailable.code: UNREACHABLE,
}

_HINTS = {
    exception.InternalError.code: "The manager's log has the details.",
    exception.ManagerUnreachable.code: 'Check [DEFAULT] transport_url, the message broker, and that consoled '
    'runs in this cell. A change that was asked for may have been made: it is safe to repeat it.',
    exception.ManagerBusy.code: 'Try again in a moment.',
    exception.DatabaseUnavailable.code: 'Check the database server, and [database] connection of a manager.',
    exception.IncompatibleObject.code: 'Set [upgrade_levels] consoled to the version that managers speak.',
    exception.InstanceNotFound.code: 'No compute agent has defined consoles for it in this cell.',
}

# A console auth token typed where it does not belong must not be repeated on the screen or into a log. Our
# tokens have 43 characters, those of other sources (UUIDs) 36; no option's name is that long.
_MAYBE_TOKEN = re.compile(r'[A-Za-z0-9_-]{32,}')


class Failed(Exception):
    """The command ends here.

    :param exit_code: one of the above
    :param code: stable, machine-readable name
    :param message: a sentence
    :param hint: what to do, or ''
    """

    def __init__(self, exit_code: int, code: str, message: str, hint: str = '') -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code
        self.hint = hint


def explained(error: Exception) -> Failed:
    """What an error means for the operator."""
    if isinstance(error, Failed):
        return error
    if isinstance(error, exception.ConsoledException):
        exit_code = _EXIT_CODES.get(error.code, REFUSED)
        return Failed(exit_code, error.code, str(error), _HINTS.get(error.code, ''))
    from oslo_config import cfg

    if isinstance(error, cfg.Error):
        return Failed(USAGE, 'configuration_error', f'{error}.', 'See --config-file.')
    text = ' '.join(str(error).split())
    return Failed(INTERNAL, 'internal_error', f'{type(error).__name__}: {text}', 'See --debug.')


def misconfigured(what: str, error: Exception) -> Failed:
    """An option that can't be used.

    :param what: its name; its value may hold a password, and is not shown
    """
    return Failed(USAGE, 'configuration_error', f'{what} can not be used: {type(error).__name__}: {error}.')


def usage_error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Say what is wrong with the command line, without what may be a token in it, and exit."""
    text = _MAYBE_TOKEN.sub('***', message)
    parser.exit(USAGE, f'{parser.prog}: usage_error: {text}. See {parser.prog} --help.\n')
