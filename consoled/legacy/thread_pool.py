# SPDX-License-Identifier: Apache-2.0
"""Operations on memcached in a few threads of their own, each answered in bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

from consoled.legacy.bounds import Attempt

T = TypeVar('T')

THREADS = 4  # so many connections to each server
_GRACE = 0.2  # seconds for an operation to notice that its time is over, and whose fault that was
MAX_AT_ONCE = 64  # operations in work and waiting: as many as oslo.messaging has threads by default


class Unavailable(Exception):
    """memcached, or the server of it that is needed, does not answer."""


class ThreadPool:
    """Runs operations, and waits for each until its deadline.

    With threads of their own the client libraries' connections are few, and are used again, also where each
    call of the manager has a new (green) thread. And a caller does not wait for what no timeout bounds: the
    resolution of a name.

    No thread is started before the first operation: that has to be after a fork.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._pool = futures.ThreadPoolExecutor(THREADS, thread_name_prefix='legacy-memcached')
        self._permits = threading.BoundedSemaphore(MAX_AT_ONCE)
        self._lock = threading.Lock()
        self._given_up = 0  # operations that still run, and nobody waits for

    def run(self, operation: Callable[[], T], seconds: float) -> T:
        """The operation's result.

        :param operation: goes through ``step`` for all that it asks of memcached
        :raises Unavailable: it failed, did not end in time, all threads are stuck, or too many wait already
        """
        deadline = time.monotonic() + seconds
        if self._given_up >= THREADS or not self._permits.acquire(blocking=False):
            raise Unavailable('too many wait for it')
        try:
            running = self._pool.submit(self._carry_out, operation, deadline)
        except RuntimeError:  # no thread to be had
            self._permits.release()
            raise Unavailable('no thread') from None
        running.add_done_callback(lambda done: self._permits.release())
        try:
            return running.result(seconds + _GRACE)
        except TimeoutError:
            if not running.cancel():
                self._count_given_up(1)
                running.add_done_callback(lambda done: self._count_given_up(-1))
            raise Unavailable('no answer in time') from None

    def _count_given_up(self, change: int) -> None:
        with self._lock:
            self._given_up += change

    def step(self, call: Callable[[], T]) -> tuple[T, bool]:
        """Ask something of memcached, in an operation: the result, and whether a server was away.

        :raises Unavailable: none has answered
        """
        for _ in range(2):
            self._attempt.begin_step()
            result = call()
            if not self._attempt.stale:
                break
        if not self._attempt.answered:
            raise Unavailable('a server does not answer')
        return result, self._attempt.away

    def _carry_out(self, operation: Callable[[], T], deadline: float) -> T:
        self._attempt.begin(deadline)
        try:
            return operation()
        except Unavailable:
            raise
        except Exception as exc:  # what the libraries make of answers that make no sense
            raise Unavailable(type(exc).__name__) from None
