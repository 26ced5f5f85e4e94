# SPDX-License-Identifier: Apache-2.0
"""From a websocket's request to a connected console: everything that happens before the ``101``.

In this order: limits, Origin, the managers' yes, the connection to the console. Not one byte goes to a
hypervisor before the managers have said yes (DESIGN invariant 7).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import time
import uuid
from collections.abc import Iterator

from oslo_config import cfg

from consoled import exception
from consoled.proxy import close_codes, handshake
from consoled.proxy.audit import Audit
from consoled.proxy.authorizer import Authorizer
from consoled.proxy.input_filter import InputFilter, input_filter_for
from consoled.proxy.limits import ConcurrencyLimit, FailureRateLimit
from consoled.proxy.metrics import Metrics
from consoled.proxy.responses import RecentRefusals
from consoled.proxy.sessions import Session, Sessions
from consoled.proxy.targets import Connector, Target

# Seconds from asking the managers to the connection in which the console is taken to be still that guest's.
_FRESH = 0.2

# What a user is told whose session was cut before the 101, by the close code that it would have had after it.
_CUT_MEANWHILE: dict[int, type[exception.ConsoledException]] = {
    4404: exception.ConsoleGone,
    1012: exception.ProxyStopping,
    1013: exception.ProxyBusy,
}


@dataclasses.dataclass
class Opened:
    """A session with a connected console, one step before the ``101``."""

    session: Session
    target: Target
    input_filter: InputFilter


class Admission:
    """Opens what users ask for.

    :ivar stopping: nothing more is opened
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        authorizer: Authorizer,
        connector: Connector,
        sessions: Sessions,
        metrics: Metrics,
        audit: Audit,
    ) -> None:
        self._authorizer = authorizer
        self._connector = connector
        self._sessions = sessions
        self._metrics = metrics
        self._audit = audit
        self._max_channels: int = conf.proxy.max_channels
        self._places = ConcurrencyLimit(conf.proxy.max_sessions, conf.proxy.max_sessions_per_address)
        self._per_address: int = conf.proxy.max_sessions_per_address
        self._failures = FailureRateLimit(conf.proxy.max_failed_tokens)
        self._refusals = RecentRefusals()
        self.stopping = False

    @property
    def held(self) -> int:
        """Sessions that are open or on their way."""
        return self._places.count

    async def open(self, upgrade: handshake.Upgrade) -> Opened:
        """Do all that comes before the ``101``.

        :raises ConsoledException: refused; it has been counted, logged and remembered
        """
        started = time.monotonic()
        session = None
        try:
            session = await self._session_of(upgrade)
            opened = await self._connected(session, upgrade.token)
        except exception.ConsoledException as exc:
            self._refused(upgrade, exc, session)
            raise
        self._metrics.stage('open', time.monotonic() - started)
        return opened

    async def explain(self, token: str, client_address: str | None) -> exception.ConsoledException:
        """Why a websocket with this token is or was refused."""
        now = time.monotonic()
        if wait := self._failures.retry_after(client_address, now):
            return exception.RateLimited(seconds=wait)
        if (error := self._refusals.recent(token, now)) is not None:
            return error
        try:
            await self._authorizer.validate(token)
        except exception.ConsoledException as exc:
            if isinstance(exc, exception.InvalidToken):
                self._failures.record_failure(client_address, now)
            return exc
        return exception.UpgradeRequired()

    def refused(self, refusal: handshake.Refusal) -> None:
        """Count and log a websocket that was refused for its form alone."""
        self._metrics.refused(refusal.error.code)
        self._audit.refused(refusal.error, refusal.client.address)

    def _refused(
        self, upgrade: handshake.Upgrade, error: exception.ConsoledException, session: Session | None
    ) -> None:
        now, address = time.monotonic(), upgrade.client.address
        self._metrics.refused(error.code)
        if isinstance(error, exception.RateLimited):
            return  # somebody who tries many must not fill the log
        if isinstance(error, exception.InvalidToken) and session is None:
            self._failures.record_failure(address, now)
        self._refusals.note(upgrade.token, error, now)
        self._audit.refused(error, address, session)

    async def _session_of(self, upgrade: handshake.Upgrade) -> Session:
        address = upgrade.client.address
        if self.stopping:
            raise exception.ProxyStopping()
        if wait := self._failures.retry_after(address, time.monotonic()):
            raise exception.RateLimited(seconds=wait)
        session = self._sessions.to_join(upgrade.token, address)
        if session is None:
            return await self._new_session(upgrade)
        self._join(session, upgrade)
        return session

    async def _new_session(self, upgrade: handshake.Upgrade) -> Session:
        address = upgrade.client.address
        if not self._places.acquire(address, exempt=address is None):
            if self._places.full:
                raise exception.ProxyBusy()
            raise exception.TooManySessions(limit=self._per_address, scope='address')
        try:
            with self._timed('authorize'):
                if upgrade.origin is not None:
                    grant = await self._authorizer.validate(upgrade.token)
                    handshake.check_origin(upgrade.origin, grant.access_url_base)
                granted = await self._authorizer.open(upgrade.token, str(uuid.uuid4()), address)
        except BaseException:
            self._places.release(address)
            raise
        session = self._sessions.add(granted.session, upgrade.token, address)
        session.asked = granted.asked
        return session

    def _join(self, session: Session, upgrade: handshake.Upgrade) -> None:
        if upgrade.origin is not None:
            handshake.check_origin(upgrade.origin, session.console.access_url_base)
        if len(session.channels) + session.connecting >= self._max_channels:
            raise exception.TooManySessions(limit=self._max_channels, scope='SPICE client')
        session.connecting += 1

    async def _connected(self, session: Session, token: str) -> Opened:
        try:
            self._check(session)
            input_filter = input_filter_for(session.console.console_type, session.console.options.get('mode'))
            with self._timed('target'):
                reached = functools.partial(self._ask_again, session, token)
                target = await self._connector.connect(session.console, reached)
            try:
                self._check(session)
            except BaseException:
                target.transport.abort()
                raise
        except BaseException as exc:
            cancelled = isinstance(exc, asyncio.CancelledError)
            self._sessions.failed(session, close_codes.USER_LEFT if cancelled else close_codes.OPEN_FAILED)
            raise
        if not session.announced:
            session.announced = True
            self._metrics.opened(session.console.console_type)
            self._audit.opened(session)
        return Opened(session, target, input_filter)

    async def _ask_again(self, session: Session, token: str) -> None:
        """Ask the managers once more if the connection has come late: its port may be another guest's by now.

        A session that has a channel is connected to its guest, which so has its port.

        :raises ConsoledException: as at first
        """
        async with session.asking:
            if session.channels or time.monotonic() - session.asked <= _FRESH:
                return
            self._check(session)
            granted = await self._authorizer.open(token, session.id, session.client_address)
            session.asked = granted.asked
            session.reason = session.reason or granted.session.cut_reason
            self._check(session)

    def _check(self, session: Session) -> None:
        """It may have been cut before it had a channel that could be told."""
        if session.reason is None:
            return
        how = close_codes.closing_of(session.reason)
        if how.code == 4409:
            raise exception.ConsoleInUse(how.text)
        raise _CUT_MEANWHILE.get(how.code, exception.InvalidToken)()

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._metrics.stage(stage, time.monotonic() - started)

    def over(self, session: Session, seconds: float) -> None:
        """A session's last connection to its console is closed: its port may be used again."""
        self._places.release(session.client_address)
        reason = session.reason or close_codes.USER_LEFT
        self._authorizer.close(session.id, reason, session.bytes_in, session.bytes_out)
        if session.announced:
            self._metrics.closed(session.console.console_type, reason, session.bytes_in, session.bytes_out)
            self._audit.closed(session, reason, seconds)
