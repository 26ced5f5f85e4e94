# SPDX-License-Identifier: Apache-2.0
"""The program ``consoled-demo``: its command line and output."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import pathlib
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from consoled.cli import arguments, errors
from consoled.demo import cell as demo_cell
from consoled.demo import links as demo_links
from consoled.demo import walk

PROG = 'consoled-demo'

_DATABASE = 'consoled-demo.sqlite'
_HOST = '127.0.0.1'
_PORT = 6080
_POLL_INTERVAL = 0.1  # seconds between checks for a signal

_BOLD, _DIM, _RED, _GREEN, _PLAIN = '\033[1m', '\033[2m', '\033[31m', '\033[32m', '\033[0m'


def main(argv: Sequence[str] | None = None) -> int:
    """Run the walk; without ``--check``, keep the cell running until SIGINT or SIGTERM.

    :param argv: arguments without the program's name; default: those of the process
    :returns: exit code, see ``cli.errors``
    """
    args = _parser().parse_args(argv)
    with _stop_signals() as stopped:
        logging.basicConfig(level=logging.WARNING, format='%(levelname)s %(name)s: %(message)s')
        # The invitation lists missing pages.
        logging.getLogger('consoled.proxy.pages').setLevel(logging.ERROR)
        try:
            with _state_directory(args.state_dir) as directory:
                return _run(directory, args, stopped)
        except BrokenPipeError:
            # the reader of our output has exited; the interpreter's flush at exit must not fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as exc:
            return _unavailable(exc)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        allow_abbrev=False,
        description='Run a manager, a compute agent with two guests, and a proxy in one process. Walk '
        'through the life cycle of their consoles and explain each step; then print links that open the '
        "guests' consoles in a browser on this machine, and run until SIGINT or SIGTERM. The demo listens on "
        '127.0.0.1 only, reads no configuration file, and needs no message broker, database server or '
        'hypervisor.',
        epilog='Exit codes: 0 stopped by a signal, or all steps of --check succeeded; 1 a step failed, or '
        '--check was stopped before its end; 2 wrong usage; 3 the cell could not be started (a port in use).',
    )
    parser.error = functools.partial(errors.usage_error, parser)  # type: ignore[method-assign]
    parser.add_argument(
        '--check',
        action='store_true',
        help='exit after the walk; the exit code tells whether all steps succeeded',
    )
    parser.add_argument(
        '--port',
        type=arguments.checked(_checked_port),
        default=None,
        help=f'port of the proxy on 127.0.0.1; default: {_PORT}, or any free port if that is taken',
    )
    parser.add_argument(
        '--state-dir',
        metavar='DIR',
        type=pathlib.Path,
        help='keep the database in this directory; default: a temporary one, removed at exit',
    )
    return parser


def _checked_port(value: str) -> int:
    if not re.fullmatch('[0-9]{1,5}', value) or int(value) > 65535:
        raise ValueError('must be a TCP port, or 0 for any free one')
    return int(value)


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM was received.

    The handler only records it: an exception could be raised anywhere, even during cleanup.
    """
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _state_directory(wanted: pathlib.Path | None) -> Iterator[pathlib.Path]:
    """Yield the directory of the database; a temporary one is removed afterwards."""
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix=f'{PROG}-') as directory:
            yield pathlib.Path(directory)
    else:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield wanted.resolve()


def _run(directory: pathlib.Path, args: argparse.Namespace, stopped: Callable[[], bool]) -> int:
    printer = Printer(sys.stdout, brief=args.check)
    try:
        with demo_cell.running_cell(directory / _DATABASE, _port(args), stopped) as cell:
            printer.welcome(directory / _DATABASE)
            for number, step in enumerate(walk.STEPS, start=1):
                result = walk.run_step(cell, step)
                printer.step(number, step, result)
                if result.problem is not None:
                    print(f'{PROG}: step {number} failed: {step.title}', file=sys.stderr)
                    return 1
            printer.farewell(len(walk.STEPS))
            if not args.check:
                with demo_links.dashboard(cell, _HOST) as links:
                    printer.invitation(links, keeps=args.state_dir is not None)
                    while not stopped():
                        time.sleep(_POLL_INTERVAL)
    except demo_cell.NotStarted as exc:
        return _unavailable(exc)
    except walk.Stopped:
        if args.check:  # an unfinished check has not succeeded
            print(f'{PROG}: stopped before the end', file=sys.stderr)
            return 1
    return 0


def _unavailable(error: Exception) -> int:
    """Report in one line why the cell cannot be started, and return the exit code."""
    failed = errors.explain(error)
    if isinstance(error, demo_cell.NotStarted):
        failed = errors.Failed(errors.UNREACHABLE, 'unavailable', f'{error}.')
    sys.stderr.write(errors.report(PROG, failed))
    return failed.exit_code


def _port(args: argparse.Namespace) -> int:
    """Return the port of the proxy; the default port is used only without ``--check``, and if it is free."""
    if args.port is not None:
        return int(args.port)
    if args.check:
        return 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the proxy does
        try:
            probe.bind((_HOST, _PORT))
        except OSError:
            return 0
    return _PORT


class Printer:
    """Output of the demo.

    :param brief: print one line per step
    """

    def __init__(self, out: TextIO, *, brief: bool) -> None:
        self._out = out
        self._brief = brief
        # https://no-color.org: any value but the empty one
        self._colours = out.isatty() and not os.environ.get('NO_COLOR')

    def _print(self, text: str = '', style: str = '') -> None:
        if style and self._colours:
            text = f'{style}{text}{_PLAIN}'
        print(text, file=self._out, flush=True)

    def welcome(self, database: pathlib.Path) -> None:
        """Introduce the cell."""
        if self._brief:
            return
        self._print('A cell in one process: manager, compute agent and proxy.', _BOLD)
        self._print('The message bus is in memory, and all addresses are local. The guests are simulated:')
        self._print('a desktop with a VNC screen, and a router with four serial ports.')
        self._print(f'Database: {database}')

    def step(self, number: int, step: walk.Step, result: walk.Result) -> None:
        """Describe a step and its result."""
        failed = result.problem is not None
        if self._brief:
            self._print(f'{"FAILED" if failed else "ok"} {number}. {step.title}', _RED if failed else _GREEN)
        else:
            self._print()
            self._print(f'{number}. {step.title}', _BOLD)
            if result.outcome is not None:
                self._print(f'   -> {result.outcome.asked}')
                self._print(f'   <- {result.outcome.answered}', _GREEN)
            self._print(f'   {step.why}', _DIM)
        if failed:
            self._print(f'   FAILED: {result.problem}', _RED)

    def farewell(self, steps: int) -> None:
        """Say that all steps succeeded."""
        self._print()
        self._print(f'All {steps} steps succeeded.', _BOLD)

    def invitation(self, links: demo_links.Links, *, keeps: bool) -> None:
        """List what the user can open.

        :param keeps: whether the database is kept at exit
        """
        self._print('Now try it yourself, in a browser on this machine:')
        self._print()
        for text, url in links.urls.items():
            self._print(f'   {text:30} {url}')
        self._print()
        for text in links.missing:
            self._print(f'   {text}', _RED)
        fate = 'keeps the database' if keeps else 'removes the database'
        self._print(f'The cell keeps running. Ctrl-C or SIGTERM stops it and {fate}.')
