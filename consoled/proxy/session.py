# SPDX-License-Identifier: Apache-2.0
"""Session: the state machine of one live use of a console (doc/design.md, section 7).

It begins when the session's id is chosen, and ends when its last connection to the console is closed.
"""

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
    """State of a session."""

    OPENING = 'opening'  # a manager is being asked
    CONNECTING = 'connecting'  # a manager granted it; the console is being connected
    OPEN = 'open'  # it has or had a channel
    ENDING = 'ending'  # it has an end reason; channels are closing, or a call is still under way
    ENDED = 'ended'  # nothing of it is left


class Event(enum.Enum):
    """Event that may change the state of a session."""

    GRANTED = 'granted'  # a manager opened it
    CONNECTED = 'connected'  # a channel is up
    END = 'end'  # it must end
    RELEASED = 'released'  # no websocket and no channel holds it any longer


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
    """The event is not allowed in this state: a bug in the proxy."""


class SessionObserver(Protocol):
    """Observer of sessions. ``ended`` is called once for each session, ``opened`` once before it or never.

    ``joined`` may be called between the two, any number of times.
    """

    def opened(self, session: Session) -> None:
        """Handle a session whose first channel is up."""

    def joined(self, session: Session) -> None:
        """Handle a session that has got another channel."""

    def ended(self, session: Session) -> None:
        """Handle the end of a session: its ``end_reason`` is set, and its port may be used again."""


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """Timeouts of a session, in seconds.

    :ivar idle: without input from the user; 0 means no limit
    :ivar ping_interval: without data from the user until a ping is sent
    :ivar ping_timeout: for the answer to a ping; also how long a guest may refuse input
    :ivar greeting: for the handshake with the user
    """

    idle: float
    ping_interval: float
    ping_timeout: float
    greeting: float


