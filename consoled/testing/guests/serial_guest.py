# SPDX-License-Identifier: Apache-2.0
"""Fake guest with a serial console like QEMU's (``-serial tcp:...,server``) and a router's shell."""

from __future__ import annotations

import asyncio
import time

from consoled.testing.guests.base import FakeGuest
from consoled.testing.guests.shell import Shell

_CHUNK = 2**12
_MAX_RECEIVED = 2**16  # bytes kept


class SerialGuest(FakeGuest):
    """A serial console, raw bytes on TCP, with the shell of a simulated router behind it.

    :param clients: how many clients to serve at a time; QEMU serves one and leaves others in the backlog
    :param pause: seconds between the output lines of a slow command
    :ivar received: the last 64 KiB that clients have sent; may be read from any thread
    """

    def __init__(
        self,
        host: str = '127.0.0.1',
        port: int = 0,
        *,
        name: str = 'router',
        clients: int = 1,
        pause: float = 0.25,
    ) -> None:
        super().__init__(host, port, name=name, clients=clients)
        self.received = bytearray()
        self._pause = pause
        self._started = time.monotonic()

    async def start(self) -> None:
        await super().start()
        self._started = time.monotonic()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shell = Shell(self.name, lambda: time.monotonic() - self._started, self._pause)
        writer.write(shell.greet())
        now = asyncio.get_running_loop().time
        due: float | None = None  # when the shell continues its output; typing does not postpone it
        reading = asyncio.create_task(reader.read(_CHUNK))
        try:
            while True:
                await writer.drain()
                if not shell.pending:
                    due = None
                elif due is None:
                    due = now() + shell.pending[0][0]
                await asyncio.wait([reading], timeout=None if due is None else max(0, due - now()))
                if reading.done():
                    data = reading.result()
                    if not data:
                        return
                    self._record(data)
                    writer.write(shell.feed(data))
                    reading = asyncio.create_task(reader.read(_CHUNK))
                elif due is not None:
                    writer.write(shell.continue_output())
                    due = None
        finally:
            reading.cancel()

    def _record(self, data: bytes) -> None:
        self.received += data
        del self.received[:-_MAX_RECEIVED]
