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

# Seconds by which a client that has sent too many invalid tokens is answered late. Its connections are
# limited, and with them the rate at which it can guess.
_LATE = 1.0

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
            self._refusals.refused(
                exc, upgrade.token, upgrade.client.address, session, foreign=upgrade.foreign
            )
            if isinstance(exc, exception.RateLimited):
                await asyncio.sleep(_LATE)
            raise

    def explain(
        self, token: str, client_address: str | None, *, foreign: bool
    ) -> exception.ConsoledException | None:
        """Return why a websocket with this token was refused; None if ``ask`` may find out.

        Another process may have refused it, so a manager is asked if this one did not. Such questions are few
        for each address, and a page of another site causes none.

        :param foreign: whether a page of another site wants to know
        :returns: UpgradeRequired if the reason is not known, and a manager must not be asked
        """
        if (error := self._refusals.recent(token)) is not None:
            self._metrics.explained('memory')
            return error
        if self.stopping:
            return exception.ProxyStopping()
        seconds = self._refusals.doubtful_for(client_address, foreign=False)
        if foreign or seconds or not self._refusals.may_explain(client_address):
            self._metrics.explained('none')
            return exception.RateLimited(seconds=seconds) if seconds else exception.UpgradeRequired()
        return None

    async def ask(
        self, token: str, client_address: str | None, serial_port: int | None
    ) -> exception.ConsoledException:
        """Ask a manager why a websocket with this token would be refused now, apart from the opens.

        :param serial_port: number of the serial port that the user has chosen; None for the token's own
        :returns: UpgradeRequired if it would not be refused
        """
        self._metrics.explained('manager')
        try:
            await self._managers.validate_to_open(token, client_address, serial_port)
        except exception.ConsoledException as exc:
            if isinstance(exc, exception.InvalidToken):
                self._refusals.token_failed(client_address, foreign=False)
            return exc
        return exception.UpgradeRequired()

    def refused(self, refusal: handshake.Refusal) -> None:
        """Record a request for a websocket that was refused for its form, before its token was considered."""
        self._refusals.malformed(refusal.error, refusal.client.address)

    def _find_or_create(self, upgrade: handshake.Upgrade) -> Session:
        """Return the session for the websocket, which the session now counts as a possible channel."""
        if self.stopping:
            raise exception.ProxyStopping()
        session = self._registry.find(upgrade.token, upgrade.client.address)
        if session is None:
            session = self._registry.create(upgrade.token, upgrade.client.address)
            session.serial_port = upgrade.serial_port
            return session
        upgrade.page.check_access_url(session.console.access_url_base)
        if len(session.channels) + session.connecting >= self._max_channels:
            raise exception.TooManySessions(limit=self._max_channels, scope='SPICE client')
        session.join()
        return session

    async def _connect(self, session: Session, upgrade: handshake.Upgrade) -> Admitted:
        try:
            if session.granted:
                await self._ask_again(session, upgrade.token)
            else:
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
        address = upgrade.client.address
        with self._timed('authorize'):
            if seconds := self._refusals.doubtful_for(address, foreign=upgrade.foreign):
                await self._check_doubtful(upgrade.token, address, seconds)
                _check_not_cut(session)
            if upgrade.page.needs_access_url:
                grant = await self._managers.validate(upgrade.token, address)
                upgrade.page.check_access_url(grant.access_url_base)
                _check_not_cut(session)
            granted = await self._managers.open_session(session, upgrade.token)
        session.grant(granted, time.monotonic())
        self._registry.make_joinable(session)

    async def _check_doubtful(self, token: str, address: str | None, seconds: float) -> None:
        """Check a token of a client that has sent too many invalid ones, apart from those of all others.

        :param seconds: for how long its tokens are doubtful
        :raises RateLimited: when the token is invalid
        """
        try:
            await self._managers.validate_doubtful(token, address)
        except exception.InvalidToken:
            raise exception.RateLimited(seconds=seconds) from None

    async def _reach(self, session: Session, upgrade: handshake.Upgrade) -> Target:
        """Connect to the session's console; give up at once if the session is cut."""
        on_connected = functools.partial(self._confirm, session, upgrade.token)
        acknowledges = upgrade.subprotocol in flow.PROTOCOLS
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
            if not session.channels and time.monotonic() - session.asked_at > _FRESH:
                await self._ask_again(session, token)

    async def _ask_again(self, session: Session, token: str) -> None:
        """Ask a manager whether the session may have a channel now, by opening it with the same id.

        :raises ConsoledException: as for the first question
        """
        granted = await self._managers.open_session(session, token)
        if granted.cut_reason is not None:
            session.end(granted.cut_reason)
        if not session.is_at(granted.console):
            session.end(EndReason.CONSOLE_GONE)
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
