# SPDX-License-Identifier: Apache-2.0
"""A thread that runs fake guests.

    with GuestHost() as guests:
        desktop = guests.add(VncGuest())
        router = guests.add(SerialGuest())
        ...  # connect to desktop.port, router.port

Tests that use the ``fixtures`` library have ``GuestHostFixture`` in ``fixture.py``. The demo uses this module
too, where that library may be missing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from consoled.testing.guests.base import FakeGuest

GuestT = TypeVar('GuestT', bound=FakeGuest)
ResultT = TypeVar('ResultT')

_CALL_TIMEOUT = 10.0  # seconds for any call into the loop


class GuestHost:
    """Runs guests on an asyncio event loop in its own thread. Call its methods from other threads."""

    def __init__(self) -> None:
        self.guests: list[FakeGuest] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: when it is already running
        """
        if self._thread is not None:
            raise RuntimeError('the guest host is already running')
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

    def add(self, guest: GuestT) -> GuestT:
        """Start a guest and return it, listening.

        :raises OSError: when its address is not available
        """
        self.call(guest.start())
        self.guests.append(guest)
        return guest

    def remove(self, guest: FakeGuest) -> None:
        """Stop a guest: close its port and disconnect its clients. It can be added again."""
        self.call(guest.stop())
        self.guests.remove(guest)

    def disconnect(self, guest: FakeGuest) -> None:
        """Disconnect all clients of a guest, which keeps listening."""

        async def drop() -> None:
            guest.disconnect()

        self.call(drop())

    def settle(self) -> None:
        """Let the guests accept all connections that have reached them, so that ``connections`` is exact.

        A connection that the kernel has accepted is counted when this returns, unless its guest already has
        as many clients as it takes.
        """

        async def turns() -> None:
            before = -1
            while before != (before := sum(guest.connections for guest in self.guests)):
                for _ in range(10):  # poll, wake the acceptor, accept: one turn of the loop each
                    await asyncio.sleep(0)

        self.call(turns())

    def call(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run a coroutine in the guests' loop and return its result.

        :raises RuntimeError: when the guest host is not running
        :raises TimeoutError: when the coroutine takes longer than ten seconds
        """
        if self._loop is None:
            coroutine.close()
            raise RuntimeError('the guest host is not running')
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_TIMEOUT)

    def stop(self) -> None:
        """Stop all guests and the thread. Does nothing when it is not running."""
        if self._loop is None or self._thread is None:
            return
        try:
            while self.guests:
                self.call(self.guests.pop().stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CALL_TIMEOUT)
            self._loop = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()
