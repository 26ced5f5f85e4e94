# SPDX-License-Identifier: Apache-2.0
"""The live sessions of a proxy process: what they are, when they end, and who hears of it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from consoled import token as tokens
from consoled.proxy import close_codes
from consoled.proxy.relay import Channel

LOG = logging.getLogger(__name__)

_SEVERAL_CHANNELS = 'spice-html5'
_SLICE = 100  # sessions looked at before others have their turn
_TICK = 1.0  # seconds between two looks at all sessions: one timer for them all


@dataclasses.dataclass(frozen=True)
class Rules:
    """How long a session may be silent, in seconds; ``idle`` 0: for ever."""

    idle: float
    ping_interval: float
    ping_timeout: float
    greeting: float


class Session:
    """A session and its channels: one, or with SPICE one for each websocket of its client.

    :param granted: the ConsoleSession
    :param client: hash of its token and the user's address
    """

    def __init__(self, granted: Any, client: tuple[str, str | None], now: float) -> None:
        self.id: str = granted.id
        self.console: Any = granted.console
        self.user_id: str | None = granted.user_id
        self.project_id: str | None = granted.project_id
        self.limited: bool = granted.limited
        self.client = client
        self.opened = now
        # by the database's clock both: ours may be minutes off (DESIGN invariant 2)
        self.ends: float | None = None
        if granted.ends_at is not None:
            self.ends = now + (granted.ends_at - granted.connected_at).total_seconds()
        self.reason: str | None = granted.cut_reason
        self.channels: set[Channel] = set()
        self.connecting = 0  # websockets that are about to become channels
        self.asked = now  # when the managers were asked for it; admission knows that better
        self.asking = asyncio.Lock()  # held while they are asked again
        self.announced = False  # that it was opened: its end will be too
        self.left: str | None = None  # how the last of its channels ended
        self._bytes_in = 0  # of channels that have ended
        self._bytes_out = 0

    @property
    def client_address(self) -> str | None:
        return self.client[1]

    @property
    def bytes_in(self) -> int:
        """Bytes from the user."""
        return self._bytes_in + sum(channel.bytes_in for channel in self.channels)

    @property
    def bytes_out(self) -> int:
        """Bytes to the user."""
        return self._bytes_out + sum(channel.bytes_out for channel in self.channels)

    def end(self, reason: str) -> None:
        """End all its channels."""
        self.reason = self.reason or reason
        for channel in list(self.channels):
            channel.end(reason)

    def channel_ended(self, channel: Channel) -> None:
        self.channels.discard(channel)
        self._bytes_in += channel.bytes_in
        self._bytes_out += channel.bytes_out
        self.left = channel.reason or close_codes.USER_LEFT

    def check(self, rules: Rules, now: float) -> None:
        """End what has lasted too long, ask the silent for a sign of life."""
        if self.ends is not None and now >= self.ends:
            self.end(close_codes.TIME_OVER)
        elif rules.idle and self.channels and now - self._last_input() > rules.idle:
            self.end(close_codes.IDLE)
        for channel in list(self.channels):
            if channel.reason is None:
                _check_channel(channel, rules, now)

    def _last_input(self) -> float:
        return max(channel.last_input for channel in self.channels)


def _check_channel(channel: Channel, rules: Rules, now: float) -> None:
    channel.look()
    if channel.stalled is not None:
        # its user is not read either, so that silence means nothing
        if now - channel.stalled > rules.ping_timeout:
            channel.end(close_codes.GUEST_STALLED)
        return
    silent = now - channel.last_heard
    slow_to_greet = not channel.greeted and now - channel.began > rules.greeting
    if slow_to_greet or silent > rules.ping_interval + rules.ping_timeout:
        channel.end(close_codes.USER_LOST)
    elif silent > rules.ping_interval and channel.pinged is None:
        channel.ping()


class Sessions:
    """All sessions of this process.

    :param rules: asked each time, since they may be changed while the service runs
    :param ended: told of each session whose last connection to its console is closed, with how long it was
    """

    def __init__(self, rules: Callable[[], Rules], ended: Callable[[Session, float], None]) -> None:
        self._rules = rules
        self._ended = ended
        self._by_id: dict[str, Session] = {}
        self._joinable: dict[tuple[str, str | None], Session] = {}
        self._ticking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    def ids(self) -> list[str]:
        return list(self._by_id)

    def start(self) -> None:
        self._ticking = asyncio.get_running_loop().create_task(self._tick(), name='sessions')

    async def stop(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            rules, now = self._rules(), asyncio.get_running_loop().time()
            for number, session in enumerate(self):
                try:
                    session.check(rules, now)
                except Exception:  # the others still have their times
                    LOG.exception('session %s could not be looked at', session.id)
                if number % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)

    def add(self, granted: Any, token: str, client_address: str | None) -> Session:
        """A session that was opened with the managers; its first channel is on its way."""
        session = Session(granted, (tokens.hashed(token), client_address), time.monotonic())
        session.connecting = 1
        self._by_id[session.id] = session
        if session.console.console_type == _SEVERAL_CHANNELS:
            self._joinable[session.client] = session
        return session

    def to_join(self, token: str, client_address: str | None) -> Session | None:
        """The live SPICE session that a further websocket of the same client belongs to.

        The same token from another address is another client, and a session of its own.
        """
        session = self._joinable.get((tokens.hashed(token), client_address))
        return session if session is not None and session.reason is None else None

    def connected(self, session: Session, channel: Channel) -> None:
        """A channel is up."""
        session.connecting -= 1
        session.channels.add(channel)

    def failed(self, session: Session, reason: str) -> None:
        """A websocket did not become a channel."""
        session.connecting -= 1
        self._maybe_over(session, reason)

    def released(self, session: Session, channel: Channel) -> None:
        """A channel's connection to the console is closed."""
        session.channel_ended(channel)
        self._maybe_over(session)

    def _maybe_over(self, session: Session, reason: str = close_codes.USER_LEFT) -> None:
        if session.channels or session.connecting:
            return  # a page that is loaded again opens its websockets before the old ones have ended
        session.reason = session.reason or session.left or reason
        if self._joinable.get(session.client) is session:
            del self._joinable[session.client]
        if self._by_id.pop(session.id, None) is not None:
            self._ended(session, time.monotonic() - session.opened)

    def cut(self, reasons: dict[str, str]) -> None:
        """End those of these sessions that are here: reasons by id."""
        for session_id, reason in reasons.items():
            session = self._by_id.get(session_id)
            if session is not None:
                session.end(reason)

    def cut_limited(self) -> None:
        for session in self:
            if session.limited:
                session.end(close_codes.LEASE_LOST)

    def cut_all(self, reason: str) -> None:
        for session in self:
            session.end(reason)
