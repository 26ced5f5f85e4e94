# SPDX-License-Identifier: Apache-2.0
"""Look-ups of the names of console hosts, as getaddrinfo makes them (/etc/hosts, DNS and others)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

_KEEP = 3.0  # seconds for which the addresses of a name are used again
_KEEP_FAILURE = 1.0  # seconds for which a name that has no address is not looked up again
_MAX_LOOKUPS = 128  # names that are looked up at a time; each has a thread
_MAX_KNOWN = 1000  # names that are remembered


class Resolver:
    """Looks names up, each once at a time, so that users of a name that hangs wait for one thread.

    getaddrinfo cannot be interrupted: if a name server does not answer, it takes as long as resolv.conf says,
    which may be half a minute. So each name has a thread of its own, and no name waits for another.

    :param clock: the monotonic clock, in seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[str, asyncio.Future[list[Any] | Exception]] = {}
        # What was found, and until when it counts
        self._known: dict[str, tuple[list[Any] | Exception, float]] = {}

    async def resolve(self, host: str, port: int) -> list[Any]:
        """Return the addresses of a host, as getaddrinfo does.

        :raises OSError: there are none, or too many names are being looked up
        :raises ValueError: this cannot be a name
        """
        with contextlib.suppress(socket.gaierror):  # an IP address needs no look-up
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        found, until = self._known.get(host, ([], 0.0))
        if self._clock() >= until:
            running = self._running.get(host) or self._look_up(host)
            found = await asyncio.shield(running)  # others may wait for it
        if isinstance(found, Exception):
            raise OSError(str(found)) from None
        return [(*info[:4], (info[4][0], port, *info[4][2:])) for info in found]

    def _look_up(self, host: str) -> asyncio.Future[list[Any] | Exception]:
        if len(self._running) >= _MAX_LOOKUPS:
            raise OSError(f'{_MAX_LOOKUPS} names are being looked up: the name server does not answer')
        loop = asyncio.get_running_loop()
        try:
            threading.Thread(target=self._run, args=(loop, host), name='look-up', daemon=True).start()
        except RuntimeError as exc:
            raise OSError(str(exc)) from None
        self._running[host] = loop.create_future()
        return self._running[host]

    def _run(self, loop: asyncio.AbstractEventLoop, host: str) -> None:
        found: list[Any] | Exception
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except Exception as exc:  # UnicodeError too
            found = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._found, host, found)

    def _found(self, host: str, found: list[Any] | Exception) -> None:
        keep = _KEEP_FAILURE if isinstance(found, Exception) else _KEEP
        self._known.pop(host, None)
        self._known[host] = (found, self._clock() + keep)
        if len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]  # the oldest
        self._running.pop(host).set_result(found)
