# SPDX-License-Identifier: Apache-2.0
"""Tells operators of contested consoles."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from consoled.db import contests
from consoled.db.contests import Contest
from consoled.db.engine import Database
from consoled.manager.metrics import Metrics

LOG = logging.getLogger(__name__)

_INTERVAL = 60.0  # seconds between two lines about one address
_MAX_ADDRESSES = 1000  # that are remembered
_MAX_LINES = 10  # at once


class ContestReporter:
    """Counts contests, and logs each contested address once a minute at most. Thread-safe.

    :param clock: a monotonic clock, in seconds
    """

    def __init__(self, db: Database, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._last_logged: dict[tuple[str, int], float] = {}

    def report(self, step: str, **filters: Any) -> None:
        """Report those of the consoles that are contested.

        :param step: what was done with them: ``define``, ``authorize`` or ``open``
        :param filters: which consoles, as for ``contests.find``
        """
        found = contests.find(self._db, **filters)
        self._metrics.contested(step, len(found))
        for contest in self._due(found):
            LOG.error(
                'Contested console address, opened for neither: %s. Give each compute host an address of its '
                'own (server_proxyclient_address), or purge a compute host that is gone',
                contest,
            )

    def _due(self, found: Iterable[Contest]) -> list[Contest]:
        now = self._clock()
        due: list[Contest] = []
        with self._lock:
            for contest in found:
                address = (contest.host, contest.port)
                if len(due) < _MAX_LINES and now - self._last_logged.get(address, -_INTERVAL) >= _INTERVAL:
                    due.append(contest)
                    self._last_logged.pop(address, None)
                    self._last_logged[address] = now
            while len(self._last_logged) > _MAX_ADDRESSES:
                self._last_logged.pop(next(iter(self._last_logged)))
        return due
