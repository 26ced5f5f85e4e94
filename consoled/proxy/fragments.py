# SPDX-License-Identifier: Apache-2.0
"""Fragmenting of a user's websocket frames, so that no incomplete payload is kept in memory. No I/O."""

from __future__ import annotations

import struct

_FIN, _OPCODE, _CONTROL = 0x80, 0x0F, 0x08  # bits of the first byte of a frame (RFC 6455, section 5.2)
_KIND, _LAST_KIND = 0x07, 2  # of the opcode: text, binary; close, ping and pong; above that, it is unknown
_MASKED, _LENGTH = 0x80, 0x7F  # bits of the second
_SHORTEST = 6  # bytes of the shortest header of a masked frame
_MAX_CONTROL = 125  # bytes of payload of a control frame (section 5.5)

_Bytes = bytes | memoryview


class Fragmenter:
    """Splits the data frames of a user's stream where the stream has been received up to.

    A parser hands a frame over when it is complete, so a frame that is left incomplete fills memory for as
    long as its sender likes. What is here of its payload is therefore made a fragment of its own, as an
    intermediary may do if no extension is in use (RFC 6455, section 5.4). Nothing is checked here that the
    parser checks, except what it would check too late: the length of control frames.

    :param max_size: limit on a message, in bytes. A frame that exceeds it is passed on as it is, like one
        without a mask or of an unknown kind: the parser refuses it for its header
    :ivar violation: what is wrong with the stream, if the parser must not see the rest of it; None: nothing
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._message = 0  # bytes of the message in progress
        self._head = b''  # of a frame whose header is incomplete
        self._first = 0  # first byte of the next fragment of the data frame in progress
        self._mask = b''  # of the data frame in progress; b'' in a control frame
        self._left = 0  # bytes of the payload in progress that are still to come
        self._verbatim = False
        self.violation: str | None = None

    def feed(self, data: _Bytes) -> _Bytes:
        """Return received data in a form in which each data frame that has begun is complete."""
        if self.violation is not None:
            return b''
        if self._verbatim:
            return data
        if self._head:
            data, self._head = self._head + bytes(data), b''
        at = min(self._left, len(data))
        done = [self._continue(data[:at])] if at else []
        begin = at  # of the frames that are passed on as they are
        while at < len(data):
            size = self._begin(data, at)
            if at + size > len(data):
                break
            at += size
        if not done and at == len(data):
            return data
        done.append(data[begin:at])
        if at < len(data):
            done.append(self._tail(data, at))
        return b''.join(done)

    def _tail(self, data: _Bytes, at: int) -> _Bytes:
        """Return what can be passed on of the incomplete frame that begins at ``data[at]``."""
        if self._verbatim:
            return data[at:]
        if self.violation is not None:
            return b''
        header = _header_size(data, at)
        here = len(data) - at - header
        if here < 0:
            self._head = bytes(data[at:])
            return b''
        self._left = _payload_size(data, at)
        self._first = data[at]
        if self._first & _CONTROL:
            self._mask = b''
            self._left -= here
            return data[at:]
        self._mask = bytes(data[at + header - 4 : at + header])
        return self._continue(data[at + header :])

    def _begin(self, data: _Bytes, at: int) -> int:
        """Return the size of the frame that begins at ``data[at]``, or more than there is to stop there."""
        beyond = len(data) + 1
        if len(data) - at < 2:
            return beyond
        first, second = data[at], data[at + 1]
        if not second & _MASKED or first & _KIND > _LAST_KIND:
            self._verbatim = True
            return beyond
        header, length = _SHORTEST, second & _LENGTH
        if length > _MAX_CONTROL:
            header = _header_size(data, at)
        if len(data) - at < header:
            return beyond
        if length > _MAX_CONTROL:
            length = _payload_size(data, at)
        if first & _CONTROL:
            if length > _MAX_CONTROL:
                self.violation = 'control frame too long'
                return beyond
        else:
            message = length if first & _OPCODE else self._message + length
            self._message = 0 if first & _FIN else message
            if message > self._max_size:
                self._verbatim = True
                return beyond
        return header + length

    def _continue(self, payload: _Bytes) -> _Bytes:
        """Return more of the payload in progress, in a data frame as a fragment."""
        self._left -= len(payload)
        if not self._mask or not payload:
            return payload
        first = self._first & ~_FIN if self._left else self._first
        fragment = _header(first, len(payload)) + self._mask + bytes(payload)
        self._first &= _FIN  # with the opcode of a continuation, 0
        turn = len(payload) % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        return fragment


def _header_size(data: _Bytes, at: int) -> int:
    """Return the size of a masked frame's header; the shortest if its first two bytes are not here."""
    if len(data) - at < 2:
        return _SHORTEST
    return _SHORTEST + {126: 2, 127: 8}.get(data[at + 1] & _LENGTH, 0)


def _payload_size(data: _Bytes, at: int) -> int:
    length = data[at + 1] & _LENGTH
    if length < 126:
        return length
    return int.from_bytes(data[at + 2 : at + (4 if length == 126 else 10)], 'big')


def _header(first: int, length: int) -> bytes:
    """Return the header of a masked frame, up to its mask."""
    if length < 126:
        return struct.pack('!BB', first, _MASKED | length)
    if length < 65536:
        return struct.pack('!BBH', first, _MASKED | 126, length)
    return struct.pack('!BBQ', first, _MASKED | 127, length)
