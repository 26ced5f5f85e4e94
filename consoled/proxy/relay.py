# SPDX-License-Identifier: Apache-2.0
"""One websocket and one connection to a guest's console, and the bytes between them.

The websocket's protocol (frames, control frames, closing) is the ``websockets`` library's, without its I/O.
Only the bulk of the data, from the guest to the user, has a shorter way: it is received behind room for a
frame's header, the header is put in front of it, and both are sent from where they are.

What a peer does not take is held for it once: no more is read for it until it has been taken.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import cast

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SEND_EOF, Protocol, Side

from consoled.proxy import close_codes
from consoled.proxy.input_filter import InputFilter
from consoled.proxy.security.base import Exchange, SecurityFailed

_HEADROOM = 10  # bytes of the longest header of a frame from a server (RFC 6455, section 5.2)
_CHUNK = 256 * 1024  # bytes read from a guest at a time
# Bytes read from a user at a time: frames may be as small as 6 bytes, and all users wait for one read's.
_USER_CHUNK = 16 * 1024
_MANY = 200  # frames in a read; of a user who sends that many less is read the next time
_FEW = 8  # times less
_TARGET_BUFFER = 64 * 1024  # bytes held for a guest before its user is not read any more
_USER_BUFFER = 64 * 1024  # the same for answers to a user's pings

_FIN_BINARY = 0x80 | Opcode.BINARY
_DATA = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)

# The library logs what it parses: keys that users press.
_SILENT = logging.Logger('consoled.proxy.websocket', level=logging.CRITICAL + 1)


class ReadBuffer:
    """The memory that a process reads into, shared by all its connections.

    It is used up before control goes back to the event loop. Where something of it could not be sent, it is
    left to the one who still needs it, and another one is made.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.memory = bytearray(_HEADROOM + _CHUNK)
        self.view = memoryview(self.memory)
        self.payload = self.view[_HEADROOM:]
        self.user = self.view[:_USER_CHUNK]

    def framed(self, length: int) -> memoryview:
        """The payload's first ``length`` bytes as one binary message."""
        if length < 126:
            start = _HEADROOM - 2
            struct.pack_into('!BB', self.memory, start, _FIN_BINARY, length)
        elif length < 65536:
            start = _HEADROOM - 4
            struct.pack_into('!BBH', self.memory, start, _FIN_BINARY, 126, length)
        else:
            start = _HEADROOM - 10
            struct.pack_into('!BBQ', self.memory, start, _FIN_BINARY, 127, length)
        return self.view[start : _HEADROOM + length]


def report_all_unsent(transport: asyncio.Transport) -> None:
    """Have a transport tell its protocol of every byte that could not be sent at once."""
    # To asyncio's TLS a limit of 0 is exceeded by nothing at all: it would pause at once, and for good.
    tls = transport.get_extra_info('sslcontext') is not None
    transport.set_write_buffer_limits(high=int(tls), low=0)


