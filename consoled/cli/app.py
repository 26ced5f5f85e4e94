# SPDX-License-Identifier: Apache-2.0
"""Base of the operators' tools: global options, commands, configuration, output and errors."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from cliff import app as cliff_app
from cliff import command, commandmanager, lister, show
from cliff._argparse import SmartHelpFormatter
from oslo_config import cfg

from consoled import logs, printable, version
from consoled.cli import errors

# by the value of --verbose: nothing with -q and by default, then INFO, then everything
_LOG_LEVELS = {0: logging.CRITICAL, 1: logging.CRITICAL, 2: logging.INFO}


class _HelpFormatter(SmartHelpFormatter):
    """Formatter that wraps paragraphs and keeps indented lines (examples) as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = []
        for paragraph in text.split('\n\n'):
            as_is = any(line.startswith(' ') for line in paragraph.splitlines())
            paragraphs.append(paragraph if as_is else super()._fill_text(paragraph, width, indent))
        return '\n\n'.join(paragraphs)


class Command(command.Command):
    """Base of the commands. Their docstring is the help text; its first line appears in the command list.

    :cvar columns: names of the output columns
    :cvar example: command line shown at the end of the help
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
        parser.allow_abbrev = False  # an option added by a later release must not break a script
        parser.formatter_class = _HelpFormatter
        parser.error = functools.partial(errors.usage_error, parser)  # type: ignore[method-assign]
        self.parser = parser
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command and return its exit code; report an error in one line."""
        wanted = {name.lower().replace(' ', '_') for name in getattr(parsed_args, 'columns', ())}
        # cliff checks the columns only when it prints the result, after the command has done its work
        if not wanted <= set(self.columns):
            self.parser.error(f'no such column; the columns are {", ".join(self.columns)}')
        try:
            return super().run(parsed_args)
        except BrokenPipeError:
            raise
        except Exception as exc:
            return self.app.report(exc)


class Lister(Command, lister.Lister):
    """Base of the commands that print a list of rows."""

    def produce_output(self, parsed_args: Any, column_names: Any, data: Iterable[Sequence[Any]]) -> int:
        rows = data if _escapes(parsed_args) else [_harmless(row) for row in data]
        return int(super().produce_output(parsed_args, column_names, rows))


class ShowOne(Command, show.ShowOne):
    """Base of the commands that print one row."""

    def produce_output(self, parsed_args: Any, column_names: Any, data: Sequence[Any]) -> int:
        row = data if _escapes(parsed_args) else _harmless(data)
        if parsed_args.formatter == 'shell':
            row = [_quoted(value) if isinstance(value, str) else value for value in row]
        return int(super().produce_output(parsed_args, column_names, row))


def _escapes(parsed_args: argparse.Namespace) -> bool:
    """Return whether the format of the output escapes what a terminal would obey: values stay exact."""
    return bool(parsed_args.formatter == 'json')


def _quoted(text: str) -> str:
    """Return the text so that a shell takes it literally in double quotes, which cliff puts around it."""
    return re.sub(r'([\\$`])', r'\\\1', text)


