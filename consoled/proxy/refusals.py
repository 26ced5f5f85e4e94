# SPDX-License-Identifier: Apache-2.0
"""Handling of refused websockets: metrics, audit, reasons for pages that ask, and a rate limit on guesses."""

from __future__ import annotations

import collections
import time

from consoled import exception
from consoled import token as tokens
from consoled.proxy.audit import Audit
from consoled.proxy.limits import FailureRateLimit
from consoled.proxy.metrics import Metrics
from consoled.proxy.session import Session

_MAX_TEXT = 300  # characters of a refusal that is remembered


class RecentRefusals:
    """Recent refusals by token.

    A browser hides the response that refused a websocket from the page that opened it, so the page asks for
    the reason with an ordinary request.

    :param keep: seconds for which a refusal is remembered
    :param limit: number of refusals remembered; beyond that, the oldest is forgotten
    """

    def __init__(self, keep: float = 60.0, limit: int = 10000) -> None:
        self._keep = keep
        self._limit = limit
        self._recent: collections.OrderedDict[str, tuple[float, exception.ConsoledException]] = (
            collections.OrderedDict()
        )

    def note(self, token: str, error: exception.ConsoledException, now: float) -> None:
        """Remember a refusal."""
        self._forget_old(now)
        # Not the error itself: its traceback would keep the connection alive, and with it the clear token.
        self._recent[tokens.hashed(token)] = (now, _small(error))
        self._recent.move_to_end(tokens.hashed(token))
        while len(self._recent) > self._limit:
            self._recent.popitem(last=False)

    def recent(self, token: str, now: float) -> exception.ConsoledException | None:
        """Return the last refusal of this token; None if there was none within ``keep`` seconds."""
        self._forget_old(now)
        _, error = self._recent.get(tokens.hashed(token), (now, None))
        return error

    def _forget_old(self, now: float) -> None:
        while self._recent:
            oldest = next(iter(self._recent))
            if now - self._recent[oldest][0] <= self._keep:
                return
            del self._recent[oldest]


def _small(error: exception.ConsoledException) -> exception.ConsoledException:
    """Return a copy of an error with a bounded text and bounded values."""
    kept = type(error)(str(error)[:_MAX_TEXT])
    kept.kwargs = {
        name: value if isinstance(value, int | float) else str(value)[:_MAX_TEXT]
        for name, value in error.kwargs.items()
    }
    return kept


class Refusals:
    """Counts, records and remembers refusals, and limits the rate of invalid tokens of each address.

    :param max_failed_tokens: invalid tokens allowed per minute and address
    """

    def __init__(self, max_failed_tokens: int, metrics: Metrics, audit: Audit) -> None:
        self._metrics = metrics
        self._audit = audit
        self._failures = FailureRateLimit(max_failed_tokens)
        self._recent = RecentRefusals()

    def check_rate(self, address: str | None) -> None:
        """Check the rate of invalid tokens of this address.

        :raises RateLimited: when it is too high
        """
        if seconds := self._failures.retry_after(address, time.monotonic()):
            raise exception.RateLimited(seconds=seconds)

    def malformed(self, error: exception.ConsoledException, address: str | None) -> None:
        """Record a request that was refused for its form, before its token was considered."""
        self._metrics.refused(error.code)
        self._audit.refused(error, address)

    def refused(
        self,
        error: exception.ConsoledException,
        token: str,
        address: str | None,
        session: Session | None,
    ) -> None:
        """Record a refused open.

        :param session: the session; None if the open was refused before there was one
        """
        self._metrics.refused(error.code)
        if isinstance(error, exception.RateLimited):
            return  # a client that tries many tokens must not flood the log
        granted = session if session is not None and session.granted else None
        if isinstance(error, exception.InvalidToken) and granted is None:
            self.token_failed(address)
        self._recent.note(token, error, time.monotonic())
        self._audit.refused(error, address, granted)

    def token_failed(self, address: str | None) -> None:
        """Count an invalid token of this address."""
        self._failures.record_failure(address, time.monotonic())

    def recent(self, token: str) -> exception.ConsoledException | None:
        """Return the last refusal of this token; None if there was none recently."""
        return self._recent.recent(token, time.monotonic())