class Session:
    """A session and its channels: one channel, or with SPICE one for each websocket of its client.

    A session is created for one websocket that may become a channel; ``join`` adds another. For each of
    them, exactly one of ``connected`` and ``abandon`` is called, once.

    :param client: hash of its token, and the user's address
    :param observer: notified once when the session is open, and once when it has ended
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
        'serial_port',
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
        self.may_be_stored = False  # the managers may have a row for it, which must be closed
        self._observer = observer
        self._console: objects.ConsoleConnection | None = None
        self.user_id: str | None = None
        self.project_id: str | None = None
        self.limited = False
        # Number of the serial port, if it is not the token's own: first as the user has chosen it.
        self.serial_port: int | None = None
        # The next three are readings of the monotonic clock.
        self.granted_at: float | None = None
        self.ends_at: float | None = None
        self.asked_at = 0.0  # when the last successful open_session was sent
        self.asking: asyncio.Lock | None = None  # held while the managers are asked again
        self._interruptible: list[asyncio.Timeout] = []
        self._last_channel_reason: str | None = None
        self._bytes_in = 0  # of channels that have ended
        self._bytes_out = 0

    @property
    def client_address(self) -> str | None:
        """IP address of the user; None on a unix socket without a trusted proxy in front of it."""
        return self.client[1]

    @property
    def granted(self) -> bool:
        """Whether a manager has opened the session, so that its user and console are known."""
        return self._console is not None

    @property
    def console(self) -> objects.ConsoleConnection:
        """Console of the session.

        :raises RuntimeError: when no manager has opened the session
        """
        if self._console is None:
            raise RuntimeError(f'session {self.id} is not granted')
        return self._console

    def is_at(self, console: objects.ConsoleConnection) -> bool:
        """Return whether a console is the session's."""
        own = self.console
        return (own.instance_uuid, own.host, own.port) == (
            console.instance_uuid,
            console.host,
            console.port,
        )

    @property
    def was_open(self) -> bool:
        """Whether the session has or had a channel."""
        return bool(self.channels) or self._last_channel_reason is not None

    @property
    def seconds(self) -> float:
        """Seconds since a manager opened the session; 0 if none has."""
        return 0.0 if self.granted_at is None else time.monotonic() - self.granted_at

    @property
    def bytes_in(self) -> int:
        """Bytes from the user."""
        return self._bytes_in + sum(channel.bytes_in for channel in self.channels)

    @property
    def bytes_out(self) -> int:
        """Bytes to the user."""
        return self._bytes_out + sum(channel.bytes_out for channel in self.channels)

    # state changes

    def _fire(self, event: Event) -> None:
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise InvalidTransition(f'{event.value} in state {self.state.value}') from None

    def grant(self, granted: objects.ConsoleSession, now: float) -> None:
        """Store the answer of the manager that opened the session.

        :param now: reading of the monotonic clock
        """
        self._fire(Event.GRANTED)
        self._console = granted.console
        self.user_id, self.project_id = granted.user_id, granted.project_id
        self.limited = granted.limited
        self.serial_port = _port_number(granted.console.options.get('serial_port'))
        self.granted_at = now
        # Both times come from the database: our clock may be minutes off (doc/design.md, invariant 2).
        if granted.ends_at is not None:
            self.ends_at = now + (granted.ends_at - granted.connected_at).total_seconds()
        if granted.cut_reason is not None:
            self.end(granted.cut_reason)

    def join(self) -> None:
        """Count another websocket that may become a channel."""
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
        """Add the channel that a websocket has become."""
        first = self.state is State.CONNECTING
        self._fire(Event.CONNECTED)
        self.connecting -= 1
        self.channels.add(channel)
        self._observer.opened(self) if first else self._observer.joined(self)

    def abandon(self, reason: EndReason) -> None:
        """Discount a websocket that will not become a channel.

        :param reason: end reason of the session if this was its last websocket and it never had a channel
        """
        self.connecting -= 1
        self._release(reason)

    def channel_released(self, channel: Channel) -> None:
        """Remove a channel whose connection to the console is closed."""
        self.channels.discard(channel)
        self._bytes_in += channel.bytes_in
        self._bytes_out += channel.bytes_out
        self._last_channel_reason = channel.reason or EndReason.USER_LEFT
        self._release(EndReason.USER_LEFT)

    def _release(self, reason: EndReason) -> None:
        if self.channels or self.connecting:
            return  # a reloaded page opens its new websockets before the old ones have ended
        self._fire(Event.RELEASED)
        self.end_reason = self.end_reason or self._last_channel_reason or reason
        self._observer.ended(self)

    def end(self, reason: str) -> None:
        """End the session: close its channels, and let no websocket become one. The first reason counts."""
        self._fire(Event.END)
        self.end_reason = self.end_reason or reason
        while self._interruptible:
            self._interruptible.pop().reschedule(0.0)
        for channel in list(self.channels):
            channel.end(reason)

    # timeouts

    def check(self, timeouts: Timeouts, now: float) -> None:
        """Enforce the end time and the timeouts, and ping silent users.

        :param now: reading of the monotonic clock
        """
        if self.ends_at is not None and now >= self.ends_at:
            self.end(EndReason.TIME_OVER)
        elif timeouts.idle and self.channels and now - self._last_input() > timeouts.idle:
            self.end(EndReason.IDLE)
        for channel in list(self.channels):
            if channel.reason is None:
                _check_channel(channel, timeouts, now)

    def _last_input(self) -> float:
        return max(channel.last_input for channel in self.channels)


def _port_number(option: str | None) -> int | None:
    return int(option) if option and option.isascii() and option.isdigit() and len(option) <= 3 else None


def _check_channel(channel: Channel, timeouts: Timeouts, now: float) -> None:
    channel.note_progress()
    if channel.stalled is not None:
        # Nothing is read from the user either, so silence means nothing.
        if now - channel.stalled > timeouts.ping_timeout:
            channel.end(EndReason.GUEST_STALLED)
        return
    silent = now - channel.last_heard
    slow_to_greet = not channel.greeted and now - channel.began > timeouts.greeting
    if slow_to_greet or silent > timeouts.ping_interval + timeouts.ping_timeout:
        channel.end(EndReason.USER_LOST)
    elif silent > timeouts.ping_interval and channel.pinged is None:
        channel.ping()
