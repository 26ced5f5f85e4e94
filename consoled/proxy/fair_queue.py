# SPDX-License-Identifier: Apache-2.0
"""Work that may wait a moment: clients take turns, and everything else in the event loop goes first."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable

_SLICE = 0.002  # seconds of work before other tasks get a turn


class FairQueue:
    """Queue of work by client, done a slice at a time.

    An event loop gives each ready connection a turn before the next round, so a client with hundreds of
    connections could make each round long. Opening a session takes several rounds.
    """

    def __init__(self) -> None:
        self._pending: dict[
            str, collections.deque[Callable[[], None]]
        ] = {}  # the client whose turn it is first
        self._scheduled = False

    def add(self, client: str, work: Callable[[], None]) -> None:
        """Do a piece of work soon, in turn with that of other clients."""
        self._pending.setdefault(client, collections.deque()).append(work)
        self._schedule()

    def _schedule(self) -> None:
        if self._pending and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        loop = asyncio.get_running_loop()
        until = loop.time() + _SLICE
        try:
            while self._pending:
                self._next()()
                if loop.time() >= until:
                    break
        finally:
            self._schedule()

    def _next(self) -> Callable[[], None]:
        """Return the next piece of work; its client's turn is over."""
        client = next(iter(self._pending))
        pieces = self._pending.pop(client)
        work = pieces.popleft()
        if pieces:
            self._pending[client] = pieces
        return work
