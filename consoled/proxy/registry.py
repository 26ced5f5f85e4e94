# SPDX-License-Identifier: Apache-2.0
"""The sessions of a proxy process: found, joined, cut, and looked after once a second."""

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
_SLICE = 100  # sessions checked before other tasks have their turn


class SessionRegistry:
    """All sessions of this process, from their birth to their end.

    :param quota: has a slot for each session, taken at its birth and given back at its end
    :param observers: of every session
    :param timeouts: of every session; may be replaced at any time
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
        """Return the ids of all sessions, those that are being opened included."""
        return list(self._by_id)

    def opening_ids(self) -> set[str]:
        """Return the ids of those that no manager has confirmed yet."""
        return {session.id for session in self._by_id.values() if not session.granted}

    def create(self, token: str, client_address: str | None) -> Session:
        """Return a new session.

        :raises ProxyBusy, TooManySessions: there is no slot for it
        """
        self._quota.acquire(client_address)
        session = Session((tokens.hashed(token), client_address), self)
        self._by_id[session.id] = session
        return session

    def find(self, token: str, client_address: str | None) -> Session | None:
        """Return the live SPICE session that another websocket of the same client belongs to.

        The same token from another address is another client, with a session of its own.
        """
        session = self._joinable.get((tokens.hashed(token), client_address))
        return session if session is not None and session.state in _JOINABLE else None

    def make_joinable(self, session: Session) -> None:
        """Let further websockets of its client find it, if its console is used by several at a time."""
        if session.state is State.CONNECTING and session.console.console_type == ConsoleType.SPICE:
            self._joinable[session.client] = session

    # cuts

    def cut(self, reasons: Mapping[str, str]) -> None:
        """End those of these sessions that are here.

        :param reasons: by session id
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

    def cut_all(self, reason: EndReason) -> None:
        """End all sessions."""
        for session in self:
            _end(reason, session)

    # as the observer of each session

    def opened(self, session: Session) -> None:
        """Pass it on."""
        for observer in self._observers:
            try:
                observer.opened(session)
            except Exception:  # the others still have to hear of it
                LOG.exception('session %s: an observer failed', session.id)

    def ended(self, session: Session) -> None:
        """Forget the session, and pass it on."""
        del self._by_id[session.id]
        if self._joinable.get(session.client) is session:
            del self._joinable[session.client]
        for observer in self._observers:
            try:
                observer.ended(session)
            except Exception:
                LOG.exception('session %s: an observer failed', session.id)

    # the clock

    def start(self) -> None:
        """Begin to check sessions."""
        self._ticking = asyncio.get_running_loop().create_task(self._tick(), name='sessions')

    async def stop(self) -> None:
        """Check no more."""
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
                except Exception:  # the others still have to be checked
                    LOG.exception('session %s could not be checked', session.id)
                if number % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)


def _end(reason: str, session: Session) -> None:
    try:
        session.end(reason)
    except Exception:  # the others still have to end
        LOG.exception('session %s could not be ended', session.id)
