# SPDX-License-Identifier: Apache-2.0
"""The demo's bus: kombu's transport in memory, made to wait."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, memory

_LOG = logging.getLogger('kombu.connection')


class Channel(memory.Channel):
    """A channel that tells of what is put into a queue."""

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        super()._put(queue, message, **kwargs)  # type: ignore[no-untyped-call]
        Bus.tell()

    def _put_fanout(self, exchange: str, message: Any, routing_key: str | None = None, **kwargs: Any) -> None:
        super()._put_fanout(exchange, message, routing_key, **kwargs)  # type: ignore[no-untyped-call]
        Bus.tell()


class Bus(memory.Transport):
    """kombu's transport in memory, whose consumers wait for messages instead of polling.

    oslo.messaging makes them poll without a pause: idle, that took a third of a core, and on a busy machine
    it kept the answers so long from being made that one call in a few timed out.
    """

    Channel = Channel
    _changed = threading.Condition()
    _told = 0  # how often; of all connections, since they share the queues

    @classmethod
    def tell(cls) -> None:
        with cls._changed:
            cls._told += 1
            cls._changed.notify_all()

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver one message.

        :raises TimeoutError: none came within ``timeout`` seconds
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            told = self._told  # before looking: what comes after the look ends the wait
            with contextlib.suppress(queue.Empty):
                self.cycle.get(  # type: ignore[union-attr]  # set by kombu's constructor
                    self._deliver, timeout=timeout
                )
                return
            self._wait(told, deadline)

    def _wait(self, told: int, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        with self._changed:
            if not self._changed.wait_for(lambda: self._told != told, left):
                raise TimeoutError


@contextlib.contextmanager
def in_use() -> Iterator[None]:
    """Make ``kombu+memory://`` mean this bus.

    That is the only name that oslo.messaging has for one of this kind; kombu keeps it for the life of the
    process.
    """
    TRANSPORT_ALIASES['memory'] = f'{__name__}:{Bus.__name__}'
    _LOG.addFilter(_worth_telling)
    try:
        yield
    finally:
        _LOG.removeFilter(_worth_telling)


def _worth_telling(record: logging.LogRecord) -> bool:
    """Not that the URL of a bus in memory has no host name. With one, oslo.messaging warns instead."""
    return not str(record.msg).startswith('No hostname was supplied')
