# SPDX-License-Identifier: Apache-2.0
"""Work queue of the reconciler, with a backoff per key."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from consoled import backoff

# The UUID of an instance, or ALL_INSTANCES.
Key = str | None
ALL_INSTANCES: Final = None

_FIRST_PAUSE = 0.5  # seconds before the first retry; doubles with each failure, up to
_LONGEST_PAUSE = 15.0


class WorkQueue:
    """Keys to reconcile, each queued at most once. Any thread may add keys; one thread gets them.

    Each key has a flag, ``resync``: nothing has changed, the state is only reported again. Adding a key for a
    change clears the flag; adding it for a resync never sets the flag of a key that is already due.

    :param clock: returns monotonic seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due: dict[Key, bool] = {}  # in the order in which keys were first added
        self._delayed: dict[Key, tuple[float, bool]] = {}
        self._failures: dict[Key, int] = {}
        self._pauses = 0
        self._paused_until = float('-inf')
        self._closed = False

    def add(self, key: Key, *, resync: bool = False) -> None:
        """Add a key that is due now."""
        with self._changed:
            self._add_due(key, resync)
            self._changed.notify_all()

    def add_after(self, key: Key, delay: float, *, resync: bool = False) -> None:
        """Add a key that is due in ``delay`` seconds, instead of when an earlier call said."""
        with self._changed:
            self._delayed[key] = (self._clock() + delay, resync)
            self._changed.notify_all()

    def add_with_backoff(self, key: Key) -> None:
        """Add a key again after a failure. Each failure in a row doubles the delay, see ``forget``."""
        with self._changed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
        self.add_after(key, backoff.after(failures, _FIRST_PAUSE, _LONGEST_PAUSE))

    def forget(self, key: Key) -> None:
        """Forget the failures of a key: it has been processed."""
        with self._changed:
            self._failures.pop(key, None)

    def pause_with_backoff(self) -> None:
        """Return no key for a while. Each pause in a row is twice as long, see ``forget_pauses``."""
        with self._changed:
            self._pauses += 1
            pause = backoff.after(self._pauses, _FIRST_PAUSE, _LONGEST_PAUSE)
            self._paused_until = self._clock() + pause

    def forget_pauses(self) -> None:
        """Make the next pause a short one again."""
        with self._changed:
            self._pauses = 0

    def get_all(self) -> dict[Key, bool] | None:
        """Wait until a key is due, then remove and return all due keys, each with its ``resync`` flag.

        :returns: None once the queue is closed
        """
        with self._changed:
            while not self._closed:
                now = self._clock()
                self._advance(now)
                if self._due and now >= self._paused_until:
                    due, self._due = self._due, {}
                    return due
                self._changed.wait(self._seconds_to_next(now))
            return None

    def get_instances_nowait(self) -> dict[str, bool]:
        """Remove and return the keys of single instances that are due, without waiting."""
        with self._changed:
            if self._closed or self._clock() < self._paused_until:
                return {}
            due = {key: resync for key, resync in self._due.items() if key is not None}
            for key in due:
                del self._due[key]
            return due

    def close(self) -> None:
        """Return no more keys, and wake up the thread that waits for one."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def __len__(self) -> int:
        """Return the number of keys that are due."""
        with self._changed:
            return len(self._due)

    def _add_due(self, key: Key, resync: bool) -> None:
        self._due[key] = resync and self._due.get(key, True)

    def _advance(self, now: float) -> None:
        """Make delayed keys due whose time has come."""
        for key, (moment, resync) in list(self._delayed.items()):
            if moment <= now:
                del self._delayed[key]
                self._add_due(key, resync)

    def _seconds_to_next(self, now: float) -> float | None:
        moments = [moment for moment, _ in self._delayed.values()]
        if self._due:
            moments.append(self._paused_until)
        return max(0.0, min(moments) - now) if moments else None
