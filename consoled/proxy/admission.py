# SPDX-License-Identifier: Apache-2.0
"""From a websocket's request to a connected console: everything that happens before the ``101``.

In this order: limits, Origin, the managers' yes, the connection to the console. No byte is sent to a
hypervisor before the managers have said yes (doc/design.md, invariant 7).
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
from consoled.proxy import close_codes, handshake
from consoled.proxy.close_codes import CloseCode
from consoled.proxy.input_filter import InputFilter, input_filter_for
from consoled.proxy.manager_client import ManagerClient
from consoled.proxy.metrics import Metrics
from consoled.proxy.refusals import Refusals
from consoled.proxy.registry import SessionRegistry
from consoled.proxy.session import Session
from consoled.proxy.targets import Connector, Target

# Seconds from asking the managers to the connection in which the console is taken to be still that guest's.
_FRESH = 0.2

# How a session that was cut before the 101 is refused, by the close code that it would have had after it.
_REFUSED_AS: dict[CloseCode, type[exception.ConsoledException]] = {
    CloseCode.CONSOLE_GONE: exception.ConsoleGone,
    CloseCode.SERVICE_RESTART: exception.ProxyStopping,
    CloseCode.TRY_AGAIN_LATER: exception.ProxyBusy,
}


@dataclasses.dataclass
class Admitted:
    """A session with a connected console, one step before the ``101``."""

    session: Session
    target: Target
    input_filter: InputFilter


class Admission:
    """Decides which websockets become channels of a session.

    :param max_channels: of one SPICE session
    :ivar stopping: nothing more is admitted
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
        """Do all that comes before the ``101``.

        The caller makes a channel of what is returned, and hands it to the session, without awaiting anything
        in between.

        :raises ConsoledException: refused
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
        """Return why a websocket with this token is or was refused."""
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
        """Note a websocket that was refused for its form alone."""
        self._refusals.malformed(refusal.error, refusal.client.address)

    def _find_or_create(self, upgrade: handshake.Upgrade) -> Session:
        """Return the session that the websocket is for; it now counts as one that may become a channel."""
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
                target = await self._reach(session, upgrade.token)
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
        """Have the managers open the session."""
        with self._timed('authorize'):
            if upgrade.origin is not None:
                grant = await self._managers.validate(upgrade.token)
                handshake.check_origin(upgrade.origin, grant.access_url_base)
                _check_not_cut(session)
            granted = await self._managers.open_session(session, upgrade.token)
        session.grant(granted, time.monotonic())
        self._registry.make_joinable(session)

    async def _reach(self, session: Session, token: str) -> Target:
        """Connect to the session's console; give up at once if the session is cut."""
        on_connected = functools.partial(self._confirm, session, token)
        try:
            async with session.interrupted_by_end():
                return await self._connector.connect(session.console, on_connected)
        except TimeoutError:
            _check_not_cut(session)
            raise

    async def _confirm(self, session: Session, token: str) -> None:
        """Ask the managers again if the connection came late: its port may be another guest's by now.

        A session that has a channel is connected to its guest, which therefore has its port.

        :raises ConsoledException: as at first
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
        """Observe how long a stage took, if it went well."""
        started = time.monotonic()
        yield
        self._metrics.stage(stage, time.monotonic() - started)


def _check_not_cut(session: Session) -> None:
    """Refuse a session that was cut before it had a channel whose user could be told.

    :raises ConsoledException: it was
    """
    if session.end_reason is None:
        return
    ending = close_codes.ending(session.end_reason)
    if ending.code is CloseCode.TAKEN_OVER:
        raise exception.ConsoleInUse(ending.text)
    raise _REFUSED_AS.get(ending.code, exception.InvalidToken)()
