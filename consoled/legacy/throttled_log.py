# SPDX-License-Identifier: Apache-2.0
"""Warnings that any call may cause, limited to one line a minute of each kind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from oslo_log import log

LOG = log.getLogger(__name__)

INTERVAL = 60.0  # seconds


class ThrottledLog:
    """Logs the first warning of each kind, then one every ``INTERVAL`` at most, with their number.

    :param clock: a monotonic clock, in seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last_logged: dict[str, float] = {}
        self._pending: dict[str, int] = {}

    def warn(self, kind: str, reason: str) -> None:
        """Log a warning, or count it for the next line of its kind."""
        with self._lock:
            self._pending[kind] = self._pending.get(kind, 0) + 1
            now = self._clock()
            if now - self._last_logged.get(kind, -INTERVAL) < INTERVAL:
                return
            self._last_logged[kind] = now
            count = self._pending.pop(kind)
        LOG.warning(
            '%(kind)s: %(reason)s (times since the last such line: %(count)d)',
            {'kind': kind, 'reason': reason, 'count': count},
        )
