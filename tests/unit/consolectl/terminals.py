# SPDX-License-Identifier: Apache-2.0
"""Pseudo terminals for tests."""

import contextlib
import fcntl
import os
import select
import struct
import subprocess
import termios
import time
import unittest

import fixtures

from consoled.testing.fixtures import wait_until

PATIENCE = 20.0  # seconds; only used up by a failure


def new_terminal():
    """Return both ends of a pseudo terminal; skip the test where there are none (a bare chroot)."""
    try:
        return os.openpty()
    except OSError as exc:
        if os.environ.get('CONSOLED_REQUIRE_SERVICES') == '1' and os.path.ismount('/dev/pts'):
            raise
        raise unittest.SkipTest(f'there are no pseudo terminals here: {exc}') from exc


class InTerminal(fixtures.Fixture):
    """A program in a pseudo terminal of its own, and its user.

    :ivar screen: all output so far
    :ivar seen: length of the output up to the last expected text
    """

    def __init__(self, command, environment):
        super().__init__()
        self._command = command
        self._environment = environment
        self.screen = b''
        self.seen = 0

    def _setUp(self):  # noqa: N802 - named by the library
        self.master, self.slave = new_terminal()
        self.addCleanup(os.close, self.slave)
        self.addCleanup(self.hang_up)
        self.modes = termios.tcgetattr(self.slave)
        self.resize(24, 80)
        self.process = subprocess.Popen(
            # a job in the background of a shell script inherits ignored signals, which programs keep ignoring
            ['env', '--default-signal', 'setsid', '--ctty', *self._command],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=self._environment,
        )
        self.addCleanup(self._end)

    def _end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def hang_up(self):
        if self.master is not None:
            os.close(self.master)
            self.master = None

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

    def type(self, data):
        """Type, and read the output meanwhile, as a terminal does."""
        while data:
            ready, writable, _ = select.select([self.master], [self.master], [], PATIENCE)
            if ready:
                self._read()
            if writable:
                data = data[os.write(self.master, data[:1024]) :]

    def _read(self):
        with contextlib.suppress(OSError):  # the terminal has hung up
            self.screen += os.read(self.master, 65536)

    def expect(self, text):
        """Wait until this text is shown, after the text that was expected before."""
        deadline = time.monotonic() + PATIENCE
        while (index := self.screen.find(text, self.seen)) < 0:
            left = deadline - time.monotonic()
            if left < 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f'{text!r} is not shown, but {self.screen[self.seen :][-2000:]!r}')
            before = len(self.screen)
            self._read()
            if len(self.screen) == before:
                raise AssertionError(
                    f'{text!r} is not shown, and the program has ended: {self.screen[-2000:]!r}'
                )
        self.seen = index + len(text)

    def exit_code(self, *, reading=True):
        """Wait for the end of the program, and return its exit code.

        :param reading: whether to read its output meanwhile
        """

        def ended():
            while reading and select.select([self.master], [], [], 0)[0]:
                self._read()
            return self.process.poll() is not None

        wait_until(ended, timeout=PATIENCE, what='the end')
        return self.process.returncode

    @property
    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
