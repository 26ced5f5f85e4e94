# SPDX-License-Identifier: Apache-2.0
"""Registry of the sessions of a proxy process: creates, finds and cuts them, and checks their timeouts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence

from consoled import token as tokens
from consoled.objects import ConsoleType, EndReason
from consoled.proxy.quota import SessionQuota
from consoled.proxy.session import Session, SessionObserver, State, Timeouts

LOG = logging.getLogger(__name__)

_TICK = 1.0  # seconds between two checks of all sessions: one timer serves them all
_JOINABLE = (State.CONNECTING, State.OPEN)
_SLICE = 100  # sessions checked before other tasks get a turn


class SessionRegistry:
    """All sessions of this process that have not ended.

    :param quota: has a slot for each session, acquired when it is created and released when it has ended
    :param observers: notified of every session
    :ivar timeouts: of every session; may be replaced at any time
    """

    def __init__(self, quota: SessionQuota, observers: Sequence[SessionObserver], timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self._quota = quota
        self._observers = (quota, *observers)
        self._by_id: dict[str, Session] = {}
        self._joinable: dict[tuple[str, str | None], Session] = {}
        self._ticking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    def ids(self) -> list[str]:
        """Return the ids of all sessions, including those that are being opened."""
        return list(self._by_id)

    def opening_ids(self) -> set[str]:
        """Return the ids of the sessions that no manager has granted yet."""
        return {session.id for session in self._by_id.values() if not session.granted}

    def create(self, token: str, client_address: str | None) -> Session:
        """Return a new session.

        :raises ProxyBusy: when the process has no free slot
        :raises TooManySessions: when the address has no free slot
        """
        self._quota.acquire(client_address)
        session = Session((tokens.hashed(token), client_address), self)
        self._by_id[session.id] = session
        return session

    def find(self, token: str, client_address: str | None) -> Session | None:
        """Return the SPICE session that another websocket of this client belongs to, or None.

        The same token from another address is another client, with a session of its own.
        """
        session = self._joinable.get((tokens.hashed(token), client_address))
        return session if session is not None and session.state in _JOINABLE else None

    def make_joinable(self, session: Session) -> None:
        """Let further websockets of the same client find the session, if its console is a SPICE console."""
        if session.state is State.CONNECTING and session.console.console_type == ConsoleType.SPICE:
            self._joinable[session.client] = session

    # cuts

    def cut(self, reasons: Mapping[str, str]) -> None:
        """End sessions by id; ids of sessions that are not in this process are ignored.

        :param reasons: end reasons by session id
        """
        for session_id, reason in reasons.items():
            session = self._by_id.get(session_id)
            if session is not None:
                _end(reason, session)

    def cut_limited(self, reason: EndReason) -> None:
        """End all sessions that hold a slot of their console."""
        for session in self:
            if session.limited:
                _end(reason, session)

    def cut_stored(self, reason: EndReason) -> None:
        """End all sessions of which managers may have a row."""
        for session in self:
            if session.may_be_stored:
                _end(reason, session)

    def cut_all(self, reason: EndReason) -> None:
        """End all sessions."""
        for session in self:
            _end(reason, session)

    # as the observer of each session

    def opened(self, session: Session) -> None:
        """Notify the observers that the session is open."""
        self._notify('opened', session)

    def joined(self, session: Session) -> None:
        """Notify the observers that the session has another channel."""
        self._notify('joined', session)

    def ended(self, session: Session) -> None:
        """Forget the session, and notify the observers that it has ended."""
        del self._by_id[session.id]
        if self._joinable.get(session.client) is session:
            del self._joinable[session.client]
        self._notify('ended', session)

    def _notify(self, event: str, session: Session) -> None:
        for observer in self._observers:
            try:
                getattr(observer, event)(session)
            except Exception:  # the other observers must be notified all the same
                name = type(observer).__name__
                LOG.exception('Failed to notify %s that session %s %s', name, session.id, event)

    # the timer

    def start(self) -> None:
        """Start checking sessions once a second."""
        self._ticking = asyncio.get_running_loop().create_task(self._tick(), name='sessions')

    async def stop(self) -> None:
        """Stop checking sessions."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK)
            now = loop.time()
            for number, session in enumerate(self):
                try:
                    session.check(self.timeouts, now)
                except Exception:  # the other sessions must be checked all the same
                    LOG.exception('Failed to check session %s', session.id)
                if number % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)


def _end(reason: str, session: Session) -> None:
    try:
        session.end(reason)
    except Exception:  # the others still have to end
        LOG.exception('session %s could not be ended', session.id)
