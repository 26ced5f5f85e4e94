# SPDX-License-Identifier: Apache-2.0
"""Plain guests for tests of a proxy, and the thread that guests run in.

    with GuestHost() as guests:
        desktop = guests.add(RfbGuest())
        router = guests.add(SerialGuest())
        ...connect to desktop.port, router.port...

For tests that use fixtures there is ``GuestHostFixture`` in ``fixture.py``: the library is only
there for tests, while the demo uses this module too.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar, cast

from consoled.testing.guests.base import Guest

GuestType = TypeVar('GuestType', bound=Guest)
Result = TypeVar('Result')

_CALL_WITHIN = 10.0  # seconds that anything asked of the loop may take
_CHUNK = 2**16

# of a prime length: bytes that are lost or doubled by whole blocks shift it
_PATTERN = random.Random(6143).randbytes(65521)


def pattern(offset: int, length: int) -> bytes:
    """``length`` bytes of the pattern that ``StreamGuest`` sends, from ``offset`` on."""
    start = offset % len(_PATTERN)
    return (_PATTERN[start:] + _PATTERN * (length // len(_PATTERN) + 1))[:length]


class PatternCheck:
    """Compares a stream with the pattern, piece by piece.

    ``received`` counts the bytes, ``correct`` says whether all of them were the pattern's.
    """

    def __init__(self) -> None:
        self.received = 0
        self.correct = True

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        self.correct = self.correct and data == pattern(self.received, len(data))
        self.received += len(data)


class EchoGuest(Guest):
    """Sends back what it gets, and ends when the client does."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


class StreamGuest(Guest):
    """Sends ``total`` bytes of the pattern as fast as each client reads, then EOF.

    What clients send meanwhile is compared with the same pattern: ``uploads`` has a ``PatternCheck`` for
    each client in the order they came. ``sent`` counts what was handed to the kernel or is buffered, for
    all clients: with a client that does not read, it stays small.

    :param total: bytes for each client; 0 when only uploads matter
    """

    def __init__(self, host: str = '127.0.0.1', port: int = 0, *, total: int, name: str = 'stream') -> None:
        super().__init__(host, port, name=name)
        self.total = total
        self.sent = 0
        self.uploads: list[PatternCheck] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        check = PatternCheck()
        self.uploads.append(check)
        sending = asyncio.create_task(self._send(writer))
        try:
            while data := await reader.read(_CHUNK):
                check.feed(data)
            await sending
        finally:
            sending.cancel()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        for offset in range(0, self.total, _CHUNK):
            piece = pattern(offset, min(_CHUNK, self.total - offset))
            writer.write(piece)
            self.sent += len(piece)
            await writer.drain()
        if self.total:
            writer.write_eof()


class SilentGuest(Guest):
    """Accepts, and neither reads nor writes: what clients send fills the kernel's buffers.

    It does not notice either that a client has left: ``clients`` does not fall before it is stopped.
    """

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cast(asyncio.Transport, writer.transport).pause_reading()
        await asyncio.get_running_loop().create_future()


class ResetGuest(Guest):
    """Resets each connection (RST, not FIN) once it has got ``after`` bytes; 0: at once."""

    def __init__(
        self, host: str = '127.0.0.1', port: int = 0, *, after: int = 0, name: str = 'reset'
    ) -> None:
        super().__init__(host, port, name=name)
        self.after = after

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        missing = self.after
        while missing > 0 and (data := await reader.read(_CHUNK)):
            missing -= len(data)
        sock = writer.get_extra_info('socket')
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        writer.transport.abort()


class GuestHost:
    """Runs guests on an asyncio loop in a thread of its own. Its methods are for other threads."""

    def __init__(self) -> None:
        self.guests: list[Guest] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        if self._thread is not None:
            raise RuntimeError('the guests run already')
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name='guests', daemon=True)
        self._thread.start()

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def add(self, guest: GuestType) -> GuestType:
        """Start a guest: when this returns, its port is open.

        :raises OSError: its address cannot be had
        """
        self.call(guest.start())
        self.guests.append(guest)
        return guest

    def remove(self, guest: Guest) -> None:
        """Stop a guest: its port is closed and its clients are disconnected. It can be added again."""
        self.call(guest.stop())
        self.guests.remove(guest)

    def disconnect(self, guest: Guest) -> None:
        """Drop all clients of a guest that goes on listening."""

        async def drop() -> None:
            guest.disconnect()

        self.call(drop())

    def settle(self) -> None:
        """Let the guests see what reached them before: then ``connections`` proves what it says.

        A connection that the kernel had accepted before is counted now, if its guest has room for it.
        """

        async def turns() -> None:
            before = -1
            while before != (before := sum(guest.connections for guest in self.guests)):
                for _ in range(10):  # polling, waking the acceptor, accepting: one turn of the loop each
                    await asyncio.sleep(0)

        self.call(turns())

    def call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the guests' loop, and return what it returns."""
        if self._loop is None:
            coroutine.close()
            raise RuntimeError('the guests do not run')
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_WITHIN)

    def stop(self) -> None:
        """Stop all guests and the thread. Does nothing when they do not run."""
        if self._loop is None or self._thread is None:
            return
        try:
            while self.guests:
                self.call(self.guests.pop().stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CALL_WITHIN)
            self._loop = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()
