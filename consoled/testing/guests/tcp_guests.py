# SPDX-License-Identifier: Apache-2.0
"""Fake guests with simple TCP consoles, for tests of a proxy: echo, stream, silence, reset."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from typing import cast

from consoled.testing.guests.base import FakeGuest

_CHUNK = 2**16

# Its length is a prime, so that losing or repeating whole blocks shifts the pattern.
_PATTERN = random.Random(6143).randbytes(65521)


def pattern(offset: int, length: int) -> bytes:
    """Return ``length`` bytes of the pattern that ``StreamGuest`` sends, starting at ``offset``."""
    start = offset % len(_PATTERN)
    return (_PATTERN[start:] + _PATTERN * (length // len(_PATTERN) + 1))[:length]


class PatternCheck:
    """Compares a stream of bytes with the pattern.

    :ivar received: number of bytes
    :ivar correct: whether all of them match the pattern
    """

    def __init__(self) -> None:
        self.received = 0
        self.correct = True

    def feed(self, data: bytes) -> None:
        """Compare the next part of the stream."""
        self.correct = self.correct and data == pattern(self.received, len(data))
        self.received += len(data)


class EchoGuest(FakeGuest):
    """Sends back whatever it receives, until the client closes the connection."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


class StreamGuest(FakeGuest):
    """Sends ``total`` bytes of the pattern to each client, as fast as the client reads, then EOF.

    Whatever a client sends meanwhile is compared with the same pattern.

    :param total: bytes for each client; 0 when only uploads matter
    :ivar uploads: a ``PatternCheck`` for each client, in the order in which they connected
    :ivar sent: bytes passed to the kernel or buffered, for all clients; stays small for a client that does
        not read
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


class SilentGuest(FakeGuest):
    """Accepts connections but neither reads nor writes, so that clients fill the kernel's buffers.

    It does not notice when a client leaves: ``clients`` does not decrease until the guest is stopped.
    """

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cast(asyncio.Transport, writer.transport).pause_reading()
        await asyncio.get_running_loop().create_future()


class ResetGuest(FakeGuest):
    """Resets each connection (RST, not FIN) after receiving ``after`` bytes; 0 means immediately."""

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


class FloodGuest(FakeGuest):
    """Prints numbered lines without end, as ``yes`` does, until it receives ^C; then it prompts and echoes.

    :ivar sent: bytes passed to the kernel or buffered
    :ivar lines: number of the last line
    :ivar interrupted: whether it has received ^C
    """

    def __init__(self, host: str = '127.0.0.1', port: int = 0, *, name: str = 'flood') -> None:
        super().__init__(host, port, name=name)
        self.sent = 0
        self.lines = 0
        self.interrupted = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        printing = asyncio.create_task(self._print(writer))
        try:
            while data := await reader.read(_CHUNK):
                if not self.interrupted and b'\x03' in data:
                    self.interrupted = True
                    await printing
                    writer.write(b'^C\r\n' + self.name.encode() + b'> ')
                elif self.interrupted:
                    writer.write(data)
        finally:
            printing.cancel()

    async def _print(self, writer: asyncio.StreamWriter) -> None:
        while not self.interrupted:
            numbers = range(self.lines + 1, self.lines + 101)
            piece = b''.join(b'line %d\r\n' % number for number in numbers)
            writer.write(piece)
            self.lines += len(numbers)
            self.sent += len(piece)
            await writer.drain()
