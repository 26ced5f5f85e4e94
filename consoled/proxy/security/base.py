# SPDX-License-Identifier: Apache-2.0
"""Base classes of handshakes without I/O: bytes in, bytes out.

The caller owns the socket, TLS and the deadline of the handshake; nothing here waits. Whatever the peer
sends, split in any way, an exchange raises nothing but SecurityFailed, and buffers at most ``MAX_STEP`` bytes
of an unfinished message and ``MAX_REST`` bytes after the end of the handshake (design.md, invariant 9).
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

MAX_DETAIL = 200  # characters
MAX_STEP = 8192  # bytes of one message
MAX_REST = 256 * 1024  # bytes, as many as an asyncio transport reads at once


def printable(text: bytes | str, limit: int = MAX_DETAIL) -> str:
    """Return a peer's text in a form that is safe to log: at most ``limit`` printable ASCII characters."""
    if isinstance(text, bytes):
        text = text.decode('latin-1')
    return ''.join(char for char in text if ' ' <= char <= '~')[:limit]


class SecurityFailed(Exception):
    """The handshake with a peer failed.

    :ivar code: stable name for logs and metrics; never change the value of a code:

        ========================= ======================================================================
        ``eof``                   the peer closed the connection before the handshake was complete
        ``plaintext_after_tls``   bytes in clear were received where only TLS is allowed
        ``too_much``              a message, or the data after the handshake, exceeds its limit
        ``rfb_version``           not RFB, or a version without the handshake of 3.8
        ``no_common_scheme``      the peer offers nothing that the policy allows
        ``refused_by_hypervisor`` the hypervisor refused; the detail is its reason, if it gave one
        ``rfb_result``            a SecurityResult that RFC 6143 does not define
        ``rfb_choice``            the user's client chose a security type that was not offered
        ``vencrypt_version``      VeNCrypt older than 0.2, or the server refused 0.2
        ``unknown_message``       a message in a view-only session that cannot be filtered
        ``tunnel_reply``          not the header of an HTTP/1 response, or too long
        ``tunnel_refused``        HTTP CONNECT was refused; the detail is the HTTP status
        ========================= ======================================================================
    :ivar detail: text for the log: printable ASCII, at most ``MAX_DETAIL`` characters
    :ivar farewell: bytes still to be sent, so that the peer can tell its user why; usually b''
    """

    def __init__(self, code: str, detail: str = '', farewell: bytes = b'') -> None:
        self.code = code
        self.detail = printable(detail)
        self.farewell = farewell
        super().__init__(f'{code}: {self.detail}' if self.detail else code)


class Exchange(abc.ABC):
    """One side of a handshake.

    Send ``start()``, then pass received data to ``receive`` and send what it returns, until ``done``. Once
    ``wants_tls`` is true, send what was returned, do the TLS handshake, send ``tls_started()`` and continue.
    After SecurityFailed, send only its farewell; a failed exchange stays failed.
    """

    def __init__(self) -> None:
        self._done = False
        self._rest = b''
        self._failure: SecurityFailed | None = None

    def start(self) -> bytes:
        """Return the first bytes to send; b'' if the peer speaks first."""
        return b''

    def receive(self, data: bytes) -> bytes:
        """Process received bytes, split in any way, and return the bytes to send.

        Bytes after the end of the handshake are kept for ``rest``.

        :raises SecurityFailed: the handshake failed, now or in an earlier call
        """
        if self._failure is not None:
            raise SecurityFailed(self._failure.code, self._failure.detail)
        try:
            if self._done:
                self._keep(data)
                return b''
            return self._process(data)
        except SecurityFailed as failure:
            self._failure = failure
            raise

    def eof(self) -> None:
        """Report the end of the peer's stream, which is fine once the handshake is complete.

        :raises SecurityFailed: with code ``eof`` if it is not
        """
        if not self._done or self._failure is not None:
            raise SecurityFailed('eof', self._position())

    @property
    def done(self) -> bool:
        """Whether the handshake has completed successfully."""
        return self._done and self._failure is None

    @property
    def wants_tls(self) -> bool:
        """Whether the next byte of either side must be TLS; true until ``tls_started`` is called."""
        return False

    def tls_started(self) -> bytes:
        """Report that TLS is established and the peer's name verified; return the bytes to send over TLS.

        :raises RuntimeError: ``wants_tls`` is false
        """
        raise RuntimeError('TLS is not wanted')

    def rest(self) -> bytes:
        """Return and clear the bytes received after the end of the handshake."""
        rest, self._rest = self._rest, b''
        return rest

    @abc.abstractmethod
    def _process(self, data: bytes) -> bytes:
        """Process received bytes before the end of the handshake; see ``receive``."""

    @abc.abstractmethod
    def _position(self) -> str:
        """Return how far the handshake has come, for the log."""

    def _finish(self) -> None:
        self._done = True

    def _keep(self, data: bytes) -> None:
        if len(self._rest) + len(data) > MAX_REST:
            self._rest = b''
            raise SecurityFailed('too_much')
        self._rest += data


Step = enum.Enum  # each stepped exchange defines its own

COUNTED = -1  # as many bytes as the previous step has announced
ANY = -2  # any number of bytes: the step does its own buffering


class SteppedExchange(Exchange):
    """An exchange in which the length of each message is known in advance.

    :cvar STEPS: step -> (number of bytes, handler). A handler takes exactly these bytes, calls ``_go`` or
        ``_finish``, and returns the bytes to send.
    """

    STEPS: ClassVar[Mapping[Step, tuple[int, Callable[[Any, bytes], bytes]]]]

    def __init__(self, first: Step) -> None:
        super().__init__()
        self._buffer = bytearray()
        self._go(first)

    def _go(self, step: Step, counted: int = 0) -> None:
        """Go to a step.

        :param counted: number of bytes to wait for, if STEPS says COUNTED
        :raises SecurityFailed: that is more than ``MAX_STEP``
        """
        wanted, self._handle = self.STEPS[step]
        self._step = step
        self._wanted = counted if wanted == COUNTED else wanted
        if self._wanted > MAX_STEP:
            raise SecurityFailed('too_much', self._position())

    def _position(self) -> str:
        return str(self._step.value)

    def _process(self, data: bytes) -> bytes:
        sent = b''
        at = 0
        try:
            while not self._done and not self.wants_tls:
                message, at = self._next(data, at)
                if message is None:
                    return sent
                sent += self._handle(self, message)
            if self._done:
                self._keep(data[at:])
            elif at < len(data):
                raise SecurityFailed('plaintext_after_tls')
        except SecurityFailed as failure:
            if failure.farewell:  # it makes sense only after the bytes that are not sent yet
                failure.farewell = sent + failure.farewell
            raise
        return sent

    def _next(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """Return the step's message, or None while it is incomplete, and where it ends in ``data``."""
        if self._wanted == ANY:
            return data[at:] or None, len(data)
        end = min(at + self._wanted - len(self._buffer), len(data))
        self._buffer += data[at:end]
        if len(self._buffer) < self._wanted:
            return None, end
        message = bytes(self._buffer)
        self._buffer.clear()
        return message, end
