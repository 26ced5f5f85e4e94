# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of channels: an event loop that does not wait, and connections in memory."""

import asyncio
import logging
import selectors
import time

from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side

from consoled.proxy.input_filter import AllowAll
from consoled.proxy.read_buffer import ReadBuffer
from consoled.proxy.relay import Channel

CLOSE_TIMEOUT = 3.0
PLENTY = 10**9
SILENT = logging.Logger('user', level=logging.CRITICAL + 1)


# --- the event loop ---


class JumpingSelector(selectors.DefaultSelector):
    """Selector that advances a clock by the timeout instead of waiting."""

    def __init__(self):
        super().__init__()
        self.now = time.monotonic()  # some of the code under test reads the real clock

    def select(self, timeout=None):
        if timeout is None:
            raise AssertionError('deadlock: no callback and no timer is scheduled')
        self.now += max(timeout, 0)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Event loop whose clock jumps to the next timer."""

    def __init__(self):
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self):
        return self.selector.now


def run(work):
    """Run a coroutine function in a jumping loop. An error in a callback fails the test."""
    errors = []

    async def guarded():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        await work()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(guarded())
    if errors:
        raise AssertionError(errors)


async def settle():
    """Run the callbacks that are due, without advancing the clock."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- connections ---


class Transport(asyncio.Transport):
    """Transport in memory that behaves like those of asyncio's selector loop.

    Data that cannot be sent at once is kept as views, as from Python 3.12 on. A change of the memory behind
    them before it is sent therefore corrupts ``received``, and the test fails.

    :ivar room: bytes that the peer's kernel accepts before the peer has to read
    :ivar received: bytes that the peer has accepted
    """

    def __init__(self, room=PLENTY):
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.room = room
        self.received = bytearray()
        self.reading = False
        self.lost = False  # ``connection_lost`` was called, or is scheduled
        self.lost_calls = 0
        self._inbox = bytearray()
        self._ended = False
        self._unsent = []
        self._closing = False
        self._writing_paused = False
        self._high, self._low = 64 * 1024, 16 * 1024
        self._protocol = None

    # asyncio.Transport

    def set_protocol(self, protocol):
        self._protocol = protocol

    def get_protocol(self):
        return self._protocol

    def set_write_buffer_limits(self, high=None, low=None):
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        assert high >= low >= 0
        self._high, self._low = high, low
        self._maybe_pause()

    def get_write_buffer_size(self):
        return sum(map(len, self._unsent))

    def pause_reading(self):
        if not self._closing:
            self.reading = False

    def resume_reading(self):
        if not self._closing:
            self.reading = True

    def is_reading(self):
        return self.reading

    def write(self, data):
        if not data or self.lost:
            return
        view = memoryview(data)
        if not self._unsent:
            view = view[self._take(view) :]
        if view:
            self._unsent.append(view)
            self._maybe_pause()

    def is_closing(self):
        return self._closing

    def close(self):
        if self._closing:
            return
        self._closing = True
        self.reading = False
        if not self._unsent:
            self._lose()

    def abort(self):
        self._closing = True
        self.reading = False
        self._unsent.clear()
        self._lose()

    def _lose(self):
        if not self.lost:
            self.lost = True
            self._loop.call_soon(self._call_connection_lost)

    def _call_connection_lost(self):
        self.lost_calls += 1
        self._protocol.connection_lost(None)

    def _take(self, view):
        taken = min(self.room, len(view))
        self.received += view[:taken]
        self.room -= taken
        return taken

    def _maybe_pause(self):
        if self.get_write_buffer_size() > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    # actions of the peer

    def takes(self, size=PLENTY):
        """Let the peer read ``size`` more bytes."""
        self.room += size
        while self._unsent and self.room:
            view = self._unsent[0]
            taken = self._take(view)
            self._unsent[0] = view[taken:]
            if not self._unsent[0]:
                del self._unsent[0]
        if self._writing_paused and self.get_write_buffer_size() <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._closing and not self._unsent:
            self._lose()

    def sends(self, data):
        """Send data from the peer. It arrives as soon as reading is not paused."""
        self._inbox += data
        self.pump()

    def pump(self):
        """Deliver the data that the peer has sent, if reading is not paused; return whether there was any."""
        moved = False
        while self._inbox and self.reading:
            buffer = self._protocol.get_buffer(-1)
            size = min(len(buffer), len(self._inbox))
            buffer[:size] = self._inbox[:size]
            del self._inbox[:size]
            del buffer
            self._protocol.buffer_updated(size)
            moved = True
        if self._ended and self.reading and not self._protocol.eof_received():
            self.close()
        return moved

    def ends(self):
        """Send EOF from the peer. It arrives after the data that was sent before."""
        self._ended = True
        self.pump()

    def fails(self):
        """Break the connection."""
        self.abort()


class Wire:
    """A channel with a user and a guest.

    :ivar user: transport of the channel to the user
    :ivar guest: transport of the channel to the guest's console
    :ivar client: protocol of the user's websocket
    :ivar messages: payloads of the data frames that the user has received
    :ivar control: control frames that the user has received
    """

    def __init__(
        self, read_buffer=None, *, user_room=PLENTY, guest_room=PLENTY, max_size=2**20, early=b'', **values
    ):
        self.user, self.guest = Transport(user_room), Transport(guest_room)
        self.client = Protocol(Side.CLIENT, max_size=None, logger=SILENT)
        self.released, self.closed = [], 0
        self._read = 0
        self.messages = []
        self.control = []
        self.channel = Channel(
            self.user,
            self.guest,
            read_buffer or ReadBuffer(),
            max_message_size=max_size,
            close_timeout=CLOSE_TIMEOUT,
            input_filter=values.pop('input_filter', AllowAll()),
            released=self.released.append,
            closed=self._count_closed,
            **values,
        )
        self.channel.start(early)

    def _count_closed(self):
        self.closed += 1

    def send(self, data, **values):
        """Send a message from the user, or a fragment of one."""
        self.client.send_binary(data, **values)
        self.flush()

    def flush(self):
        """Send what the user's websocket has queued."""
        for data in self.client.data_to_send():
            if data:
                self.user.sends(data)

    def receive(self):
        """Let the user's websocket process what has arrived, and answer it; return all payloads so far."""
        self.client.receive_data(bytes(self.user.received[self._read :]))
        self._read = len(self.user.received)
        for frame in self.client.events_received():
            if frame.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                self.messages.append(bytes(frame.data))
            else:
                self.control.append(frame)
        self.flush()
        return b''.join(self.messages)

    def close_frames(self):
        """Return the close frames that the user has received."""
        self.receive()
        return [Close.parse(bytes(frame.data)) for frame in self.control if frame.opcode is Opcode.CLOSE]

    def transfer_all(self):
        """Let both peers send and read until nothing moves; return all payloads that the user received."""
        moved = True
        while moved:
            before = len(self.user.received), len(self.guest.received)
            self.user.takes()
            self.guest.takes()
            moved = self.user.pump() | self.guest.pump()
            moved = moved or before != (len(self.user.received), len(self.guest.received))
        return self.receive()


def masked(opcode, data, *, fin=True, mask=True):
    """Return a frame as a user sends it."""
    return Frame(opcode, data, fin).serialize(mask=mask)
