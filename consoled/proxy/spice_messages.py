# SPDX-License-Identifier: Apache-2.0
"""Messages of a SPICE client: which of them are input of its user. No I/O.

A client acknowledges what the server sends and answers its pings, on each channel and without its user. The
guest decides how much the server sends. So only keys, pointer movements and buttons on the inputs channel are
input. Lengths and numbers are from spice-protocol (``spice/protocol.h``, ``spice/enums.h``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

_MAGIC = b'REDQ'
_LINK_HEADER = struct.Struct('<4s8xI')  # magic, version, size of the link message
_LINK = struct.Struct('<4xBxIII')  # channel type, numbers of common and channel capabilities, their offset
_MAX_LINK = 4096  # bytes of a link message, as in the server
_AUTH_SELECTION, _MINI_HEADER = 1 << 0, 1 << 3  # common capabilities
_AUTH_SPICE = b'\x01\0\0\0'
_PASSWORD = 128  # bytes: encrypted with RSA-1024
_MINI = struct.Struct('<HI')  # type, size
_FULL = struct.Struct('<8xHI4x')  # serial number, type, size, sub-messages

_INPUTS = 3  # channel type
# Pressed and released keys, scan codes, pointer, buttons. Not 103: a client may set the locks by itself.
_INPUT = frozenset((101, 102, 104, 111, 112, 113, 114))


class _Unknown(Exception):
    """The stream is not what this module knows."""


class SpiceInput:
    """Input filter on what one channel of a SPICE client sends: forwards everything, and finds input.

    The server's capabilities are not seen here. Those that matter are in each server since 2012. After
    anything unknown all data counts as input, so that no active user is considered idle.
    """

    __slots__ = ('_auth_selection', '_has_inputs', '_head', '_header', '_lost', '_next', '_size', '_skip')

    def __init__(self) -> None:
        self._lost = False
        self._skip = 0  # bytes of the body in progress that are still to come
        self._head = b''  # what there is of the part that ``_next`` takes
        self._has_inputs = self._auth_selection = False
        self._header = _FULL
        self._expect(_LINK_HEADER.size, self._link_header)

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return ``data``, and whether a message of input begins in it."""
        try:
            return data, bool(data) if self._lost else self._parse(data)
        except _Unknown:
            self._lost = True
            self._head = b''
            return data, True

    def _parse(self, data: bytes) -> bool:
        found = False
        at = min(self._skip, len(data))
        self._skip -= at
        while at < len(data):
            end = at + self._size - len(self._head)
            self._head += data[at:end]
            if len(self._head) < self._size:
                break
            part, self._head = self._head, b''
            found = self._next(part) or found
            at = end + self._skip
            self._skip = max(0, at - len(data))
        return found

    def _expect(self, size: int, then: Callable[[bytes], bool]) -> None:
        self._size, self._next = size, then

    def _link_header(self, part: bytes) -> bool:
        magic, size = _LINK_HEADER.unpack(part)
        if magic != _MAGIC or not _LINK.size <= size <= _MAX_LINK:
            raise _Unknown
        self._expect(size, self._link)
        return False

    def _link(self, part: bytes) -> bool:
        channel, common, _, offset = _LINK.unpack_from(part)
        capabilities = int.from_bytes(part[offset : offset + 4], 'little') if common else 0
        self._has_inputs = channel == _INPUTS
        self._auth_selection = bool(capabilities & _AUTH_SELECTION)
        self._header = _MINI if capabilities & _MINI_HEADER else _FULL
        self._expect(_PASSWORD + 4 * self._auth_selection, self._password)
        return False

    def _password(self, part: bytes) -> bool:
        if self._auth_selection and not part.startswith(_AUTH_SPICE):  # SASL
            raise _Unknown
        self._expect(self._header.size, self._message)
        return False

    def _message(self, part: bytes) -> bool:
        number, self._skip = self._header.unpack(part)
        if not 0 < number < 256:
            raise _Unknown
        return self._has_inputs and number in _INPUT
