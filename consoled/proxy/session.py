# SPDX-License-Identifier: Apache-2.0
"""One live use of a console: its states, from the moment its id is chosen until nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import time
import uuid
from collections.abc import AsyncIterator
from typing import Protocol

from consoled import objects
from consoled.objects import EndReason
from consoled.proxy.relay import Channel


class State(enum.Enum):
    """Where a session is in its life."""

    OPENING = 'opening'  # the managers are being asked
    CONNECTING = 'connecting'  # they said yes; the console is being connected
    OPEN = 'open'  # it has, or had, a channel
    ENDING = 'ending'  # it has an end reason; channels are closing, or a call is still under way
    ENDED = 'ended'  # nothing of it is left


class Event(enum.Enum):
    """What moves a session from one state to another."""

    GRANTED = 'granted'  # a manager opened it
    CONNECTED = 'connected'  # a channel is up
    END = 'end'  # it has to end
    RELEASED = 'released'  # no websocket and no channel holds it any more


TRANSITIONS = {
    State.OPENING: {
        Event.GRANTED: State.CONNECTING,
        Event.END: State.ENDING,
        Event.RELEASED: State.ENDED,
    },
    State.CONNECTING: {
        Event.CONNECTED: State.OPEN,
        Event.END: State.ENDING,
        Event.RELEASED: State.ENDED,
    },
    State.OPEN: {
        Event.CONNECTED: State.OPEN,
        Event.END: State.ENDING,
        Event.RELEASED: State.ENDED,
    },
    State.ENDING: {
        Event.GRANTED: State.ENDING,
        Event.END: State.ENDING,
        Event.RELEASED: State.ENDED,
    },
    State.ENDED: {
        Event.END: State.ENDED,
    },
}


class InvalidTransition(Exception):
    """The event cannot happen in this state: a fault of the proxy."""


class SessionObserver(Protocol):
    """Hears once that a session is open, if it ever is, and once that it has ended."""

    def opened(self, session: Session) -> None:
        """Its first channel is up."""

    def ended(self, session: Session) -> None:
        """It is over: its ``end_reason`` is set, and its port may be used again."""


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """How long a session may be silent, in seconds.

    :ivar idle: without input from the user; 0: no limit
    :ivar ping_interval: without data from the user until a ping is sent
    :ivar ping_timeout: after the ping; and how long a guest may refuse input
    :ivar greeting: for the handshake with the user
    """

    idle: float
    ping_interval: float
    ping_timeout: float
    greeting: float


class Session:
    """A session and its channels: one channel, or with SPICE one for each websocket of its client.

    It is born with one websocket that wants to become a channel. Whoever holds such a websocket calls
    ``connected`` or ``abandon`` for it, once.

    :param client: hash of its token, and the user's address
    :param observer: of ``opened`` and ``ended``
    """

    __slots__ = (
        '_bytes_in',
        '_bytes_out',
        '_console',
        '_interruptible',
        '_last_channel_reason',
        '_observer',
        'asked_at',
        'asking',
        'channels',
        'client',
        'connecting',
        'end_reason',
        'ends_at',
        'granted_at',
        'id',
        'limited',
        'may_be_stored',
        'project_id',
        'state',
        'user_id',
    )

    def __init__(self, client: tuple[str, str | None], observer: SessionObserver) -> None:
        self.id = str(uuid.uuid4())
        self.client = client
        self.state = State.OPENING
        self.connecting = 1  # websockets that may become channels
        self.channels: set[Channel] = set()
        self.end_reason: str | None = None
        self.may_be_stored = False  # managers may have a row of it, which must be closed
        self._observer = observer
        self._console: objects.ConsoleConnection | None = None
        self.user_id: str | None = None
        self.project_id: str | None = None
        self.limited = False
        self.granted_at: float | None = None  # by the monotonic clock, as are the next two
        self.ends_at: float | None = None
        self.asked_at = 0.0  # when the managers were last asked whether the console is still there
        self.asking: asyncio.Lock | None = None  # held while they are asked again
        self._interruptible: list[asyncio.Timeout] = []
        self._last_channel_reason: str | None = None
        self._bytes_in = 0  # of channels that have ended
        self._bytes_out = 0

    @property
    def client_address(self) -> str | None:
        """The user's IP address; None on a unix socket without a trusted proxy in front of it."""
        return self.client[1]

    @property
    def granted(self) -> bool:
        """Whether the managers have opened it, so that its user and console are known."""
        return self._console is not None

    @property
    def console(self) -> objects.ConsoleConnection:
        """Its console.

        :raises RuntimeError: the managers have not opened it
        """
        if self._console is None:
            raise RuntimeError(f'session {self.id} is not granted')
        return self._console

    @property
    def was_open(self) -> bool:
        """Whether it has, or had, a channel."""
        return bool(self.channels) or self._last_channel_reason is not None

    @property
    def seconds(self) -> float:
        """How long ago the managers opened it."""
        return 0.0 if self.granted_at is None else time.monotonic() - self.granted_at

    @property
    def bytes_in(self) -> int:
        """Bytes from the user."""
        return self._bytes_in + sum(channel.bytes_in for channel in self.channels)

    @property
    def bytes_out(self) -> int:
        """Bytes to the user."""
        return self._bytes_out + sum(channel.bytes_out for channel in self.channels)

    # its life

    def _fire(self, event: Event) -> None:
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise InvalidTransition(f'{event.value} in state {self.state.value}') from None

    def grant(self, granted: objects.ConsoleSession, now: float) -> None:
        """The managers have opened it.

        :param now: by the monotonic clock
        """
        self._fire(Event.GRANTED)
        self._console = granted.console
        self.user_id, self.project_id = granted.user_id, granted.project_id
        self.limited = granted.limited
        self.granted_at = now
        # Both moments are the database's: our clock may be minutes off (doc/design.md, invariant 2).
        if granted.ends_at is not None:
            self.ends_at = now + (granted.ends_at - granted.connected_at).total_seconds()
        if granted.cut_reason is not None:
            self.end(granted.cut_reason)

    def join(self) -> None:
        """One more websocket wants to become a channel."""
        self.connecting += 1

    @contextlib.asynccontextmanager
    async def interrupted_by_end(self) -> AsyncIterator[None]:
        """Interrupt what is awaited in this context as soon as the session has to end.

        :raises TimeoutError: it was interrupted
        """
        async with asyncio.timeout(None) as interruptible:
            self._interruptible.append(interruptible)
            try:
                yield
            finally:
                if interruptible in self._interruptible:
                    self._interruptible.remove(interruptible)

    def connected(self, channel: Channel) -> None:
        """A websocket has become a channel."""
        first = self.state is State.CONNECTING
        self._fire(Event.CONNECTED)
        self.connecting -= 1
        self.channels.add(channel)
        if first:
            self._observer.opened(self)

    def abandon(self, reason: EndReason) -> None:
        """A websocket will not become a channel.

        :param reason: why the session has ended, if that was the last of it
        """
        self.connecting -= 1
        self._release(reason)

    def channel_released(self, channel: Channel) -> None:
        """A channel's connection to the console is closed."""
        self.channels.discard(channel)
        self._bytes_in += channel.bytes_in
        self._bytes_out += channel.bytes_out
        self._last_channel_reason = channel.reason or EndReason.USER_LEFT
        self._release(EndReason.USER_LEFT)

    def _release(self, reason: EndReason) -> None:
        if self.channels or self.connecting:
            return  # a page that is reloaded opens its websockets before the old ones have ended
        self._fire(Event.RELEASED)
        self.end_reason = self.end_reason or self._last_channel_reason or reason
        self._observer.ended(self)

    def end(self, reason: str) -> None:
        """Have it end: close its channels, and let no websocket become one. The first reason counts."""
        self._fire(Event.END)
        self.end_reason = self.end_reason or reason
        while self._interruptible:
            self._interruptible.pop().reschedule(0.0)
        for channel in list(self.channels):
            channel.end(reason)

    # its timeouts

    def check(self, timeouts: Timeouts, now: float) -> None:
        """End what has lasted too long or been silent too long; ping silent users."""
        if self.ends_at is not None and now >= self.ends_at:
            self.end(EndReason.TIME_OVER)
        elif timeouts.idle and self.channels and now - self._last_input() > timeouts.idle:
            self.end(EndReason.IDLE)
        for channel in list(self.channels):
            if channel.reason is None:
                _check_channel(channel, timeouts, now)

    def _last_input(self) -> float:
        return max(channel.last_input for channel in self.channels)


def _check_channel(channel: Channel, timeouts: Timeouts, now: float) -> None:
    channel.note_progress()
    if channel.stalled is not None:
        # Its user is not read either, so silence means nothing.
        if now - channel.stalled > timeouts.ping_timeout:
            channel.end(EndReason.GUEST_STALLED)
        return
    silent = now - channel.last_heard
    slow_to_greet = not channel.greeted and now - channel.began > timeouts.greeting
    if slow_to_greet or silent > timeouts.ping_interval + timeouts.ping_timeout:
        channel.end(EndReason.USER_LOST)
    elif silent > timeouts.ping_interval and channel.pinged is None:
        channel.ping()
