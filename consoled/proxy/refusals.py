# SPDX-License-Identifier: Apache-2.0
"""Handling of refused websockets: metrics, audit, reasons for pages that ask, and rate limits.

Whatever another site makes a visitor's browser request is counted apart: it must not use up the visitor's own
attempts.
"""

from __future__ import annotations

import collections
import time

from consoled import exception
from consoled import token as tokens
from consoled.proxy.audit import Audit
from consoled.proxy.limits import RateLimit, client_networks
from consoled.proxy.metrics import Metrics
from consoled.proxy.session import Session

_MAX_TEXT = 300  # characters of a refusal that is remembered
_MAX_ITEMS = 256  # of a list in it


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
    kept.kwargs = {name: _bounded(value) for name, value in error.kwargs.items()}
    return kept


def _bounded(value: object) -> object:
    if isinstance(value, list):
        return [each for each in value[:_MAX_ITEMS] if isinstance(each, int)]
    return value if isinstance(value, int | float) else str(value)[:_MAX_TEXT]


class Refusals:
    """Counts, records and remembers refusals, and limits the rate of invalid tokens of each address.

    :param max_failed_tokens: invalid tokens per minute and address before its tokens are doubtful; as many
        explanations per minute and address may need a manager
    """

    def __init__(self, max_failed_tokens: int, metrics: Metrics, audit: Audit) -> None:
        self._metrics = metrics
        self._audit = audit
        self._failures = RateLimit(max_failed_tokens)
        self._explanations = RateLimit(max_failed_tokens)
        self._recent = RecentRefusals()

    def doubtful_for(self, address: str | None, *, foreign: bool) -> float:
        """Return for how many seconds tokens from this address are doubtful, as too many were invalid.

        :param foreign: whether a page of another site made the request
        """
        if address is None:
            return 0.0
        return self._failures.retry_after(_keys(address, foreign), time.monotonic())

    def may_explain(self, address: str | None) -> bool:
        """Count a request whose explanation needs a manager; return whether it is within the limit."""
        return self._explanations.take(client_networks(address), time.monotonic())

    def malformed(self, error: exception.ConsoledException, address: str | None) -> None:
        """Record a request that was refused for its form, before its token was considered."""
        self._record(error, address)

    def refused(
        self,
        error: exception.ConsoledException,
        token: str,
        address: str | None,
        session: Session | None,
        *,
        foreign: bool,
    ) -> None:
        """Record a refused open.

        :param session: the session; None if the open was refused before there was one
        :param foreign: as in ``doubtful_for``
        """
        if isinstance(error, exception.RateLimited):
            self._metrics.refused(error.code)  # a client that tries many tokens must not flood the log
            return
        granted = session if session is not None and session.granted else None
        if isinstance(error, exception.InvalidToken) and granted is None:
            self.token_failed(address, foreign=foreign)
        self._recent.note(token, error, time.monotonic())
        self._record(error, address, granted)

    def _record(
        self, error: exception.ConsoledException, address: str | None, session: Session | None = None
    ) -> None:
        self._metrics.refused(error.code)
        if not self._audit.refused(error, address, session):
            self._metrics.left_out(error.code)

    def token_failed(self, address: str | None, *, foreign: bool) -> None:
        """Count an invalid token of this address."""
        self._failures.record(_keys(address, foreign), time.monotonic())

    def recent(self, token: str) -> exception.ConsoledException | None:
        """Return the last refusal of this token; None if there was none recently."""
        return self._recent.recent(token, time.monotonic())


def _keys(address: str | None, foreign: bool) -> tuple[tuple[str, int], ...]:
    networks = client_networks(address)
    return tuple((f'foreign {network}', share) for network, share in networks) if foreign else networks
