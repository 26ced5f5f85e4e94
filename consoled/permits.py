# SPDX-License-Identifier: Apache-2.0
"""Permits for work that may hang: a number of them in all, and only a few of these for one party.

A semaphore that all parties share lets one of them, whose work hangs, take every permit from the others.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Hashable, Iterable, Mapping


class NoPermit(Exception):
    """No permit came free in time.

    :ivar party: the party that holds all permits that it may hold; None: other parties hold all permits
    """

    def __init__(self, party: Hashable | None) -> None:
        super().__init__()
        self.party = party


class Permits:
    """A number of permits, shared by any number of parties. Only parties that hold permits take memory.

    :param total: permits in all
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._changed = threading.Condition()
        self._held_since: dict[Hashable, list[float]] = {}  # monotonic times, the oldest first

    def acquire(
        self, limits: Mapping[Hashable, int], timeout: float = 0.0, stalled_after: float = math.inf
    ) -> float:
        """Take a permit that counts for each of some parties.

        :param limits: permits that each of these parties may hold
        :param timeout: seconds to wait for it
        :param stalled_after: seconds after which a permit counts as stuck: nobody waits any longer for a
            party all of whose permits are
        :returns: the moment, for ``release``
        :raises NoPermit: none came free
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                full = next((party for party, limit in limits.items() if self._held(party) >= limit), None)
                now = time.monotonic()
                if full is None and self._free > 0:
                    self._free -= 1
                    for party in limits:
                        self._held_since.setdefault(party, []).append(now)
                    return now
                until = deadline
                if full is not None:
                    until = min(until, self._held_since[full][-1] + stalled_after)
                if now >= until:
                    raise NoPermit(full)
                self._changed.wait(until - now)

    def release(self, parties: Iterable[Hashable], taken: float) -> None:
        """Give a permit back. Any thread may do so.

        :param taken: what ``acquire`` returned
        """
        with self._changed:
            self._free += 1
            for party in parties:
                held = self._held_since[party]
                held.remove(taken)
                if not held:
                    del self._held_since[party]
            self._changed.notify_all()

    def _held(self, party: Hashable) -> int:
        return len(self._held_since.get(party, ()))