class Channel:
    """A websocket and its guest's console.

    :param user: the user's transport, after the 101
    :param target: the transport to the console, after all handshakes with the hypervisor, not being read
    :param rest: what the console has sent beyond them
    :param greeting: a handshake with the user that comes first, or None
    :param input_filter: at what the user sends
    :param released: called with the channel once the connection to the console is closed
    :param closed: called once both connections are
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
        rest: bytes = b'',
        released: Callable[[Channel], None],
        closed: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._user = user
        self._target = target
        self._read_buffer = read_buffer
        self._socket = Protocol(Side.SERVER, state=OPEN, max_size=max_message_size, logger=_SILENT)
        self._looks = input_filter
        self._greeting = greeting
        self._rest = rest
        self._close_timeout = close_timeout
        self._released = released
        self._closed = closed
        self._open = {user, target}  # connections that are not closed yet
        self._abort: asyncio.TimerHandle | None = None
        self._unsent: dict[asyncio.Transport, int] = {}  # bytes, when the end began
        self._held = self._held_for_guest = 0  # bytes, when they were looked at last
        self.room = _USER_CHUNK  # bytes that are read of the user at a time
        self._unread = False  # the user does not take what it asks for with pings, and may ask no more
        self.reason: str | None = None
        self.bytes_in = 0  # from the user
        self.bytes_out = 0  # to the user
        now = self._loop.time()
        self.began = now
        self.last_heard = now  # anything from the user
        self.last_input = now  # something that the user did
        self.pinged: float | None = None
        self.stalled: float | None = None  # since when the guest takes no more input

    @property
    def greeted(self) -> bool:
        """Whether the handshake with the user is over."""
        return self._greeting is None

    def start(self, early: bytes) -> None:
        """Begin.

        :param early: what the user has sent already
        """
        report_all_unsent(self._user)  # see ReadBuffer
        self._target.set_write_buffer_limits(high=_TARGET_BUFFER)
        self._user.set_protocol(_UserSide(self, self._read_buffer))
        self._target.set_protocol(_TargetSide(self, self._read_buffer))
        self._user.resume_reading()
        if self._greeting is not None:
            self._send(self._greeting.start())
        else:
            self._begin()
        if early:
            self.user_data(early)

    def look(self) -> None:
        """Who takes what was sent gives a sign of life, however slowly: a user, a guest with a slow line."""
        for_user, for_guest = self._user.get_write_buffer_size(), self._target.get_write_buffer_size()
        now = self._loop.time()
        if for_user < self._held:
            self.last_heard = now
        if self.stalled is not None and for_guest < self._held_for_guest:
            self.stalled = now
        self._held, self._held_for_guest = for_user, for_guest

    def _begin(self) -> None:
        self._greeting = None
        if self._rest:
            self._send(self._rest)
            self._rest = b''
        if self._target in self._open and not self._user.get_write_buffer_size():
            self._target.resume_reading()

    # from the guest to the user

    def target_data(self, length: int) -> None:
        """``length`` bytes are in the read buffer's payload."""
        if self._socket.state is not OPEN:
            return
        self.bytes_out += length
        self._user.write(self._read_buffer.framed(length))
        if self._user.get_write_buffer_size():
            self._read_buffer.renew()

    def _send(self, data: bytes) -> None:
        if data and self._socket.state is OPEN:
            self.bytes_out += len(data)
            self._socket.send_binary(data)
            self._flush()

    def _flush(self) -> None:
        waiting = self._socket.data_to_send()
        if data := b''.join(waiting):
            self._user.write(data)
            if self._user.get_write_buffer_size() > _USER_BUFFER:
                self._unread = True
                self._user.pause_reading()
        if SEND_EOF in waiting:
            self._close_user()

    def user_full(self) -> None:
        self._target.pause_reading()

    def user_drained(self) -> None:
        self.last_heard = self._loop.time()
        self._unread = False
        if self.greeted:
            self._target.resume_reading()
        self._read_user()

    def _read_user(self) -> None:
        if self.stalled is None and not self._unread:
            self._user.resume_reading()

    # from the user to the guest

    def user_data(self, data: bytes | memoryview) -> None:
        self.last_heard = self._loop.time()
        self.pinged = None
        self._socket.receive_data(cast(bytes, data))
        self._flush()
        frames = self._socket.events_received()
        self.room = _USER_CHUNK if len(frames) < _MANY else _USER_CHUNK // _FEW
        payload = [frame.data for frame in frames if isinstance(frame, Frame) and frame.opcode in _DATA]
        if payload:
            self._forward(bytes(payload[0]) if len(payload) == 1 else b''.join(payload))
        if self._socket.parser_exc is not None:
            too_big = isinstance(self._socket.parser_exc, PayloadTooBig)
            self.end(close_codes.TOO_BIG if too_big else close_codes.PROTOCOL_ERROR)
        elif self._socket.close_rcvd is not None:
            self.end(close_codes.USER_LEFT)

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
            data, by_the_user = self._looks.feed(data)
        except SecurityFailed as exc:
            self._send(exc.farewell)
            self.end(close_codes.PROTOCOL_ERROR)
            return
        if by_the_user:
            self.last_input = self.last_heard
        if data and not self._target.is_closing():
            self._target.write(data)

    def target_full(self) -> None:
        self.stalled = self._loop.time()
        self._user.pause_reading()

    def target_drained(self) -> None:
        self.stalled = None
        self._read_user()

    # the end

    def ping(self) -> None:
        """Ask the user for a sign of life."""
        if self._socket.state is OPEN and not self._user.get_write_buffer_size():
            self.pinged = self._loop.time()
            self._socket.send_ping(b'')
            self._flush()

    def user_lost(self) -> None:
        self.end(close_codes.USER_LEFT)
        self._lost(self._user)

    def target_lost(self) -> None:
        self.end(close_codes.GUEST_CLOSED)
        self._lost(self._target)
        self._released(self)

    def end(self, reason: str) -> None:
        """Tell the user why, and close both connections once they have taken what was sent to them."""
        if self.reason is not None:
            return
        self.reason = reason
        how = close_codes.closing_of(reason)
        if self._socket.state is OPEN:
            self._socket.send_close(how.code, how.text)
            self._flush()
        if self._socket.state is not OPEN and self._socket.close_rcvd is not None:
            self._close_user()
        self._user.resume_reading()  # the user's answer to the closing
        if reason == close_codes.LEASE_LOST:  # its port may soon be somebody else's
            self._target.abort()
        elif not self._target.is_closing():
            self._target.close()
        self._unsent = {transport: transport.get_write_buffer_size() for transport in self._open}
        self._abort = self._loop.call_later(self._close_timeout, self._give_up)

    def _close_user(self) -> None:
        if not self._user.is_closing():  # asyncio's TLS does not bear to be closed twice
            self._user.close()

    def _give_up(self) -> None:
        """End for good what does not take any more of what it was sent."""
        taking = False
        for transport in list(self._open):  # asyncio's do not bear to be aborted when they are closed
            waiting = transport.get_write_buffer_size()
            if 0 < waiting < self._unsent[transport]:
                self._unsent[transport] = waiting
                taking = True
            else:
                transport.abort()
        if taking:
            self._abort = self._loop.call_later(self._close_timeout, self._give_up)

    def _lost(self, transport: asyncio.Transport) -> None:
        self._open.discard(transport)
        if not self._open:
            if self._abort is not None:
                self._abort.cancel()
            self._closed()


class _UserSide(asyncio.BufferedProtocol):
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
        self._channel.end(close_codes.USER_LEFT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.user_lost()


class _TargetSide(asyncio.BufferedProtocol):
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
        self._channel.end(close_codes.GUEST_CLOSED)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.target_lost()
