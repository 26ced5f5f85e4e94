# SPDX-License-Identifier: Apache-2.0
"""Relay between one websocket and one connection to a guest's console.

The protocol core of the ``websockets`` library, without its I/O, handles frames, control frames and the
closing handshake. What a user sends is forwarded as it comes, also in the middle of a frame (``fragments``).
Data from the guest to the user, which is the bulk, takes a shorter path: it is received into a buffer with
room for a frame header in front, the header is written there, and both are sent without a copy.

Back-pressure: data that a peer does not accept is buffered once, and nothing more is read for that peer until
it has accepted the data. A client that cannot stop reading acknowledges instead (``flow``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN, SEND_EOF

from consoled.objects import EndReason
from consoled.proxy import close_codes
from consoled.proxy.flow import Window
from consoled.proxy.fragments import Fragmenter
from consoled.proxy.input_filter import InputFilter
from consoled.proxy.read_buffer import USER_CHUNK, ReadBuffer, report_all_unsent
from consoled.proxy.security.base import Exchange, SecurityFailed
from consoled.proxy.user_socket import UserSocket

_MANY_FRAMES = 200  # after a read with this many frames, less is read from the user at a time
_SHORTER = 8  # factor by which less is read
_TARGET_BUFFER = 16 * 1024  # bytes buffered for a guest before reading from its user pauses
_LEAVE_TIMEOUT = 0.5  # seconds that a guest has to read what is left for it and to close its console
_MAX_DROPPED = 8 * 1024 * 1024  # bytes read from a guest after the end until it is cut off
_USER_BUFFER = 16 * 1024  # bytes of replies to a user's pings before reading from that user pauses

_DATA = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)


class Channel:
    """A websocket and the connection to its console.

    :param user: transport to the user, after the 101
    :param target: transport to the console, after all handshakes with the hypervisor; its reading is paused
    :param max_message_size: limit on a message from the user, in bytes
    :param close_timeout: seconds that a peer may take to accept the data that is left for it
    :param input_filter: filter for the data that the user sends
    :param greeting: handshake with the user that comes first, or None
    :param window: what the user has to acknowledge; None if its websocket holds the guest back by itself
    :param rest: data that the console sent after its handshakes
    :param released: called once, with the channel, when the connection to the console is closed
    :param closed: called once when both connections are closed
    :ivar reason: end reason; None while the channel has not ended
    """

    def __init__(
        self,
        user: asyncio.Transport,
        target: asyncio.Transport,
        read_buffer: ReadBuffer,
        *,
        max_message_size: int,
        close_timeout: float,
        input_filter: InputFilter,
        greeting: Exchange | None = None,
        window: Window | None = None,
        rest: bytes = b'',
        released: Callable[[Channel], None],
        closed: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._user = user
        self._target = target
        self._read_buffer = read_buffer
        self._socket = UserSocket(max_message_size)
        self._fragmenter = Fragmenter(max_message_size)
        self._input_filter = input_filter
        self._greeting = greeting
        self._window = window
        self._rest = rest
        self._close_timeout = close_timeout
        self._released = released
        self._closed = closed
        self._open = {user, target}  # connections that are not closed yet
        self._giving_up: dict[asyncio.Transport, asyncio.TimerHandle] = {}
        self._unsent_to_user = self._unsent_to_guest = 0  # bytes, at the last ``note_progress``
        self.room = USER_CHUNK  # bytes read from the user at a time
        self._waits = False  # the user has data to accept
        self._flooding = False  # reading from the user is paused: it does not read the replies to its pings
        self._dropped = 0  # bytes from the guest after the end
        self.reason: str | None = None
        self.bytes_in = 0  # from the user
        self.bytes_out = 0  # to the user
        now = self._loop.time()
        self.began = now
        self.last_heard = now  # when the user last sent or accepted anything
        self.last_input = now  # when the user last sent input, such as a key
        self.pinged: float | None = None  # when a ping was sent that is not answered yet
        self.stalled: float | None = None  # when the guest stopped accepting input; None: it accepts it

    @property
    def greeted(self) -> bool:
        """Whether the handshake with the user is complete, or none is needed."""
        return self._greeting is None

    def start(self, early: bytes) -> None:
        """Start relaying.

        :param early: data that the user has already sent
        """
        report_all_unsent(self._user)  # see ReadBuffer
        self._target.set_write_buffer_limits(high=_TARGET_BUFFER)
        self._user.set_protocol(_UserProtocol(self, self._read_buffer))
        self._target.set_protocol(_TargetProtocol(self, self._read_buffer))
        self._user.resume_reading()
        if self._greeting is not None:
            self._send(self._greeting.start())
        else:
            self._begin()
        if early:
            self.user_data(early)

    def note_progress(self) -> None:
        """Note whether the peers have accepted buffered data: one that does is alive, however slow it is."""
        for_user, for_guest = self._user.get_write_buffer_size(), self._target.get_write_buffer_size()
        now = self._loop.time()
        if for_user < self._unsent_to_user:
            self.last_heard = now
        if self.stalled is not None and for_guest < self._unsent_to_guest:
            self.stalled = now
        if self.stalled is not None and self._window is not None:
            self._window.renew()
            self._read_target()
        self._unsent_to_user, self._unsent_to_guest = for_user, for_guest

    def _begin(self) -> None:
        self._greeting = None
        if self._rest:
            self._send(self._rest)
            self._rest = b''
        self._read_target()

    # from the guest to the user

    def target_data(self, length: int) -> None:
        """Forward ``length`` bytes in the read buffer's payload."""
        if self._socket.state is not OPEN:
            self._dropped += length
            if self._dropped > _MAX_DROPPED:
                self._target.abort()
            return
        self._user.write(self._read_buffer.framed(length))
        if self._user.get_write_buffer_size():
            self._read_buffer.renew()
        self._count_sent(length)

    def _send(self, data: bytes) -> None:
        if data and self._socket.state is OPEN:
            self._socket.send_binary(data)
            self._flush()
            self._count_sent(len(data))

    def _count_sent(self, length: int) -> None:
        self.bytes_out += length
        if self._window is not None:
            self._window.sent(length)
            if self._window.full:
                self._target.pause_reading()

    def _read_target(self) -> None:
        held_back = self._user.get_write_buffer_size() or (self._window is not None and self._window.full)
        if self.greeted and self._target in self._open and not held_back:
            self._target.resume_reading()

    def _flush(self) -> None:
        waiting = self._socket.data_to_send()
        if data := b''.join(waiting):
            self._user.write(data)
            if self._user.get_write_buffer_size() > _USER_BUFFER:
                self._flooding = True
                self._user.pause_reading()
        if SEND_EOF in waiting:
            self._close_user()

    def user_full(self) -> None:
        self._set_waits(True)
        if self.reason is None:  # after the end, reading the target notices that it is closed
            self._target.pause_reading()

    def user_drained(self) -> None:
        self.last_heard = self._loop.time()
        self._set_waits(False)
        self._flooding = False
        self._read_target()
        self._read_user()

    def _set_waits(self, waits: bool) -> None:
        self._read_buffer.waiting += waits - self._waits
        self._waits = waits

    def _read_user(self) -> None:
        if self.stalled is None and not self._flooding:
            self._user.resume_reading()

    # from the user to the guest

    def user_data(self, data: bytes | memoryview) -> None:
        self.last_heard = self._loop.time()
        self.pinged = None
        self._socket.receive_data(cast(bytes, self._fragmenter.feed(data)))
        if self._fragmenter.violation is not None:
            self._socket.fail(CloseCode.PROTOCOL_ERROR, self._fragmenter.violation)
        self._flush()
        frames = self._socket.events_received()
        self.room = USER_CHUNK if len(frames) < _MANY_FRAMES else USER_CHUNK // _SHORTER
        payload = [frame.data for frame in frames if isinstance(frame, Frame) and self._is_data(frame)]
        if payload and self.reason is None:
            self._forward(bytes(payload[0]) if len(payload) == 1 else b''.join(payload))
        if self._socket.parser_exc is not None:
            too_big = isinstance(self._socket.parser_exc, PayloadTooBig)
            self.end(EndReason.MESSAGE_TOO_BIG if too_big else EndReason.PROTOCOL_ERROR)
        elif self._socket.close_rcvd is not None:
            self.end(EndReason.USER_LEFT)
        elif self._fragmenter.violation is not None:
            self.end(EndReason.PROTOCOL_ERROR)

    def _is_data(self, frame: Frame) -> bool:
        """Return whether the frame has data for the guest; take it if it is an acknowledgement."""
        if frame.opcode not in _DATA or self._window is None:
            return frame.opcode in _DATA
        try:
            if not self._window.take(frame):
                return True
            self._read_target()
        except ValueError:
            self.end(EndReason.PROTOCOL_ERROR)
        return False

    def _forward(self, data: bytes) -> None:
        self.bytes_in += len(data)
        try:
            if self._greeting is not None:
                answer = self._greeting.receive(data)
                self._send(answer)
                if not self._greeting.done:
                    return
                data = self._greeting.rest()
                self._begin()
            data, is_input = self._input_filter.feed(data)
        except SecurityFailed as exc:
            self._send(exc.farewell)
            self.end(EndReason.PROTOCOL_ERROR)
            return
        if is_input:
            self.last_input = self.last_heard
        if data and self.reason is None and not self._target.is_closing():
            self._target.write(data)

    def target_full(self) -> None:
        self.stalled = self._loop.time()
        self._user.pause_reading()

    def target_drained(self) -> None:
        self.stalled = None
        self._read_user()

    # the end

    def ping(self) -> None:
        """Send a ping, unless the user has yet to accept other data."""
        if self._socket.state is OPEN and not self._user.get_write_buffer_size():
            self.pinged = self._loop.time()
            self._socket.send_ping(b'')
            self._flush()

    def user_lost(self) -> None:
        self.end(EndReason.USER_LEFT)
        self._set_waits(False)
        self._lost(self._user)

    def target_lost(self) -> None:
        self.end(EndReason.GUEST_CLOSED)
        self._lost(self._target)
        self._released(self)

    def end(self, reason: str) -> None:
        """Send the user a close frame, and close both connections once their peers have accepted all data.

        The first reason counts. But without a lease the connection to the console is aborted at any time: its
        slot may soon be another user's (design.md, invariant 4).
        """
        if self.reason is not None:
            if reason == EndReason.LEASE_LOST and self._target in self._open:
                self._target.abort()
            return
        self.reason = reason
        ending = close_codes.ending(reason)
        if self._socket.state is OPEN:
            self._socket.send_close(ending.code, ending.text)
            self._flush()
        if self._socket.state is not OPEN and self._socket.close_rcvd is not None:
            self._close_user()
        self._user.resume_reading()  # to receive the user's close frame
        if reason == EndReason.LEASE_LOST:
            self._target.abort()
        elif not self._target.is_closing():
            self._leave_target()
        for transport, seconds in ((self._user, self._close_timeout), (self._target, _LEAVE_TIMEOUT)):
            if transport in self._open:
                self._give_up_later(transport, seconds)

    def _leave_target(self) -> None:
        """End the stream to the guest, and wait until it ends its own: then it has read everything.

        A guest that does not read its serial port keeps QEMU from seeing the end, and the port stays taken.
        QEMU does see the reset that follows, when the connection is aborted (``targets``).
        """
        if not self._target.can_write_eof():  # TLS has an end of its own, which asyncio waits for
            self._target.close()
            return
        try:
            self._target.write_eof()
        except OSError:  # the connection is broken, which asyncio has not noticed yet
            self._target.abort()
        self._target.resume_reading()

    def _close_user(self) -> None:
        if not self._user.is_closing():  # closing it twice breaks asyncio's TLS transport
            self._user.close()

    def _give_up_later(self, transport: asyncio.Transport, seconds: float) -> None:
        waiting = transport.get_write_buffer_size()
        self._giving_up[transport] = self._loop.call_later(
            seconds, self._give_up, transport, seconds, waiting
        )

    def _give_up(self, transport: asyncio.Transport, seconds: float, before: int) -> None:
        """Abort the connection, unless its peer has accepted some of the ``before`` bytes that were left."""
        if transport.get_write_buffer_size() < before:
            self._give_up_later(transport, seconds)
        else:
            transport.abort()

    def _lost(self, transport: asyncio.Transport) -> None:
        self._open.discard(transport)  # asyncio's transports must not be aborted once they are closed
        if (timer := self._giving_up.pop(transport, None)) is not None:
            timer.cancel()
        if not self._open:
            self._closed()


class _UserProtocol(asyncio.BufferedProtocol):
    def __init__(self, channel: Channel, read_buffer: ReadBuffer) -> None:
        self._channel = channel
        self._read_buffer = read_buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read_buffer.user[: self._channel.room]

    def buffer_updated(self, nbytes: int) -> None:
        self._channel.user_data(self._read_buffer.user[:nbytes])

    def pause_writing(self) -> None:
        self._channel.user_full()

    def resume_writing(self) -> None:
        self._channel.user_drained()

    def eof_received(self) -> None:
        self._channel.end(EndReason.USER_LEFT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.user_lost()


class _TargetProtocol(asyncio.BufferedProtocol):
    def __init__(self, channel: Channel, read_buffer: ReadBuffer) -> None:
        self._channel = channel
        self._read_buffer = read_buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read_buffer.payload

    def buffer_updated(self, nbytes: int) -> None:
        self._channel.target_data(nbytes)

    def pause_writing(self) -> None:
        self._channel.target_full()

    def resume_writing(self) -> None:
        self._channel.target_drained()

    def eof_received(self) -> None:
        self._channel.end(EndReason.GUEST_CLOSED)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.target_lost()
