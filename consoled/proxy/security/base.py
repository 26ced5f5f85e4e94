# SPDX-License-Identifier: Apache-2.0
"""Handshakes without I/O: bytes in, bytes out.

The caller owns the socket, TLS and the time that a handshake may take; nothing here waits. Whatever the
other side sends, and in whatever pieces, an exchange raises nothing but SecurityFailed and holds no more than
``MAX_STEP`` bytes of an unfinished message or ``MAX_REST`` bytes behind the end (DESIGN invariant 9).
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

MAX_DETAIL = 200  # characters
MAX_STEP = 8192  # bytes that an exchange waits for at a time
MAX_REST = 256 * 1024  # bytes; what a transport reads at once, at most


def printable(text: bytes | str, limit: int = MAX_DETAIL) -> str:
    """Return what of a peer's text may go into a log: its printable ASCII characters, ``limit`` at most."""
    if isinstance(text, bytes):
        text = text.decode('latin-1')
    return ''.join(char for char in text if ' ' <= char <= '~')[:limit]


class SecurityFailed(Exception):
    """The other side's handshake can't be gone on with.

    :ivar code: stable name for logs and metrics; do not change a code's value:

        ========================= ======================================================================
        ``eof``                   the other side ended before the handshake was over
        ``plaintext_after_tls``   bytes in clear came where only TLS may come
        ``too_much``              more came behind the end of the handshake than is held
        ``rfb_version``           not RFB, or a version of it without a 3.8 handshake
        ``no_common_scheme``      nothing is offered that the policy allows
        ``refused_by_hypervisor`` it said so; the detail is its reason, if it gave one
        ``rfb_result``            a SecurityResult that RFC 6143 does not know
        ``rfb_choice``            the user's client chose what was not offered
        ``vencrypt_version``      VeNCrypt older than 0.2, or 0.2 refused
        ``unknown_message``       a viewer sent a message that can not be filtered
        ``tunnel_reply``          not the header of an HTTP/1 response, or one too long
        ``tunnel_refused``        the detail is the HTTP status
        ========================= ======================================================================
    :ivar detail: text for the log: printable ASCII, 200 characters at most
    :ivar farewell: what the other side should still be sent, so that it can tell its user; mostly b''
    """

    def __init__(self, code: str, detail: str = '', farewell: bytes = b'') -> None:
        self.code = code
        self.detail = printable(detail)
        self.farewell = farewell
        super().__init__(f'{code}: {self.detail}' if self.detail else code)


class Exchange(abc.ABC):
    """One side of a handshake.

    Send ``start()``, then feed ``receive`` with what comes and send what it returns, until ``done``. When
    ``wants_tls`` turns true: send, do the TLS handshake, send ``tls_started()``, go on. After SecurityFailed
    nothing more is sent but its farewell; a failed exchange stays failed.
    """

    def __init__(self) -> None:
        self._done = False
        self._rest = b''
        self._failure: SecurityFailed | None = None

    def start(self) -> bytes:
        """Return what to send first; b'' where the peer speaks first."""
        return b''

    def receive(self, data: bytes) -> bytes:
        """Take bytes as they came, in any split, and return what to send, b'' for nothing.

        Once done, bytes are kept for ``rest``.

        :raises SecurityFailed: again for each call after the first that failed
        """
        if self._failure is not None:
            raise SecurityFailed(self._failure.code, self._failure.detail)
        try:
            if self._done:
                self._keep(data)
                return b''
            return self._take(data)
        except SecurityFailed as failure:
            self._failure = failure
            raise

    def eof(self) -> None:
        """Say that the peer ended: fine once done.

        :raises SecurityFailed: with code ``eof``
        """
        if not self._done or self._failure is not None:
            raise SecurityFailed('eof', self._where())

    @property
    def done(self) -> bool:
        """Whether the handshake is over, successfully."""
        return self._done and self._failure is None

    @property
    def wants_tls(self) -> bool:
        """True from where the next byte of either side must be TLS until ``tls_started``."""
        return False

    def tls_started(self) -> bytes:
        """Say that TLS is established, with the peer's name checked, and return what to send through it."""
        raise RuntimeError('TLS was not asked for')

    def rest(self) -> bytes:
        """Hand over what came behind the end of the handshake: it belongs to what follows. Empties it."""
        rest, self._rest = self._rest, b''
        return rest

    @abc.abstractmethod
    def _take(self, data: bytes) -> bytes:
        """``receive`` before the end."""

    @abc.abstractmethod
    def _where(self) -> str:
        """Name the point that was reached, for the log."""

    def _finish(self) -> None:
        self._done = True

    def _keep(self, data: bytes) -> None:
        if len(self._rest) + len(data) > MAX_REST:
            self._rest = b''
            raise SecurityFailed('too_much')
        self._rest += data


Step = enum.Enum  # each stepped exchange has its own

COUNTED = -1  # as many bytes as the step before has counted
ANY = -2  # as many as there are: the step buffers itself


class SteppedExchange(Exchange):
    """An exchange in which each message's length is known before it comes.

    :cvar STEPS: step -> (bytes wanted, handler). A handler takes just these bytes, moves on with ``_go`` or
        ``_finish`` and returns what to send.
    """

    STEPS: ClassVar[Mapping[Step, tuple[int, Callable[[Any, bytes], bytes]]]]

    def __init__(self, first: Step) -> None:
        super().__init__()
        self._buffer = bytearray()
        self._go(first)

    def _go(self, step: Step, counted: int = 0) -> None:
        """Wait for ``step`` next; ``counted`` is its number of bytes where the table says COUNTED."""
        wanted, self._handle = self.STEPS[step]
        self._step = step
        self._wanted = counted if wanted == COUNTED else wanted
        if self._wanted > MAX_STEP:
            raise SecurityFailed('too_much', self._where())

    def _where(self) -> str:
        return str(self._step.value)

    def _take(self, data: bytes) -> bytes:
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
            if failure.farewell:  # it can be understood only behind what was not sent yet
                failure.farewell = sent + failure.farewell
            raise
        return sent

    def _next(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """Return the step's whole message, or None while more of it has to come, and where it ends."""
        if self._wanted == ANY:
            return data[at:] or None, len(data)
        end = min(at + self._wanted - len(self._buffer), len(data))
        self._buffer += data[at:end]
        if len(self._buffer) < self._wanted:
            return None, end
        message = bytes(self._buffer)
        self._buffer.clear()
        return message, end
