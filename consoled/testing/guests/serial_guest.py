# SPDX-License-Identifier: Apache-2.0
"""A guest with a serial console as QEMU gives it (``-serial tcp:...,server``), and a router's shell."""

from __future__ import annotations

import asyncio
import time

from consoled.testing.guests.base import Guest
from consoled.testing.guests.shell import Shell

_CHUNK = 2**12
_KEPT = 2**16  # bytes of what was received


class SerialGuest(Guest):
    """Raw bytes, as of a serial port; a pretended router's shell reads and writes them.

    For tests, from any thread: ``received`` has the last 64 KiB that clients sent.

    :param clients: how many at once; QEMU has one, and leaves others waiting in the backlog
    :param pause: seconds between two lines of a command that takes its time
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
        due: float | None = None  # when the shell goes on; typing meanwhile does not put it off
        reading = asyncio.create_task(reader.read(_CHUNK))
        try:
            while True:
                await writer.drain()
                if not shell.later:
                    due = None
                elif due is None:
                    due = now() + shell.later[0][0]
                await asyncio.wait([reading], timeout=None if due is None else max(0, due - now()))
                if reading.done():
                    data = reading.result()
                    if not data:
                        return
                    self._record(data)
                    writer.write(shell.feed(data))
                    reading = asyncio.create_task(reader.read(_CHUNK))
                elif due is not None:
                    writer.write(shell.go_on())
                    due = None
        finally:
            reading.cancel()

    def _record(self, data: bytes) -> None:
        self.received += data
        del self.received[:-_KEPT]
