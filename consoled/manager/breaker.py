# SPDX-License-Identifier: Apache-2.0
"""Peers that let calls wait in vain are left alone for some seconds.

Without this, every open of a console on a hung compute host would hold a thread until its time is over.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator

from consoled import backoff, exception

LOG = logging.getLogger(__name__)

_PAUSE = 3.0  # seconds for which calls to a peer that has not answered are refused
_MAX_PARTIES = 10000  # that are remembered


@dataclasses.dataclass
class _Open:
    """Calls that wait on a party are refused.

    :ivar until: monotonic time at which one call may try again
    :ivar failure: what the last one failed with
    :ivar first: it was the first one that failed
    :ivar tried: one call is trying
    """

    until: float
    failure: exception.ConsoledException
    first: bool
    tried: bool = False


class Breaker:
    """Refuses calls that wait on a party which has just let one wait in vain.

    After a pause, one call at a time tries whether the party answers again. Only parties that failed take
    memory. Thread-safe.

    :param kind: what the parties are, for the log
    :param failure: what a call that waited in vain fails with; any other error is an answer
    :param trials: calls at most that try parties at the same time. The first try of a party does not count:
        those that hang for long must not keep one that paused once from being tried
    :param clock: a monotonic clock, in seconds
    """

    def __init__(
        self,
        kind: str,
        failure: type[exception.ConsoledException],
        trials: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind = kind
        self._failure = failure
        self._free_trials = trials
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[Hashable, _Open] = {}

    def check(self, party: Hashable) -> None:
        """Check that a call would be made now.

        :raises ConsoledException: what the last call failed with, if it would not
        """
        with self._lock:
            self._find(party)

    @contextlib.contextmanager
    def call(self, party: Hashable, slow: float) -> Iterator[None]:
        """Make a call that waits on a party.

        A call that fails quickly has been answered; one that fails slowly has waited in vain.

        :param slow: seconds after which a failure is a slow one
        :raises ConsoledException: what the last call failed with, if this one is not made
        """
        trial = self._admit(party)
        started = self._clock()
        failure: exception.ConsoledException | None = None
        try:
            yield
        except self._failure as exc:
            if self._clock() - started >= slow:
                failure = exc
            raise
        finally:
            self._settle(party, trial, failure)

    def _admit(self, party: Hashable) -> _Open | None:
        """Return the entry of the party if the call is to try it; None if nothing is known against it."""
        with self._lock:
            entry = self._find(party)
            if entry is not None:
                entry.tried = True
                self._free_trials -= not entry.first
            return entry

    def _find(self, party: Hashable) -> _Open | None:
        """Return the entry of the party; None if nothing is known against it.

        :raises ConsoledException: calls to it are refused now
        """
        entry = self._open.get(party)
        if entry is not None:
            may_try = entry.first or self._free_trials > 0
            if entry.tried or self._clock() < entry.until or not may_try:
                raise copy.copy(entry.failure)
        return entry

    def _settle(
        self, party: Hashable, trial: _Open | None, failure: exception.ConsoledException | None
    ) -> None:
        with self._lock:
            if trial is not None:
                self._free_trials += not trial.first
                trial.tried = False
            known = self._open.get(party)
            if failure is None:
                self._open.pop(party, None)
            else:
                if known is None and len(self._open) >= _MAX_PARTIES:
                    self._open.pop(next(iter(self._open)))
                until = self._clock() + backoff.jittered(_PAUSE)
                self._open[party] = _Open(until, copy.copy(failure), first=trial is None)
        if failure is not None and known is None:
            LOG.warning(
                '%s %s lets calls wait in vain (%s): for some seconds, others are refused at once',
                self._kind,
                party,
                failure.code,
            )
