# SPDX-License-Identifier: Apache-2.0
"""The user's terminal as the other end of a serial line: keys in, screen out, its modes put back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import queue
import re
import select
import termios
import threading
import tty
from collections.abc import Callable
from typing import Any, TextIO, TypeVar

Result = TypeVar('Result')

_PIECE = 16 * 1024  # bytes read from the user at a time, and sent in one message
_HELD = 4 * 1024 * 1024  # bytes of a user that nobody takes, before no more is read: not even the escape key
_SLICE = 4096  # bytes written to the screen at a time: it can be stopped in between
_LAST = 0.5  # seconds for the write that is under way when all ends

# Ctrl and one of these: not what Enter (^M, ^J) and other keys (^[) send
_CARET = re.compile(r'\^[@A-IK-LN-Z\\\]^_]')

# What programs of the guest may have left on: attributes, hidden cursor, application keys, reports of the
# mouse, marks around pastes.
_CALM = b'\x1b[m\x1b[?25h\x1b[?1l\x1b>\x1b[?1000;1002;1003;1006;2004l'


@dataclasses.dataclass(frozen=True)
class Escape:
    """The key that leaves.

    :param name: for people
    :param forms: what terminals send for it
    """

    name: str
    forms: tuple[bytes, ...]

    @classmethod
    def of(cls, caret: str) -> Escape:
        """From the notation ``^X``.

        :raises ValueError: it is none, or a key that is needed
        """
        if not _CARET.fullmatch(caret.upper()):
            raise ValueError('must be ^ and a letter or one of @ \\ ] ^ _, but neither ^J, ^M nor ^[')
        key = caret[1].upper()
        code = ord(key.lower())
        # the second and third: once a program of the guest has asked for keys to be told in more detail
        # (the protocol of kitty, and modifyOtherKeys of xterm)
        forms = (bytes([ord(key) & 0x1F]), b'\x1b[%d;5u' % code, b'\x1b[27;5;%d~' % code)
        return cls(f'Ctrl-{key}', forms)

    def find(self, data: bytes) -> int:
        """Where it is in what was typed; -1 if nowhere."""
        return min((place for form in self.forms if (place := data.find(form)) >= 0), default=-1)


class TaskThread:
    """A thread that does one thing after another. What does not come back is left behind.

    asyncio's own threads are waited for at the end of the process.
    """

    def __init__(self) -> None:
        self.busy = False
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    async def do(self, call: Callable[..., Result], *args: Any) -> Result:
        """Have something done, and return what it returns."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def settle(result: Any, error: Exception | None) -> None:
            self.busy = False
            if done.cancelled():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        def task() -> None:
            outcome: tuple[Any, Exception | None]
            try:
                outcome = call(*args), None
            except Exception as exc:
                outcome = None, exc
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, *outcome)

        self.busy = True
        self._tasks.put(task)
        return await done

    def stop(self, timeout: float) -> bool:
        """End the thread; whether it has ended within ``timeout`` seconds."""
        self._tasks.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()


class Screen:
    """Standard output. A terminal that is slow or stopped holds up the guest, but not the keys."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._used = False
        self._stopped = False
        self._worker = TaskThread()

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._worker.busy

    async def write(self, data: bytes) -> None:
        """Write, as long as that takes.

        :raises OSError: it can't be written
        """
        self._used = True
        await self._worker.do(self._write, data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._stopped:
            try:
                rest = rest[os.write(self._fd, rest[:_SLICE]) :]
            except BlockingIOError:  # whoever had the terminal before has left it like this
                select.select([], [self._fd], [])

    def stop(self) -> bool:
        """Write no more, and leave a terminal as its next user expects it; False if it takes nothing."""
        self._stopped = True
        if not self._worker.stop(_LAST):
            return False
        if self._used and os.isatty(self._fd):
            with contextlib.suppress(OSError):
                os.write(self._fd, _CALM)
        return True


class Keys:
    """Standard input, up to the escape key.

    It is read whatever becomes of what was read: the escape key is seen while a guest takes nothing.

    :param fd: any file
    :param escape: None: all bytes are the guest's
    :param ended: called when there is no more, with whether it was the escape key
    """

    def __init__(self, fd: int, escape: Escape | None, ended: Callable[[bool], None]) -> None:
        self.ended = False
        self._fd = fd
        self._escape = escape
        self._on_end = ended
        self._held = bytearray()
        self._news = asyncio.Event()
        self._reading = False

    @property
    def waiting(self) -> bool:
        """Whether there is something that was not taken."""
        return bool(self._held)

    def start(self) -> None:
        """Begin to read."""
        if not (self._reading or self.ended):
            asyncio.get_running_loop().add_reader(self._fd, self._read)
            self._reading = True

    def stop(self) -> None:
        """Read no more."""
        if self._reading:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._reading = False

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _PIECE)
        except BlockingIOError:
            return
        except OSError:  # how a terminal ends
            data = b''
        place = -1 if self._escape is None else self._escape.find(data)
        self._held += data if place < 0 else data[:place]
        self._news.set()
        if place >= 0 or not data:
            self.ended = True
            self._on_end(place >= 0)
        if self.ended or len(self._held) >= _HELD:
            self.stop()

    async def take(self) -> bytes:
        """The next bytes; none after the last ones."""
        while not self._held and not self.ended:
            self._news.clear()
            await self._news.wait()
        data = bytes(self._held[:_PIECE])
        del self._held[:_PIECE]
        self.start()
        return data

    def drop(self) -> None:
        """Forget what was not taken."""
        self._held.clear()
        self.start()


class Terminal:
    """The terminal's modes, and lines for the user beside what the guest says.

    :param fd: standard input
    :param errors: where the lines go
    """

    def __init__(self, fd: int, errors: TextIO) -> None:
        self.interactive = os.isatty(fd)
        self._fd = fd
        self._errors = errors
        self._modes: list[Any] | None = None

    def make_raw(self) -> None:
        """Hand on each key as it is; also again, after whoever had the terminal in between."""
        if not self.interactive:
            return
        if self._modes is None:
            self._modes = termios.tcgetattr(self._fd)
        tty.setraw(self._fd, termios.TCSANOW)  # nothing that was typed already is lost

    def resume(self) -> None:
        """The process goes on after it was stopped."""
        if self._modes is not None:
            self.make_raw()

    def restore(self) -> None:
        """Put the modes back."""
        if self._modes is not None:
            with contextlib.suppress(termios.error):  # it is gone
                termios.tcsetattr(self._fd, termios.TCSANOW, self._modes)
            self._modes = None

    def say(self, line: str = '') -> None:
        """Tell the user something, if there is one."""
        if self.interactive:
            with contextlib.suppress(OSError):
                self._errors.write(line + ('\n' if self._modes is None else '\r\n'))
                self._errors.flush()
