# SPDX-License-Identifier: Apache-2.0
"""What the operators' tools share: options, output, errors and exit codes.

This module is imported before the concurrency is chosen, so it imports nothing that looks at it: oslo's
libraries, SQLAlchemy and what uses them are imported in the functions that need them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from cliff import app as cliff_app
from cliff import command, commandmanager, lister, show
from cliff._argparse import SmartHelpFormatter

from consoled import exception, version

if TYPE_CHECKING:
    from oslo_config import cfg

# Exit codes: scripts branch on them, do not change them.
OK = 0
REFUSED = 1  # the answer is no
USAGE = 2  # the command line or the configuration is wrong
UNREACHABLE = 3  # the service or the database does not answer: try again later
INTERNAL = 4
_BROKEN_PIPE = 141  # as a shell reports SIGPIPE

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


def iso(moment: datetime.datetime | None) -> str | None:
    """A moment as ISO 8601 in UTC, to the second: ``2026-01-02T03:04:05Z``."""
    if moment is None:
        return None
    return moment.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(timespec='seconds') + 'Z'


def checked(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """An argparse type from a function that raises ValueError with a reason that does not hold the value."""

    def convert(value: str) -> Any:
        try:
            return check(value)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None

    return convert


def uuid(value: str) -> str:
    """argparse type: a UUID."""
    from consoled.objects import fields

    return str(checked(fields.checked_uuid)(value))


def text(max_length: int) -> Callable[[str], str]:
    """argparse type: a name of at most that many characters."""

    def convert(value: str) -> str:
        from consoled.objects import fields

        return fields.checked_text(value, max_length)

    return checked(convert)


def at_least(minimum: int) -> Callable[[str], int]:
    """argparse type: an integer from ``minimum``."""

    def convert(value: str) -> int:
        if not re.fullmatch(r'-?[0-9]{1,9}', value) or int(value) < minimum:
            raise ValueError(f'must be an integer from {minimum}')
        return int(value)

    return checked(convert)


class _HelpFormatter(SmartHelpFormatter):
    """Wraps paragraphs, and leaves indented lines (examples) as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = []
        for paragraph in text.split('\n\n'):
            as_is = any(line.startswith(' ') for line in paragraph.splitlines())
            paragraphs.append(paragraph if as_is else super()._fill_text(paragraph, width, indent))
        return '\n\n'.join(paragraphs)


