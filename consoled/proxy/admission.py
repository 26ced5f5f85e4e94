# SPDX-License-Identifier: Apache-2.0
"""Admission of websockets: everything between the request and the ``101``.

The order is: limits, Origin, a manager's consent, the connection to the console. No byte is sent to a
hypervisor before a manager has consented (doc/design.md, invariant 7).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy import close_codes, flow, handshake
from consoled.proxy.close_codes import CloseCode
from consoled.proxy.input_filter import InputFilter, input_filter_for
from consoled.proxy.manager_client import ManagerClient
from consoled.proxy.metrics import Metrics
from consoled.proxy.refusals import Refusals
from consoled.proxy.registry import SessionRegistry
from consoled.proxy.session import Session
from consoled.proxy.targets import Connector, Target

# Seconds for which a manager's answer is trusted, counted from the request. A connection made later may lead
# to another guest, so a manager is asked again.
_FRESH = 0.2

# Refusal of a session that was cut before the 101, by the close code that it would have had after it.
_REFUSED_AS: dict[CloseCode, type[exception.ConsoledException]] = {
    CloseCode.CONSOLE_GONE: exception.ConsoleGone,
    CloseCode.SERVICE_RESTART: exception.ProxyStopping,
    CloseCode.TRY_AGAIN_LATER: exception.ProxyBusy,
}


@dataclasses.dataclass
class Admitted:
    """Admitted websocket: its session and its connected console. Only the ``101`` has still to be sent."""

    session: Session
    target: Target
    input_filter: InputFilter


class Admission:
    """Decides which websockets become channels of a session.

    :param max_channels: limit on the channels of one SPICE session
    :ivar stopping: set to refuse all further websockets
    """

    def __init__(
        self,
        managers: ManagerClient,
        connector: Connector,
        registry: SessionRegistry,
        refusals: Refusals,
        metrics: Metrics,
        *,
        max_channels: int,
    ) -> None:
        self._managers = managers
        self._connector = connector
        self._registry = registry
        self._refusals = refusals
        self._metrics = metrics
        self._max_channels = max_channels
        self.stopping = False

    async def admit(self, upgrade: handshake.Upgrade) -> Admitted:
        """Open or join the session of a websocket, and connect its console.

        The caller must make a channel of the result and add it to the session without awaiting anything.

        :raises ConsoledException: when the websocket is refused
        """
        session = None
        try:
            with self._timed('open'):
                session = self._find_or_create(upgrade)
                return await self._connect(session, upgrade)
        except exception.ConsoledException as exc:
            self._refusals.refused(exc, upgrade.token, upgrade.client.address, session)
            raise

    async def explain(self, token: str, client_address: str | None) -> exception.ConsoledException:
        """Return why a websocket with this token was refused, or would be refused now.

        :returns: UpgradeRequired if it would not be refused
        """
        try:
            self._refusals.check_rate(client_address)
            if (error := self._refusals.recent(token)) is not None:
                return error
            if self.stopping:
                return exception.ProxyStopping()
            await self._managers.validate(token)
        except exception.ConsoledException as exc:
            if isinstance(exc, exception.InvalidToken):
                self._refusals.token_failed(client_address)
            return exc
        return exception.UpgradeRequired()

    def refused(self, refusal: handshake.Refusal) -> None:
        """Record a request for a websocket that was refused for its form, before its token was considered."""
        self._refusals.malformed(refusal.error, refusal.client.address)

    def _find_or_create(self, upgrade: handshake.Upgrade) -> Session:
        """Return the session for the websocket, which the session now counts as a possible channel."""
        if self.stopping:
            raise exception.ProxyStopping()
        self._refusals.check_rate(upgrade.client.address)
        session = self._registry.find(upgrade.token, upgrade.client.address)
        if session is None:
            return self._registry.create(upgrade.token, upgrade.client.address)
        if upgrade.origin is not None:
            handshake.check_origin(upgrade.origin, session.console.access_url_base)
        if len(session.channels) + session.connecting >= self._max_channels:
            raise exception.TooManySessions(limit=self._max_channels, scope='SPICE client')
        session.join()
        return session

    async def _connect(self, session: Session, upgrade: handshake.Upgrade) -> Admitted:
        try:
            if not session.granted:
                await self._grant(session, upgrade)
            _check_not_cut(session)
            input_filter = input_filter_for(session.console.console_type, session.console.options.get('mode'))
            with self._timed('target'):
                target = await self._reach(session, upgrade)
            try:
                _check_not_cut(session)
            except BaseException:
                target.transport.abort()
                raise
        except BaseException as exc:
            left = isinstance(exc, asyncio.CancelledError) and session.granted
            session.abandon(EndReason.USER_LEFT if left else EndReason.OPEN_FAILED)
            raise
        return Admitted(session, target, input_filter)

    async def _grant(self, session: Session, upgrade: handshake.Upgrade) -> None:
        """Ask a manager to open the session."""
        with self._timed('authorize'):
            if upgrade.origin is not None:
                grant = await self._managers.validate(upgrade.token)
                handshake.check_origin(upgrade.origin, grant.access_url_base)
                _check_not_cut(session)
            granted = await self._managers.open_session(session, upgrade.token)
        session.grant(granted, time.monotonic())
        self._registry.make_joinable(session)

    async def _reach(self, session: Session, upgrade: handshake.Upgrade) -> Target:
        """Connect to the session's console; give up at once if the session is cut."""
        on_connected = functools.partial(self._confirm, session, upgrade.token)
        acknowledges = upgrade.subprotocol == flow.PROTOCOL
        try:
            async with session.interrupted_by_end():
                return await self._connector.connect(
                    session.console, on_connected, small_buffers=acknowledges
                )
        except TimeoutError:
            _check_not_cut(session)
            raise

    async def _confirm(self, session: Session, token: str) -> None:
        """Ask a manager again if the connection took long: the port may belong to another guest now.

        A session with a channel is not asked about: its guest still has the port.

        :raises ConsoledException: as for the first question
        """
        if session.asking is None:
            session.asking = asyncio.Lock()
        async with session.asking:
            _check_not_cut(session)
            if session.channels or time.monotonic() - session.asked_at <= _FRESH:
                return
            granted = await self._managers.open_session(session, token)
            if granted.cut_reason is not None:
                session.end(granted.cut_reason)
            _check_not_cut(session)

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Record the duration of a stage that succeeds."""
        started = time.monotonic()
        yield
        self._metrics.stage(stage, time.monotonic() - started)


def _check_not_cut(session: Session) -> None:
    """Check that the session was not cut: without a channel, its user is told by a refusal.

    :raises ConsoledException: when it was cut; the error that fits the end reason
    """
    if session.end_reason is None:
        return
    ending = close_codes.ending(session.end_reason)
    if ending.code is CloseCode.TAKEN_OVER:
        raise exception.ConsoleInUse(ending.text)
    raise _REFUSED_AS.get(ending.code, exception.InvalidToken)()
