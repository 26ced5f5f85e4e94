# SPDX-License-Identifier: Apache-2.0
"""Users of VNC consoles. A session is open once the guest has accepted the user, not with the ``101``.

nova-novncproxy sends its ``101`` first and authorizes the user afterwards; consoled authorizes first.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Sequence
from typing import Any

from tests.bench import opens
from tests.bench.proxy import frames
from tests.bench.proxy.frames import Route

_VERSION = b'RFB 003.008\n'
_NO_AUTHENTICATION = b'\x01'
_ACCEPTED = bytes(4)


class User:
    """A session that the guest has accepted (RFC 6143, section 7.1).

    :raises ConnectionError: the proxy ended the session
    """

    def __init__(self, route: Route, source: str) -> None:
        self._sock, self._rest = frames.connect(route, source)
        self._data = b''
        try:
            self._expect(_VERSION)
            self._send(_VERSION)
            self._expect(b'\x01' + _NO_AUTHENTICATION)
            self._send(_NO_AUTHENTICATION)
            self._expect(_ACCEPTED)
        except BaseException:
            self._sock.close()
            raise

    def _send(self, payload: bytes) -> None:
        self._sock.sendall(frames.masked(payload))

    def _expect(self, wanted: bytes) -> None:
        while len(self._data) < len(wanted):
            received, self._rest = frames.parse(self._rest)
            for opcode, payload in received:
                if opcode == frames.CLOSE:
                    raise ConnectionError(f'closed: {payload!r}')
                self._data += payload if opcode < frames.CONTROL else b''
            if not received:
                self._rest += _read(self._sock)
        if not self._data.startswith(wanted):
            raise ConnectionError(f'the guest sent {self._data!r}')
        self._data = self._data[len(wanted) :]

    def leave(self) -> None:
        """Close as a browser does: send a close frame, and wait for the end."""
        with self._sock, contextlib.suppress(OSError):
            self._sock.sendall(frames.masked(b'\x03\xe8', frames.CLOSE))
            self._sock.recv(4096)


def _read(sock: socket.socket) -> bytes:
    got = sock.recv(65536)
    if not got:
        raise ConnectionError('closed without a close frame')
    return got


def measure_opens(routes: Sequence[Route], seconds: float, callers: int) -> tuple[list[float], float]:
    """Let users open and leave sessions.

    :returns: the seconds that each open took, and those of the whole run
    """
    turns = itertools.cycle(routes)
    return opens.run(lambda source: User(next(turns), source).leave, seconds, callers)


def refusal(route: Route, source: str) -> float:
    """Return the seconds until a user knows that a token is not accepted."""
    before = time.perf_counter()
    try:
        User(route, source).leave()
    except (frames.Refused, ConnectionError):
        return time.perf_counter() - before
    raise RuntimeError('a bad token was accepted')


def crowd(routes: Sequence[Route], count: int) -> list[User]:
    """Open sessions and keep them open."""
    turns: Any = itertools.cycle(routes)
    return [User(next(turns), f'127.0.2.{1 + number // 50}') for number in range(count)]
