# SPDX-License-Identifier: Apache-2.0
"""A line in the log now and then, for what may happen with each call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from oslo_log import log

LOG = log.getLogger(__name__)

SECONDS = 60.0


class ThrottledLog:
    """Warns of each kind of trouble at once, then at most once a minute, with how often there was some.

    :param clock: a monotonic clock, in seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def warn(self, kind: str, reason: str) -> None:
        with self._lock:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            now = self._clock()
            if now - self._said.get(kind, -SECONDS) < SECONDS:
                return
            self._said[kind] = now
            count = self._unsaid.pop(kind)
        LOG.warning(
            '%(kind)s: %(reason)s (times since the last such line: %(count)d)',
            {'kind': kind, 'reason': reason, 'count': count},
        )
