# SPDX-License-Identifier: Apache-2.0
"""What a user's RFB client sends after the security handshake: was it input, and may it pass?

Sources of the lengths: RFC 6143, sections 7.3.1 and 7.5; the community's specification (rfbproto.rst) for the
extensions. noVNC 1.7 (core/rfb.js) is the client that matters, QEMU (ui/vnc.c) the server. No length is known
later than from the first 9 bytes of a message, and bodies are counted, not kept: the state has a fixed size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from consoled.proxy.security.base import SecurityFailed

MAX_FENCE = 64  # bytes of payload in a ClientFence, by its definition

# Length of a message's remainder, taken from its head; None: there is no such message
_Remainder = Callable[[bytes], int | None]


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of message.

    :ivar size: bytes in all; 0 where it varies
    :ivar head: bytes from which ``remainder`` can tell the rest
    :ivar user_input: whether a user did something, for the idle timeout
    :ivar forwarded: whether a viewer may send it
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
    # A negative length is the sign of the extended clipboard
    return abs(int.from_bytes(head[4:8], 'big', signed=True))


def _fence(head: bytes) -> int | None:
    return head[8] if head[8] <= MAX_FENCE else None


def _audio(head: bytes) -> int | None:
    enable, disable, set_format = range(3)
    return {enable: 0, disable: 0, set_format: 6}.get(int.from_bytes(head[2:4], 'big'))


_POINTER = _fixed(6, user_input=True)
# Bit 7 of the mask says that one more byte has more buttons. A client that never offered this extension would
# mean its eighth button; none is known, and noVNC leaves the bit out.
_EXTENDED_POINTER = _fixed(7, user_input=True)
_GII_LITTLE = _varying(4, lambda head: int.from_bytes(head[2:4], 'little'), user_input=True)
_GII_BIG = _varying(4, lambda head: int.from_bytes(head[2:4], 'big'), user_input=True)

_OF_TYPE = {
    0: _fixed(20, forwarded=True),  # SetPixelFormat
    2: _varying(4, lambda head: 4 * int.from_bytes(head[2:4], 'big'), forwarded=True),  # SetEncodings
    3: _fixed(10, forwarded=True),  # FramebufferUpdateRequest
    4: _fixed(8, user_input=True),  # KeyEvent
    6: _varying(8, _cut_text, user_input=True),  # ClientCutText
    150: _fixed(10, forwarded=True),  # EnableContinuousUpdates
    248: _varying(9, _fence, forwarded=True),  # ClientFence
    250: _fixed(4, user_input=True),  # xvp: shut down, reboot, reset
    # Clients send SetDesktopSize when their window changes, and at their start: not a sign of a user
    251: _varying(8, lambda head: 16 * head[6]),
}
_OF_SUBTYPE = {
    (255, 0): _fixed(12, user_input=True),  # QEMU: extended KeyEvent
    (255, 1): _varying(4, _audio),  # QEMU: audio
}


def _kinds() -> Iterator[tuple[bytes, _Kind]]:
    for second in range(256):
        for number, kind in _OF_TYPE.items():
            yield bytes([number, second]), kind
        yield bytes([5, second]), _EXTENDED_POINTER if second & 0x80 else _POINTER
        yield bytes([253, second]), _GII_BIG if second & 0x80 else _GII_LITTLE
    for (number, subtype), kind in _OF_SUBTYPE.items():
        yield bytes([number, subtype]), kind


# The first two bytes tell the kind, of every message; none is shorter than four.
_KINDS = dict(_kinds())


class ClientMessages:
    """Follows the messages of one client, beginning with its ClientInit.

    :param view_only: whether the user may look only. Then only what the display needs is forwarded, whole
        messages by our own count of their lengths, and ClientInit always asks for a shared session: a viewer
        throws nobody out. A server must know these messages or end the connection, as QEMU does; one that
        skipped an unknown type byte by byte could be made to see others in their bodies.

    Otherwise everything passes as it is. A message of unknown length then ends the parsing: all that follows
    counts as input, so that nobody is taken for idle who is not.
    """

    def __init__(self, *, view_only: bool) -> None:
        self._view_only = view_only
        self._between = False  # at the beginning of a message: nothing of it has come
        self._begun = False  # ClientInit has come
        self._lost = False  # in the stream, for good
        self._head = b''
        self._kind: _Kind | None = None  # of the message whose head or body is under way
        self._body = 0  # bytes of it to come

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take bytes as they came; return what to forward, and whether there was input by the user in them.

        Without ``view_only`` what is to be forwarded is ``data`` itself.

        :raises SecurityFailed: with ``view_only`` only: a message that is unknown or too long, and again for
            each call after it
        """
        if self._between:  # and mostly the data is one whole message
            kind = _KINDS.get(data[:2])
            if kind is not None and kind.size == len(data):
                return (b'' if self._view_only and not kind.forwarded else data), kind.user_input
        return self._feed_any(data)

    def _feed_any(self, data: bytes) -> tuple[bytes, bool]:
        if self._lost:
            return self._give_up(data)
        forwarded: list[bytes] = []
        user_input = False
        at = 0
        if not self._begun and data:
            self._begun = True
            forwarded.append(b'\1')
            at = 1
        while at < len(data):
            kind, part, at = self._part(data, at)
            if self._lost:
                return self._give_up(data)
            if kind is not None:
                user_input = user_input or kind.user_input
                if kind.forwarded:
                    forwarded.append(part)
        self._between = self._begun and not self._head and not self._body
        return (b''.join(forwarded) if self._view_only else data), user_input

    def _part(self, data: bytes, at: int) -> tuple[_Kind | None, bytes, int]:
        """Take the next part of a message from ``data[at:]``: a whole head, or what there is of a body.

        Return its kind, None while the head is not whole; the part; and where it ends.
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
        """Look at the head; return the kind once it is whole, with ``_body`` set, None before."""
        head = self._head
        if self._kind is None and len(head) == 2:
            self._kind = _KINDS.get(head)
            self._lost = self._kind is None
        kind = self._kind
        if kind is None or len(head) < kind.head:
            return None
        body = kind.remainder(head)
        if body is None:
            self._lost = True
            return None
        self._body = body
        return kind

    def _give_up(self, data: bytes) -> tuple[bytes, bool]:
        self._between = False
        if self._view_only:
            raise SecurityFailed('unknown_message', f'beginning with {self._head.hex()}')
        return data, bool(data)
