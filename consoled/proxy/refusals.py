# SPDX-License-Identifier: Apache-2.0
"""Refused websockets: counted, logged, remembered for the page that asks why, and held against guessers."""

from __future__ import annotations

import time

from consoled import exception
from consoled.proxy.audit import Audit
from consoled.proxy.limits import FailureRate
from consoled.proxy.metrics import Metrics
from consoled.proxy.responses import RecentRefusals
from consoled.proxy.session import Session


class Refusals:
    """What is done about each refusal.

    :param max_failed_tokens: a minute, of one address
    """

    def __init__(self, max_failed_tokens: int, metrics: Metrics, audit: Audit) -> None:
        self._metrics = metrics
        self._audit = audit
        self._failures = FailureRate(max_failed_tokens)
        self._recent = RecentRefusals()

    def check_rate(self, address: str | None) -> None:
        """:raises RateLimited: too many tokens of this address were refused lately"""
        if seconds := self._failures.wait(address, time.monotonic()):
            raise exception.RateLimited(seconds=seconds)

    def malformed(self, error: exception.ConsoledException, address: str | None) -> None:
        """A request was refused for its form alone, before its token mattered."""
        self._metrics.refused(error.code)
        self._audit.refused(error, address)

    def refused(
        self,
        error: exception.ConsoledException,
        token: str,
        address: str | None,
        session: Session | None,
    ) -> None:
        """An open was refused.

        :param session: if it got as far as to have one
        """
        self._metrics.refused(error.code)
        if isinstance(error, exception.RateLimited):
            return  # an address that tries many tokens must not fill the log
        granted = session if session is not None and session.granted else None
        if isinstance(error, exception.InvalidToken) and granted is None:
            self.token_failed(address)
        self._recent.note(token, error, time.monotonic())
        self._audit.refused(error, address, granted)

    def token_failed(self, address: str | None) -> None:
        """Count a token that does not exist against its address."""
        self._failures.failed(address, time.monotonic())

    def recent(self, token: str) -> exception.ConsoledException | None:
        """Return why this token was refused, if it was lately."""
        return self._recent.recent(token, time.monotonic())