def _harmless(row: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(printable.line(value) if isinstance(value, str) else value for value in row)


class App(cliff_app.App):
    """Base of the programs.

    :cvar NAME: name of the program
    :cvar DESCRIPTION: first paragraph of ``--help``
    :cvar COMMANDS: the commands by name
    :ivar resources: released when the program ends
    """

    NAME: str
    DESCRIPTION = ''
    COMMANDS: dict[str, type[Command]] = {}

    def __init__(
        self, stdin: TextIO | None = None, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        _open_streams()
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
        self._uncaught: Exception | None = None

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
        parser.error = functools.partial(errors.usage_error, parser)  # type: ignore[method-assign]
        parser.add_argument(
            '-v',
            '--verbose',
            action='count',
            dest='verbose_level',
            help='Show log lines of level INFO and above; given twice, of all levels. Default: none.',
        )
        parser.add_argument(
            '-q', '--quiet', action='store_const', dest='verbose_level', const=0, help='Show no log lines.'
        )
        parser.set_defaults(verbose_level=self.DEFAULT_VERBOSE_LEVEL)
        parser.add_argument(
            '--log-file',
            metavar='PATH',
            help='Write log lines of level INFO and above to this file.',
        )
        parser.add_argument(
            '--version', action='version', version=f'{self.NAME} {version}', help='Show the version and exit.'
        )
        parser.add_argument(
            '--config-file',
            action='append',
            default=[],
            dest='config_files',
            metavar='PATH',
            help='Configuration file. May be repeated; the last value of an option applies. Default: '
            f'consoled.conf and {self.NAME}.conf, if present (the first of each in ~/.consoled, ~, '
            '/etc/consoled, /etc).',
        )
        parser.add_argument(
            '--debug', action='store_true', help='Show log lines of all levels and tracebacks of errors.'
        )
        return parser

    def configure_logging(self) -> None:
        """Show log lines only on request: errors are reported in one line, not in libraries' logs as well."""
        options = self.options
        level = _LOG_LEVELS.get(options.verbose_level, logging.DEBUG)
        handler: logging.Handler = logging.StreamHandler(self.stderr)
        if options.log_file:
            try:
                handler = logging.FileHandler(options.log_file)
            except OSError as exc:
                self.parser.error(f'the log file cannot be written: {exc.strerror}')
            level = min(level, logging.INFO)
        if options.debug:
            level = logging.DEBUG
        formatter = logging.Formatter('%(asctime)s %(levelname)s %(name)s %(message)s')
        handler.setFormatter(logs.HarmlessFormatter(formatter))
        root = logging.getLogger()
        root.addHandler(handler)
        self.resources.callback(root.removeHandler, handler)
        root.setLevel(level)

    def initialize_app(self, argv: list[str]) -> None:
        if not argv and not self.options.deferred_help:
            self.parser.error('a command is missing')
        if argv[:1] == ['help']:
            # cliff turns "session list --user x --help" into "help session list --user x"
            del argv[next((i for i, word in enumerate(argv) if word.startswith('-')), len(argv)) :]

    def run_subcommand(self, argv: list[str]) -> int:
        words = argv[1:] if argv[0] == 'help' else argv
        try:
            if words:
                self.command_manager.find_command(words)
        except ValueError:
            known = ', '.join(sorted(self.COMMANDS))
            self.parser.error(f'no such command; the commands are {known}')
        result = super().run_subcommand(argv)
        return result if self._uncaught is None else self.report(self._uncaught)

    def clean_up(self, cmd: command.Command, result: int, err: BaseException | None) -> None:
        """Keep an error that cliff would only log; those of commands are reported by ``Command.run``."""
        if isinstance(err, Exception):
            self._uncaught = err

    def explain(self, error: Exception) -> errors.Failed:
        """Translate an exception into a failure; programs extend this for errors of their own."""
        return errors.explain(error)

    def report(self, error: Exception) -> int:
        """Report an error to the operator in one line, and return the exit code."""
        if self.options.debug:
            self.stderr.write(printable.lines(''.join(traceback.format_exception(error))))
        failed = self.explain(error)
        self.stderr.write(errors.report(self.NAME, failed))
        return failed.exit_code

    @functools.cached_property
    def conf(self) -> cfg.ConfigOpts:
        """The options of the configuration files.

        :raises cfg.Error: a file cannot be read or parsed, or the value of an option is invalid
        """
        from consoled.conf import files  # loads oslo.messaging, which help does not need

        argv = [word for path in self.options.config_files for word in ('--config-file', path)]
        conf = cfg.ConfigOpts()
        files.load(conf, argv, prog=self.NAME)
        files.check(conf)
        return conf

    def confirm(self, question: str, *, required: bool) -> None:
        """Ask for confirmation at the terminal.

        :param required: whether to refuse, rather than continue, if standard input is not a terminal
        :raises Failed: it was refused, or the answer is not yes
        """
        if not self.stdin.isatty():
            if required:
                message = f'{question} Standard input is not a terminal, so nobody can confirm.'
                raise errors.Failed(errors.USAGE, 'usage_error', message, 'Use --yes.')
            return
        self.stderr.write(printable.line(f'{question} [y/N] '))
        self.stderr.flush()
        if self.stdin.readline(64).strip().lower() not in ('y', 'yes'):
            raise errors.Failed(errors.REFUSED, 'cancelled', 'Nothing was done.')


def _open_streams() -> None:
    """Replace the standard streams that the parent has closed, in place of which Python has None.

    They also get their file descriptors again, so that no connection has the number of the standard output.
    """
    for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until the end of the process


def run(app: App, argv: Sequence[str] | None) -> int:
    """Run a program, release its resources, and flush its output.

    :param argv: arguments without the program's name; default: those of the process
    :returns: exit code
    """
    for stream in (app.stdout, app.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must not end a list
            stream.reconfigure(errors='backslashreplace')
    with app.resources:
        try:
            result = app.run(list(sys.argv[1:] if argv is None else argv))
        except SystemExit as exc:  # by argparse, and by cliff after help
            result = errors.OK if exc.code is None else int(exc.code)
    for stream in (app.stdout, app.stderr):
        try:
            stream.flush()
        except BrokenPipeError:  # the reader of a pipe (| head) has exited
            _redirect_to_null(stream)
            result = errors.BROKEN_PIPE
        except OSError as exc:  # the disk is full, or the terminal is gone
            _redirect_to_null(stream)
            result = result or _lost_output(app, stream, exc)
    return result


def _lost_output(app: App, stream: TextIO, error: OSError) -> int:
    """Report that a part of the output could not be written, and return the exit code."""
    message = f'The output cannot be written: {error.strerror}.'
    failed = errors.Failed(errors.UNREACHABLE, 'unavailable', message)
    if stream is app.stdout:
        app.stderr.write(errors.report(app.NAME, failed))
    return failed.exit_code


def _redirect_to_null(stream: TextIO) -> None:
    """Let the interpreter's flush at exit succeed; it would change the exit code otherwise."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
