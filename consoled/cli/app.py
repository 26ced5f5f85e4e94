# SPDX-License-Identifier: Apache-2.0
"""The base of the operators' tools: their options, commands, configuration and output.

This module is imported before the concurrency is chosen, so it imports nothing that looks at it: oslo's
libraries, SQLAlchemy and what uses them are imported in the functions that need them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from cliff import app as cliff_app
from cliff import command, commandmanager, lister, show
from cliff._argparse import SmartHelpFormatter

from consoled import version
from consoled.cli import errors

if TYPE_CHECKING:
    from oslo_config import cfg


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
        parser.error = functools.partial(errors.usage_error, parser)  # type: ignore[method-assign]
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
        parser.error = functools.partial(errors.usage_error, parser)  # type: ignore[method-assign]
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

    def explain(self, error: Exception) -> errors.Failed:
        """What an error means for the operator; programs add what only they meet."""
        return errors.explained(error)

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
            raise errors.Failed(errors.USAGE, 'configuration_error', f'{exc}.') from exc
        return conf

    def confirm(self, question: str, *, must: bool) -> None:
        """Ask at the terminal.

        :param must: what to do without a terminal: refuse (True), or go on
        :raises errors.Failed: the answer is not yes
        """
        if not self.stdin.isatty():
            if must:
                raise errors.Failed(
                    errors.USAGE, 'usage_error', f'{question} There is no terminal to ask at.', 'Use --yes.'
                )
            return
        self.stderr.write(f'{question} [y/N] ')
        self.stderr.flush()
        if self.stdin.readline(64).strip().lower() not in ('y', 'yes'):
            raise errors.Failed(errors.REFUSED, 'cancelled', 'Nothing was done.')


def run(app: App, argv: Sequence[str] | None) -> int:
    """Run a program and let go of what it holds.

    :param argv: arguments without the program's name; None for the process's
    :returns: the exit code
    """
    with app.resources:
        try:
            result = app.run(list(sys.argv[1:] if argv is None else argv))
        except SystemExit as exc:  # from argparse, and from cliff after help
            result = errors.OK if exc.code is None else int(exc.code)
    for stream in (app.stdout, app.stderr):
        try:
            stream.flush()
        except BrokenPipeError:  # its reader (| head) has gone
            _give_up(stream)
            result = errors.BROKEN_PIPE
        except OSError:  # the terminal has gone
            _give_up(stream)
    return result


def _give_up(stream: TextIO) -> None:
    """Let the interpreter's own last flush succeed: it would end with a code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
