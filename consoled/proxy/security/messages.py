# SPDX-License-Identifier: Apache-2.0
"""Filter on the messages that a user's RFB client sends after the security handshake, without I/O.

Message lengths are from RFC 6143, sections 7.3.1 and 7.5, and, for extensions, from the community's
specification (rfbproto.rst). The reference client is noVNC 1.7 (core/rfb.js), the reference server QEMU
(ui/vnc.c). The first 9 bytes of a message always suffice to know its length, and bodies are counted, not
stored, so the state has a fixed size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from consoled.proxy.security.base import SecurityFailed

MAX_FENCE = 64  # bytes of payload in a ClientFence, by the specification

# Returns the length of a message's remainder, given its head; None if there is no such message
_Remainder = Callable[[bytes], int | None]


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of message.

    :ivar size: bytes in total; 0 if it varies
    :ivar head: bytes that ``remainder`` needs
    :ivar user_input: whether it is input by the user, for the idle timeout
    :ivar forwarded: whether it is forwarded in a view-only session
    """

    size: int
    head: int
    remainder: _Remainder
    user_input: bool = False
    forwarded: bool = False


def _fixed(size: int, *, user_input: bool = False, forwarded: bool = False) -> _Kind:
    return _Kind(size, 2, lambda head: size - 2, user_input, forwarded)


def _varying(head: int, remainder: _Remainder, *, user_input: bool = False, forwarded: bool = False) -> _Kind:
    return _Kind(0, head, remainder, user_input, forwarded)


def _cut_text(head: bytes) -> int:
    return abs(int.from_bytes(head[4:8], 'big', signed=True))


def _is_extended(head: bytes) -> bool:
    """Return whether a ClientCutText is of the extended clipboard, which a negative length marks."""
    return bool(head[4] & 0x80)


def _fence(head: bytes) -> int | None:
    return head[8] if head[8] <= MAX_FENCE else None


def _audio(head: bytes) -> int | None:
    enable, disable, set_format = range(3)
    return {enable: 0, disable: 0, set_format: 6}.get(int.from_bytes(head[2:4], 'big'))


_CUT_TEXT = _varying(8, _cut_text, user_input=True)
# Clients send them by themselves, when the server says that the guest's clipboard has changed, or asks for
# the user's. A guest could make its server do so without end.
_EXTENDED_CUT_TEXT = _varying(8, _cut_text)
_POINTER = _fixed(6, user_input=True)
# Bit 7 of the mask announces another byte with more buttons. In a client without this extension it would be
# the eighth button, but no such client is known, and noVNC never sets it.
_EXTENDED_POINTER = _fixed(7, user_input=True)
_GII_LITTLE = _varying(4, lambda head: int.from_bytes(head[2:4], 'little'), user_input=True)
_GII_BIG = _varying(4, lambda head: int.from_bytes(head[2:4], 'big'), user_input=True)

_KINDS_BY_TYPE = {
    0: _fixed(20, forwarded=True),  # SetPixelFormat
    2: _varying(4, lambda head: 4 * int.from_bytes(head[2:4], 'big'), forwarded=True),  # SetEncodings
    3: _fixed(10, forwarded=True),  # FramebufferUpdateRequest
    4: _fixed(8, user_input=True),  # KeyEvent
    6: _CUT_TEXT,  # ClientCutText
    150: _fixed(10, forwarded=True),  # EnableContinuousUpdates
    248: _varying(9, _fence, forwarded=True),  # ClientFence
    250: _fixed(4, user_input=True),  # xvp: shut down, reboot, reset
    # not user input: clients send SetDesktopSize when they start and when their window changes
    251: _varying(8, lambda head: 16 * head[6]),
}
_KINDS_BY_SUBTYPE = {
    (255, 0): _fixed(12, user_input=True),  # QEMU: extended KeyEvent
    (255, 1): _varying(4, _audio),  # QEMU: audio
}


