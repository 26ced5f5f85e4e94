# SPDX-License-Identifier: Apache-2.0
"""Failures of a command: the exit codes, and the line that says what went wrong."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from oslo_config import cfg

from consoled import exception, printable

# Exit codes of all programs. Scripts and systemd units branch on them: do not change them.
OK = 0
REFUSED = 1  # the request was refused
USAGE = 2  # the command line or the configuration is wrong: the same again cannot succeed
UNREACHABLE = 3  # the service or the database does not answer, an address is in use; a retry may succeed
INTERNAL = 4
BROKEN_PIPE = 141  # as a shell reports SIGPIPE

_EXIT_CODES = {
    exception.InternalError.code: INTERNAL,
    exception.ManagerUnreachable.code: UNREACHABLE,
    exception.ManagerBusy.code: UNREACHABLE,
    exception.DatabaseUnavailable.code: UNREACHABLE,
}

_HINTS = {
    exception.InternalError.code: "See the manager's log for details.",
    exception.ManagerUnreachable.code: 'Check [DEFAULT] transport_url, the message broker, and that consoled '
    'runs in this cell. A requested change may have been made; it is safe to repeat it.',
    exception.ManagerBusy.code: 'Try again in a moment.',
    exception.DatabaseUnavailable.code: 'Check the database server, and [database] connection of a manager.',
    exception.IncompatibleObject.code: 'Set [upgrade_levels] consoled to the version that the managers use.',
    exception.ConsoleContested.code: "The managers' log and consoled-status upgrade check say which compute "
    'hosts have its address.',
    exception.InstanceNotFound.code: 'No compute agent has defined consoles for it in this cell.',
}

# Anything that may be a console auth token, typed in the wrong argument, must not be echoed to the screen or
# a log. Tokens of consoled have 43 characters, those of other sources (UUIDs) 36; option names are shorter.
_POSSIBLE_TOKEN = re.compile(r'[A-Za-z0-9_-]{32,}')


class Failed(Exception):
    """End of a command that did not succeed.

    :param exit_code: one of the exit codes of this module
    :param code: stable, machine-readable name of the error
    :param message: a sentence for the operator
    :param hint: what to do about it, or ''
    """

    def __init__(self, exit_code: int, code: str, message: str, hint: str = '') -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code
        self.hint = hint


def explain(error: Exception) -> Failed:
    """Translate any exception into the failure to report to the operator."""
    if isinstance(error, Failed):
        return error
    if isinstance(error, exception.ConsoledException):
        exit_code = _EXIT_CODES.get(error.code, REFUSED)
        return Failed(exit_code, error.code, str(error), _HINTS.get(error.code, ''))
    if isinstance(error, cfg.Error):
        return Failed(USAGE, 'configuration_error', f'{error}.', 'See --config-file.')
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        text = f'{error.filename}: {reason}' if error.filename else reason
        return Failed(UNREACHABLE, 'unavailable', f'{text}.')
    text = ' '.join(str(error).split())
    return Failed(INTERNAL, 'internal_error', f'{type(error).__name__}: {text}', 'See --debug.')


def invalid_option(option: str, error: Exception) -> Failed:
    """Return the failure for an option of the configuration that cannot be used.

    :param option: its group and name; the value is not shown, since it may hold a password
    """
    message = f'{option} cannot be used: {error}.'
    return Failed(USAGE, 'configuration_error', message)


def report(prog: str, failed: Failed) -> str:
    """Return the line that says what went wrong, with its newline."""
    return printable.line(f'{prog}: {failed.code}: {failed} {failed.hint}'.rstrip()) + '\n'


def usage_error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Report wrong usage in one line and exit."""
    parser.exit(USAGE, usage_line(parser.prog, message))


def usage_line(prog: str, message: str) -> str:
    """Return the line that says what is wrong with the arguments. Anything that may be a token is masked."""
    text = printable.line(_POSSIBLE_TOKEN.sub('***', message))
    return f'{prog}: usage_error: {text}. See {prog} --help.\n'
