# SPDX-License-Identifier: Apache-2.0
"""The demo's command line, and what it prints.

The concurrency is chosen before ``main`` is called: what it needs of consoled it imports then.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import pathlib
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from consoled.demo import walk
    from consoled.demo.links import Links

PROG = 'consoled-demo'

_DATABASE = 'consoled-demo.sqlite'
_HOST = '127.0.0.1'
_PORT = 6080
_STOP_WITHIN = 0.1  # seconds between two looks for a signal

_BOLD, _DIM, _RED, _GREEN, _PLAIN = '\033[1m', '\033[2m', '\033[31m', '\033[32m', '\033[0m'


def main(argv: Sequence[str] | None = None) -> int:
    """Take the walk; then run until SIGINT or SIGTERM, unless it is only a check.

    :param argv: arguments without the program's name; None for the process's
    :returns: 0, or 1 when a step failed or nothing could be started
    """
    args = _parser().parse_args(argv)
    with _stop_signals() as stopped:
        logging.basicConfig(level=logging.WARNING, format='%(levelname)s %(name)s: %(message)s')
        logging.getLogger('consoled.proxy.pages').setLevel(logging.ERROR)  # the end says what is missing
        try:
            with _state_directory(args.state_dir) as directory:
                return _run(directory, args, stopped)
        except BrokenPipeError:
            # whoever read our output has gone; the interpreter must not trip over it once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as exc:
            print(f'{PROG}: {exc}', file=sys.stderr)
            return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        description='Runs a manager, a compute agent with two guests and a proxy in one process, walks '
        'through the life of their consoles and says what happens; then prints links that open the '
        "guests' consoles in a browser of this machine, and runs until SIGINT or SIGTERM. It listens on "
        '127.0.0.1 only. It reads no configuration file, and needs no message broker, database server or '
        'hypervisor.',
        epilog='Exit codes: 0 ended by a signal after the walk, or with --check all of it went well; 1 a '
        'step failed, --check was stopped before the end, or the cell could not be started; 2 wrong usage.',
    )
    parser.add_argument(
        '--check', action='store_true', help='end after the walk; the exit code says how it went'
    )
    parser.add_argument(
        '--port',
        type=int,
        default=None,
        help=f'port of the proxy on 127.0.0.1; default: {_PORT}, or any if that is taken',
    )
    parser.add_argument(
        '--state-dir',
        metavar='DIR',
        type=pathlib.Path,
        help='keep the database here; default: a temporary directory that is removed at exit',
    )
    return parser


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields what tells whether SIGINT or SIGTERM came.

    The handler only notes it: an exception raised from it could come up anywhere, also while cleaning up.
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
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix=f'{PROG}-') as directory:
            yield pathlib.Path(directory)
    else:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield wanted.resolve()


def _run(directory: pathlib.Path, args: argparse.Namespace, stopped: Callable[[], bool]) -> int:
    # only now: the libraries look at the backend when they are imported
    from consoled.demo import cell as demo_cell
    from consoled.demo import links as demo_links
    from consoled.demo import walk

    printer = Printer(sys.stdout, brief=args.check)
    try:
        with demo_cell.running_cell(directory / _DATABASE, _port(args), stopped) as cell:
            printer.welcome(directory / _DATABASE)
            for number, step in enumerate(walk.STEPS, start=1):
                result = walk.take(cell, step)
                printer.step(number, step, result)
                if result.problem is not None:
                    print(f'{PROG}: step {number} failed: {step.title}', file=sys.stderr)
                    return 1
            printer.farewell(len(walk.STEPS))
            if not args.check:
                with demo_links.dashboard(cell, _HOST) as links:
                    printer.invitation(links, keeps=args.state_dir is not None)
                    while not stopped():
                        time.sleep(_STOP_WITHIN)
    except demo_cell.NotStarted as exc:
        print(f'{PROG}: {exc}', file=sys.stderr)
        return 1
    except walk.Stopped:
        if args.check:  # one that was not finished has not passed
            print(f'{PROG}: stopped before the end', file=sys.stderr)
            return 1
    return 0


def _port(args: argparse.Namespace) -> int:
    """The port for users: the usual one only for somebody who will look, and if it is free."""
    if args.port is not None:
        return int(args.port)
    if args.check:
        return 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the proxy will
        try:
            probe.bind((_HOST, _PORT))
        except OSError:
            return 0
    return _PORT


class Printer:
    """Tells what happens.

    :param brief: one line a step
    """

    def __init__(self, out: TextIO, *, brief: bool) -> None:
        self._out = out
        self._brief = brief
        # https://no-color.org: set to anything but nothing
        self._colours = out.isatty() and not os.environ.get('NO_COLOR')

    def _print(self, text: str = '', style: str = '') -> None:
        if style and self._colours:
            text = f'{style}{text}{_PLAIN}'
        print(text, file=self._out, flush=True)

    def welcome(self, database: pathlib.Path) -> None:
        if self._brief:
            return
        self._print('A cell in one process: manager, compute agent and proxy.', _BOLD)
        self._print('The bus is memory, and all addresses are of this machine only. The guests are made up:')
        self._print('a desktop with a VNC screen and a router with four serial ports.')
        self._print(f'Database: {database}')

    def step(self, number: int, step: walk.Step, result: walk.Result) -> None:
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
        self._print()
        self._print(f'All {steps} steps went as they should.', _BOLD)

    def invitation(self, links: Links, *, keeps: bool) -> None:
        self._print('Now you. In a browser of this machine:')
        self._print()
        for text, url in links.urls.items():
            self._print(f'   {text:30} {url}')
        self._print()
        for text in links.missing:
            self._print(f'   {text}', _RED)
        fate = 'keeps the database' if keeps else 'removes the database'
        self._print(f'The cell goes on running. Ctrl-C or SIGTERM ends it and {fate}.')