def _kinds_by_prefix() -> Iterator[tuple[bytes, _Kind]]:
    for second in range(256):
        for number, kind in _KINDS_BY_TYPE.items():
            yield bytes([number, second]), kind
        yield bytes([5, second]), _EXTENDED_POINTER if second & 0x80 else _POINTER
        yield bytes([253, second]), _GII_BIG if second & 0x80 else _GII_LITTLE
    for (number, subtype), kind in _KINDS_BY_SUBTYPE.items():
        yield bytes([number, subtype]), kind


# The first two bytes determine the kind of every message, and no message is shorter than four.
_KINDS_BY_PREFIX = dict(_kinds_by_prefix())


class ClientMessages:
    """Input filter on the messages of one client, beginning with its ClientInit.

    :param view_only: forward only the messages that the display needs, complete by our own count of their
        lengths. ClientInit then always requests a shared session, so that a viewer disconnects nobody. The
        server must know these messages or close the connection, as QEMU does: one that skipped an unknown
        type byte by byte could be made to find other messages in their bodies.

    Without ``view_only`` everything is forwarded unchanged. A message of unknown length then ends the
    parsing, and everything after it counts as input, so that no active user is considered idle.
    """

    def __init__(self, *, view_only: bool) -> None:
        self._view_only = view_only
        self._between = False  # whether the next byte begins a message
        self._begun = False  # whether ClientInit has been received
        self._lost = False  # whether the message boundaries are lost, for good
        self._head = b''
        self._kind: _Kind | None = None  # of the message in progress
        self._body = 0  # bytes of its body still to be received

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return the bytes to forward, and whether the data contains input by the user.

        Without ``view_only``, the bytes to forward are ``data`` itself.

        :raises SecurityFailed: with ``view_only``, if a message is unknown or too long, and again for each
            call after that
        """
        if self._between:  # fast path: the data is usually one complete message
            kind = _KINDS_BY_PREFIX.get(data[:2])
            if kind is not None and kind.size == len(data):
                return (b'' if self._view_only and not kind.forwarded else data), kind.user_input
        return self._feed_any(data)

    def _feed_any(self, data: bytes) -> tuple[bytes, bool]:
        if self._lost:
            return self._handle_unknown(data)
        forwarded: list[bytes] = []
        user_input = False
        at = 0
        if not self._begun and data:
            self._begun = True
            forwarded.append(b'\1')
            at = 1
        while at < len(data):
            kind, part, at = self._next_part(data, at)
            if self._lost:
                return self._handle_unknown(data)
            if kind is not None:
                user_input = user_input or kind.user_input
                if kind.forwarded:
                    forwarded.append(part)
        self._between = self._begun and not self._head and not self._body
        return (b''.join(forwarded) if self._view_only else data), user_input

    def _next_part(self, data: bytes, at: int) -> tuple[_Kind | None, bytes, int]:
        """Take the next part of a message from ``data[at:]``: a complete head, or what there is of a body.

        :returns: the kind of the message, None while its head is incomplete; the part; where it ends
        """
        kind = self._kind
        if self._body:
            end = min(at + self._body, len(data))
            self._body -= end - at
            part = data[at:end]
        else:
            end = min(at + (kind.head if kind else 2) - len(self._head), len(data))
            self._head += data[at:end]
            kind = self._classify()
            if kind is None:
                return None, b'', end
            part, self._head = self._head, b''
        if not self._body:
            self._kind = None
        return kind, part, end

    def _classify(self) -> _Kind | None:
        """Return the kind of message once its head is complete, having set ``_body``; None before."""
        head = self._head
        if self._kind is None and len(head) == 2:
            self._kind = _KINDS_BY_PREFIX.get(head)
            self._lost = self._kind is None
        kind = self._kind
        if kind is None or len(head) < kind.head:
            return None
        body = kind.remainder(head)
        if body is None:
            self._lost = True
            return None
        self._body = body
        if kind is _CUT_TEXT and _is_extended(head):
            self._kind = kind = _EXTENDED_CUT_TEXT
        return kind

    def _handle_unknown(self, data: bytes) -> tuple[bytes, bool]:
        self._between = False
        if self._view_only:
            raise SecurityFailed('unknown_message', f'beginning with {self._head.hex()}')
        return data, bool(data)
