# SPDX-License-Identifier: Apache-2.0
"""The user's terminal: keys in, screen out, and its modes, which are restored at the end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import select
import termios
import tty
from collections.abc import Callable
from typing import Any, TextIO

from consoled import printable
from consoled.consolectl.task_thread import TaskThread

_READ_SIZE = 16 * 1024  # bytes read at a time
_SEND_SIZE = 1024  # bytes sent in one message; the proxy's max_message_size is never less
# Bytes to buffer while they are not taken. At this limit reading stops, so the escape key is not seen either.
_MAX_BUFFERED = 4 * 1024 * 1024
_WRITE_SIZE = 4096  # bytes written at a time; output can be stopped in between
_LAST_WRITE = 0.5  # seconds to wait at the end for a write in progress

# A key pressed with Ctrl, except those that Enter (^M, ^J) and the Escape key (^[) send.
_CARET = re.compile(r'\^[@A-IK-LN-Z\\\]^_]')

# Switches off what programs in the guest may have left on: attributes, a hidden cursor, application keys,
# mouse reports, bracketed paste.
_RESET = b'\x1b[m\x1b[?25h\x1b[?1l\x1b>\x1b[?1000;1002;1003;1006;2004l'


@dataclasses.dataclass(frozen=True)
class Escape:
    """The key that detaches.

    :param name: as shown to the user
    :param sequences: the byte sequences that terminals send for it
    """

    name: str
    sequences: tuple[bytes, ...]

    @classmethod
    def from_caret(cls, caret: str) -> Escape:
        """Parse the notation ``^X``.

        :raises ValueError: it is not a key in that notation, or one that is needed for typing
        """
        if not _CARET.fullmatch(caret.upper()):
            raise ValueError('must be ^ and a letter or one of @ \\ ] ^ _, but not ^J, ^M or ^[')
        key = caret[1].upper()
        code = ord(key.lower())
        # The second and third are sent after a program in the guest has enabled extended key reports: the
        # keyboard protocol of kitty, and modifyOtherKeys of xterm.
        sequences = (bytes([ord(key) & 0x1F]), b'\x1b[%d;5u' % code, b'\x1b[27;5;%d~' % code)
        return cls(f'Ctrl-{key}', sequences)

    def find(self, data: bytes) -> int:
        """Return the index of the key in what was typed, or -1."""
        found = (data.find(sequence) for sequence in self.sequences)
        return min((index for index in found if index >= 0), default=-1)


class Screen:
    """Standard output. If the terminal is slow or stopped, the guest has to wait, but the keys do not."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._used = False
        self._stopped = False
        self._thread = TaskThread()

    @property
    def busy(self) -> bool:
        """Whether a write is in progress."""
        return self._thread.busy

    async def write(self, data: bytes) -> None:
        """Write all of ``data``, however long that takes.

        :raises OSError: the screen cannot be written
        """
        self._used = True
        await self._thread.run(self._write, data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._stopped:
            try:
                rest = rest[os.write(self._fd, rest[:_WRITE_SIZE]) :]
            except BlockingIOError:  # another program has left the descriptor non-blocking
                select.select([], [self._fd], [])

    def stop(self) -> bool:
        """Stop writing, and reset a terminal for its next user.

        :returns: False if the terminal accepts no output
        """
        self._stopped = True
        if not self._thread.stop(_LAST_WRITE):
            return False
        if self._used and os.isatty(self._fd) and os.environ.get('TERM') != 'dumb':
            with contextlib.suppress(OSError):
                os.write(self._fd, _RESET)
        return True


class Keys:
    """Standard input, up to the escape key.

    It is read ahead, so that the escape key is seen while a guest accepts no input.

    :param fd: file descriptor of any kind
    :param escape: None to send all bytes to the guest
    :param on_end: called at the end of the input; the argument says whether it was the escape key
    :ivar ended: whether the input has ended
    """

    def __init__(self, fd: int, escape: Escape | None, on_end: Callable[[bool], None]) -> None:
        self.ended = False
        self._fd = fd
        self._escape = escape
        self._on_end = on_end
        self._buffer = bytearray()
        self._changed = asyncio.Event()
        self._reading = False

    @property
    def waiting(self) -> bool:
        """Whether input is buffered that was not taken yet."""
        return bool(self._buffer)

    def start(self) -> None:
        """Start reading."""
        if not (self._reading or self.ended):
            asyncio.get_running_loop().add_reader(self._fd, self._read)
            self._reading = True

    def stop(self) -> None:
        """Stop reading."""
        if self._reading:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._reading = False

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # the terminal has hung up
            data = b''
        index = -1 if self._escape is None else self._escape.find(data)
        self._buffer += data if index < 0 else data[:index]
        self._changed.set()
        if index >= 0 or not data:
            self.ended = True
            self._on_end(index >= 0)
        if self.ended or len(self._buffer) >= _MAX_BUFFERED:
            self.stop()

    async def take(self) -> bytes:
        """Return the next bytes, as soon as there are any; b'' at the end of the input."""
        while not self._buffer and not self.ended:
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._buffer[:_SEND_SIZE])
        del self._buffer[:_SEND_SIZE]
        self.start()
        return data

    def drop(self) -> None:
        """Discard what was not taken yet."""
        self._buffer.clear()
        self.start()


class Terminal:
    """Modes of the terminal, and lines for the user between the output of the guest.

    :param fd: file descriptor of standard input
    :param errors: stream that the lines are written to
    :ivar interactive: whether standard input is a terminal
    """

    def __init__(self, fd: int, errors: TextIO) -> None:
        self.interactive = os.isatty(fd)
        self._fd = fd
        self._errors = errors
        self._modes: list[Any] | None = None

    def make_raw(self) -> None:
        """Pass each key on unchanged. May be repeated after another program has used the terminal."""
        if not self.interactive:
            return
        with contextlib.suppress(termios.error):  # the terminal has hung up, which reading it tells
            if self._modes is None:
                self._modes = termios.tcgetattr(self._fd)
            tty.setraw(self._fd, termios.TCSANOW)  # unlike the default, keeps what was already typed

    def resume(self) -> None:
        """Make the terminal raw again after the process was stopped and continued."""
        if self._modes is not None:
            self.make_raw()

    def restore(self) -> None:
        """Restore the modes that the terminal had."""
        if self._modes is not None:
            with contextlib.suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._fd, termios.TCSANOW, self._modes)
            self._modes = None

    def say(self, line: str = '') -> None:
        """Write a line for the user, if the terminal is interactive."""
        if self.interactive:
            with contextlib.suppress(OSError):
                self._errors.write(printable.line(line) + ('\n' if self._modes is None else '\r\n'))
                self._errors.flush()
