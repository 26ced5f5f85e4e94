# SPDX-License-Identifier: Apache-2.0
"""What has to be looked at, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# the UUID of a guest, or None: everything
Key = str | None


class WorkQueue:
    """Guests to look at, each named once however often it changed; from any thread to one.

    :param clock: monotonic seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due: dict[Key, bool] = {}  # by the time of the first change; True: it is only said once more
        self._later: dict[Key, tuple[float, bool]] = {}
        self._paused_until = float('-inf')
        self._closed = False

    def add(self, key: Key, *, repeated: bool = False) -> None:
        """Look at it now.

        :param repeated: nothing has changed, it is only said once more
        """
        with self._changed:
            self._due[key] = repeated and self._due.get(key, True)
            self._changed.notify_all()

    def later(self, key: Key, delay: float, *, repeated: bool = False) -> None:
        """Look at it in ``delay`` seconds, and not when it was to be looked at later before."""
        with self._changed:
            self._later[key] = (self._clock() + delay, repeated)
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Give nothing out for so long."""
        with self._changed:
            self._paused_until = self._clock() + seconds

    def take(self) -> dict[Key, bool] | None:
        """Wait until something is due, and take all that is; whether each is only repeated, by its key.

        :returns: None once the queue is closed
        """
        with self._changed:
            while not self._closed:
                now = self._clock()
                self._advance(now)
                if self._due and now >= self._paused_until:
                    taken, self._due = self._due, {}
                    return taken
                self._changed.wait(self._until_next(now))
            return None

    def take_guests(self) -> dict[str, bool]:
        """Take the guests that are due now, if any, without waiting."""
        with self._changed:
            if self._closed or self._clock() < self._paused_until:
                return {}
            taken = {key: repeated for key, repeated in self._due.items() if key is not None}
            for key in taken:
                del self._due[key]
            return taken

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def __len__(self) -> int:
        """How many are due."""
        with self._changed:
            return len(self._due)

    def _advance(self, now: float) -> None:
        for key, (moment, repeated) in list(self._later.items()):
            if moment <= now:
                del self._later[key]
                self._due[key] = repeated and self._due.get(key, True)

    def _until_next(self, now: float) -> float | None:
        moments = [moment for moment, _ in self._later.values()]
        if self._due:
            moments.append(self._paused_until)
        return max(0.0, min(moments) - now) if moments else None