class Command(command.Command):
    """Base of the commands. The docstring is the help text; its first line is shown in the list.

    :cvar columns: names of the output columns
    :cvar example: shown at the end of the help
    """

    app: App
    columns: tuple[str, ...] = ()
    example = ''

    def get_epilog(self) -> str:
        columns = f'Columns: {", ".join(self.columns)}.' if self.columns else ''
        example = f'Example:\n  {self.example}' if self.example else ''
        return '\n\n'.join(filter(None, (columns, example)))

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.allow_abbrev = False  # an option of the next release must not change what a script means
        parser.formatter_class = _HelpFormatter
        parser.error = functools.partial(usage_error, parser)  # type: ignore[method-assign]
        self.parser = parser
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command; errors become one line and an exit code."""
        wanted = {name.lower().replace(' ', '_') for name in getattr(parsed_args, 'columns', ())}
        if not wanted <= set(self.columns):  # found before anything is done, not when it is shown
            self.parser.error(f'there is no such column; the columns are {", ".join(self.columns)}')
        try:
            return super().run(parsed_args)
        except BrokenPipeError:
            raise
        except Exception as exc:
            return self.app.report(exc)


class Lister(Command, lister.Lister):
    """Base of the commands that show rows."""


class ShowOne(Command, show.ShowOne):
    """Base of the commands that show one thing."""


class App(cliff_app.App):
    """Base of the programs: ``NAME``, ``DESCRIPTION`` and ``COMMANDS`` by name."""

    DESCRIPTION = ''
    COMMANDS: dict[str, type[Command]] = {}

    def __init__(
        self, stdin: TextIO | None = None, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        super().__init__(
            self.DESCRIPTION,
            version.VERSION,
            commandmanager.CommandManager(),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            deferred_help=True,
        )
        for name, factory in self.COMMANDS.items():
            self.command_manager.add_command(name, factory)
        self.resources = contextlib.ExitStack()
        self._escaped: Exception | None = None

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> argparse.ArgumentParser:
        kwargs = {
            'prog': self.NAME,
            'usage': '%(prog)s [OPTION ...] COMMAND [ARGUMENT ...]',
            'allow_abbrev': False,
            'conflict_handler': 'resolve',
        }
        parser = super().build_option_parser(description, version, {**kwargs, **(argparse_kwargs or {})})
        parser.error = functools.partial(usage_error, parser)  # type: ignore[method-assign]
        parser.add_argument(
            '-v',
            '--verbose',
            action='count',
            dest='verbose_level',
            help='Show log lines of level INFO and above; twice: of all levels. Default: none.',
        )
        parser.add_argument(
            '-q', '--quiet', action='store_const', dest='verbose_level', const=0, help='Show no log lines.'
        )
        parser.set_defaults(verbose_level=self.DEFAULT_VERBOSE_LEVEL)
        parser.add_argument(
            '--log-file',
            metavar='PATH',
            help='Write log lines to this file, of level INFO and above.',
        )
        parser.add_argument('--version', action='version', version=f'{self.NAME} {version}')
        parser.add_argument(
            '--config-file',
            action='append',
            default=[],
            dest='config_files',
            metavar='PATH',
            help='Configuration file; repeatable, a later one wins. Default: consoled.conf and '
            f'{self.NAME}.conf, where there (the first of each in ~/.consoled, ~, /etc/consoled, /etc).',
        )
        parser.add_argument(
            '--debug', action='store_true', help='Show log lines of all levels, and tracebacks of errors.'
        )
        return parser

    def configure_logging(self) -> None:
        """Logs are for those who ask: an error is told in one line, not by the libraries' logs as well."""
        options = self.options
        level = {0: logging.CRITICAL, 1: logging.CRITICAL, 2: logging.INFO}.get(
            options.verbose_level, logging.DEBUG
        )
        handler: logging.Handler = logging.StreamHandler(self.stderr)
        if options.log_file:
            try:
                handler = logging.FileHandler(options.log_file)
            except OSError as exc:
                self.parser.error(f'the log file can not be written: {exc.strerror}')
            level = min(level, logging.INFO)
        if options.debug:
            level = logging.DEBUG
        handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(name)s %(message)s'))
        root = logging.getLogger()
        root.addHandler(handler)
        self.resources.callback(root.removeHandler, handler)
        root.setLevel(level)

    def initialize_app(self, argv: list[str]) -> None:
        if not argv and not self.options.deferred_help:
            self.parser.error('a command is missing')
        if argv[:1] == [
            'help'
        ]:  # "session list --user x --help" has come here as "help session list --user x"
            del argv[next((i for i, word in enumerate(argv) if word.startswith('-')), len(argv)) :]

    def run_subcommand(self, argv: list[str]) -> int:
        words = argv[1:] if argv[0] == 'help' else argv
        try:
            if words:
                self.command_manager.find_command(words)
        except ValueError:
            known = ', '.join(sorted(self.COMMANDS))
            self.parser.error(f'there is no such command; the commands are {known}')
        result = super().run_subcommand(argv)
        return result if self._escaped is None else self.report(self._escaped)

    def clean_up(self, cmd: command.Command, result: int, err: BaseException | None) -> None:
        """Keep an error that cliff would only log; ours are told by ``Command.run``."""
        if isinstance(err, Exception):
            self._escaped = err

    def explain(self, error: Exception) -> Failed:
        """What an error means for the operator; programs add what only they meet."""
        return explained(error)

    def report(self, error: Exception) -> int:
        """Tell the operator of an error in one line; return the exit code."""
        if self.options.debug:
            traceback.print_exception(error, file=self.stderr)
        failed = self.explain(error)
        line = f'{self.NAME}: {failed.code}: {failed} {failed.hint}'.rstrip()
        self.stderr.write(line + '\n')
        return failed.exit_code

    @functools.cached_property
    def conf(self) -> cfg.ConfigOpts:
        """The options of the configuration files."""
        from oslo_config import cfg

        from consoled.cmd import _setup

        files = [word for path in self.options.config_files for word in ('--config-file', path)]
        conf = cfg.ConfigOpts()
        try:
            _setup.read_options(files, prog=self.NAME, conf=conf)
        except ValueError as exc:
            raise Failed(USAGE, 'configuration_error', f'{exc}.') from exc
        return conf

    def confirm(self, question: str, *, must: bool) -> None:
        """Ask at the terminal.

        :param must: what to do without a terminal: refuse (True), or go on
        :raises Failed: the answer is not yes
        """
        if not self.stdin.isatty():
            if must:
                raise Failed(
                    USAGE, 'usage_error', f'{question} There is no terminal to ask at.', 'Use --yes.'
                )
            return
        self.stderr.write(f'{question} [y/N] ')
        self.stderr.flush()
        if self.stdin.readline(64).strip().lower() not in ('y', 'yes'):
            raise Failed(REFUSED, 'cancelled', 'Nothing was done.')


def run(app: App, argv: Sequence[str] | None) -> int:
    """Run a program and let go of what it holds.

    :param argv: arguments without the program's name; None for the process's
    :returns: the exit code
    """
    with app.resources:
        try:
            result = app.run(list(sys.argv[1:] if argv is None else argv))
        except SystemExit as exc:  # from argparse, and from cliff after help
            result = OK if exc.code is None else int(exc.code)
    for stream in (app.stdout, app.stderr):
        try:
            stream.flush()
        except BrokenPipeError:  # its reader (| head) has gone
            _give_up(stream)
            result = _BROKEN_PIPE
        except OSError:  # the terminal has gone
            _give_up(stream)
    return result


def _give_up(stream: TextIO) -> None:
    """Let the interpreter's own last flush succeed: it would end with a code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
