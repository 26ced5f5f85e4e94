# SPDX-License-Identifier: Apache-2.0
"""Message bus of the demo: kombu's in-memory transport, with consumers that wait instead of polling."""

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
    """Channel that notifies waiting consumers of each message put into a queue."""

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        super()._put(queue, message, **kwargs)  # type: ignore[no-untyped-call]
        Bus.notify()

    def _put_fanout(self, exchange: str, message: Any, routing_key: str | None = None, **kwargs: Any) -> None:
        super()._put_fanout(exchange, message, routing_key, **kwargs)  # type: ignore[no-untyped-call]
        Bus.notify()


class Bus(memory.Transport):
    """kombu's in-memory transport, with consumers that wait for messages instead of polling.

    oslo.messaging makes them poll without a pause. That took a third of a core when idle, and on a busy
    machine it delayed the answers so much that one call in a few timed out.
    """

    Channel = Channel
    _changed = threading.Condition()
    _notifications = 0  # counted over all connections, since they share the queues

    @classmethod
    def notify(cls) -> None:
        """Wake all waiting consumers."""
        with cls._changed:
            cls._notifications += 1
            cls._changed.notify_all()

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver one message.

        :raises TimeoutError: none arrived within ``timeout`` seconds
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            seen = self._notifications  # read first, so that a message that arrives meanwhile ends the wait
            with contextlib.suppress(queue.Empty):
                self.cycle.get(  # type: ignore[union-attr]  # set by kombu's constructor
                    self._deliver, timeout=timeout
                )
                return
            self._wait(seen, deadline)

    def _wait(self, seen: int, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        with self._changed:
            if not self._changed.wait_for(lambda: self._notifications != seen, left):
                raise TimeoutError


@contextlib.contextmanager
def in_use() -> Iterator[None]:
    """Make ``kombu+memory://`` stand for this bus.

    oslo.messaging accepts no other name for an in-memory transport. kombu keeps the alias for the life of
    the process.
    """
    TRANSPORT_ALIASES['memory'] = f'{__name__}:{Bus.__name__}'
    _LOG.addFilter(_is_useful)
    try:
        yield
    finally:
        _LOG.removeFilter(_is_useful)


def _is_useful(record: logging.LogRecord) -> bool:
    """Drop the warning that the URL has no host name; oslo.messaging would warn if it had one."""
    return not str(record.msg).startswith('No hostname was supplied')
