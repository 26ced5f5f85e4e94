# SPDX-License-Identifier: Apache-2.0
"""A few threads for operations on memcached, which each end in bounded time for the caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

from consoled.legacy.bounded_io import Operation

T = TypeVar('T')

THREADS = 4  # so at most four connections to each server
MAX_OPERATIONS = 64  # running and waiting: as many as oslo.messaging has threads by default
_GRACE = 0.2  # seconds for an operation to find out at its deadline which server was too slow


class Unavailable(Exception):
    """memcached, or the server that is needed, does not answer."""


class ThreadPool:
    """Runs operations in threads, and waits for each until its deadline.

    Threads of its own keep the connections of the client libraries few and in use, even if every call of the
    manager runs in a new (green) thread. And a caller does not wait for what no timeout bounds: the
    resolution of a host name.

    No thread starts before the first operation, which must come after a fork.

    :param state: the state of the operations, which the clients share
    """

    def __init__(self, state: Operation) -> None:
        self._state = state
        self._pool = futures.ThreadPoolExecutor(THREADS, thread_name_prefix='legacy-memcached')
        self._permits = threading.BoundedSemaphore(MAX_OPERATIONS)
        self._lock = threading.Lock()
        self._abandoned = 0  # operations that still run although nobody waits for them

    def run(self, operation: Callable[[], T], seconds: float) -> T:
        """Return the result of an operation.

        :param operation: calls ``request`` for everything that it asks memcached
        :param seconds: until its deadline
        :raises Unavailable: it failed or missed its deadline, all threads hang, or too many operations wait
        """
        deadline = time.monotonic() + seconds
        if self._abandoned >= THREADS or not self._permits.acquire(blocking=False):
            raise Unavailable('too many operations wait for it')
        try:
            running = self._pool.submit(self._run, operation, deadline)
        except RuntimeError:  # the system has no thread left
            self._permits.release()
            raise Unavailable('no thread') from None
        running.add_done_callback(lambda done: self._permits.release())
        try:
            return running.result(seconds + _GRACE)
        except TimeoutError:
            if not running.cancel():
                self._count_abandoned(1)
                running.add_done_callback(lambda done: self._count_abandoned(-1))
            raise Unavailable('no answer in time') from None

    def request(self, call: Callable[[], T]) -> tuple[T, bool]:
        """Make a request to memcached within an operation, and repeat it once if a connection was stale.

        :returns: the result, and whether another server stood in for one that failed
        :raises Unavailable: no server has answered
        """
        for _ in range(2):
            self._state.begin_request()
            result = call()
            if not self._state.stale:
                break
        if not self._state.answered:
            raise Unavailable('a server does not answer')
        return result, self._state.failed_over

    def _run(self, operation: Callable[[], T], deadline: float) -> T:
        self._state.begin(deadline)
        try:
            return operation()
        except Unavailable:
            raise
        except Exception as exc:  # whatever the libraries raise on an answer that makes no sense
            raise Unavailable(type(exc).__name__) from None

    def _count_abandoned(self, change: int) -> None:
        with self._lock:
            self._abandoned += change
