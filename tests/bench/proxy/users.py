# SPDX-License-Identifier: Apache-2.0
"""The process of the users: ``python -m tests.bench.proxy.users``.

It reads one JSON command a line and answers each with one line of JSON: ``{"open": KIND, "routes": [...]}``
creates users of a kind, ``{"run": {...}}`` lets them work for a while, ``{"close": {}}`` disconnects them.
The response to ``run`` has the count (of bytes, key presses or opens), the seconds, and percentiles of
latencies in seconds if there are any.
"""

from __future__ import annotations

import contextlib
import gc
import json
import random
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.bench import opens
from tests.bench.proxy import frames
from tests.bench.proxy.crowd import Crowd, percentiles
from tests.bench.proxy.frames import PATTERN, Route

_CHECKED = 16  # bytes of each chunk that are compared
_UPLOAD_FRAME = 16384
_KEY_PRESS = 16


class Download:
    """One user who reads what a guest sends, and discards it."""

    def __init__(self, routes: list[Route]) -> None:
        self._sock, rest = frames.connect(routes[0])
        self._raw = routes[0].path is None
        self._buffer = memoryview(bytearray(1 << 20))
        self._buffer[: len(rest)] = rest
        self._kept = 0
        self._left = 0  # remaining bytes of the payload that is being received
        self._received = 0
        self._walk(len(rest))

    def run(self, seconds: float) -> dict[str, Any]:
        """Read for that many seconds, and count the bytes of payload."""
        before, started = self._received, time.perf_counter()
        while (now := time.perf_counter()) < started + seconds:
            got = self._sock.recv_into(self._buffer[self._kept :])
            if not got:
                raise ConnectionError('the stream ended')
            if self._raw:
                self._payload(0, got)
            else:
                self._walk(self._kept + got)
        return {'count': self._received - before, 'seconds': now - started}

    def _payload(self, at: int, size: int) -> None:
        offset = self._received % len(PATTERN)
        piece = PATTERN[offset : offset + min(_CHECKED, size)]
        if self._buffer[at : at + len(piece)] != piece:
            raise ValueError(f'received other data than was sent, after {self._received} bytes')
        self._received += size

    def _walk(self, end: int) -> None:
        """Process the first ``end`` bytes of the buffer, and keep an incomplete header for the next call."""
        buffer, at = self._buffer, 0
        while at < end:
            if self._left:
                size = min(self._left, end - at)
                self._payload(at, size)
                self._left -= size
                at += size
                continue
            found = frames.header(buffer, at, end)
            if found is None or (found[0] >= frames.CONTROL and found[1] + found[2] > end):
                break
            opcode, size, at = found
            if opcode < frames.CONTROL:
                self._left = size
                continue
            self._control(opcode, bytes(buffer[at : at + size]))
            at += size
        self._kept = end - at
        buffer[: self._kept] = bytes(buffer[at:end])

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.PING:
            self._sock.sendall(frames.masked(payload, frames.PONG))
        elif opcode == frames.CLOSE:
            raise ConnectionError(f'closed: {payload!r}')

    def close(self) -> dict[str, Any]:
        self._sock.close()
        return {'count': self._received}


class Upload:
    """One user who sends as fast as possible."""

    def __init__(self, routes: list[Route]) -> None:
        self._sock, self._rest = frames.connect(routes[0])
        self._raw = routes[0].path is None
        pieces = (PATTERN[at : at + _UPLOAD_FRAME] for at in range(0, len(PATTERN), _UPLOAD_FRAME))
        self._block = PATTERN if self._raw else b''.join(map(frames.masked, pieces))
        self._sent = 0

    def run(self, seconds: float) -> dict[str, Any]:
        """Send for that many seconds, and count the bytes of payload."""
        before, started = self._sent, time.perf_counter()
        while (now := time.perf_counter()) < started + seconds:
            self._sock.sendall(self._block)
            self._sent += len(PATTERN)
        self._answer_pings()
        return {'count': self._sent - before, 'seconds': now - started}

    def _answer_pings(self) -> None:
        timeout = self._sock.gettimeout()
        self._sock.settimeout(0)
        with contextlib.suppress(OSError):  # BlockingIOError or SSLWantReadError: there is nothing to read
            self._rest += self._sock.recv(65536)
        self._sock.settimeout(timeout)
        received, self._rest = frames.parse(self._rest)
        for opcode, payload in received:
            if opcode == frames.PING:
                self._sock.sendall(frames.masked(payload, frames.PONG))
            else:
                raise ConnectionError(f'the sink has sent {opcode}: {payload[:100]!r}')

    def close(self) -> dict[str, Any]:
        if not self._raw:
            self._sock.sendall(frames.masked(b'\x03\xe8', frames.CLOSE))
            with contextlib.suppress(ConnectionError):
                self._sock.recv(65536)
        self._sock.close()
        return {'count': self._sent}


class KeyPresses:
    """One user who presses a key whenever the echo of the previous key has arrived."""

    def __init__(self, routes: list[Route]) -> None:
        self._sock, self._rest = frames.connect(routes[0])
        self._raw = routes[0].path is None

    def run(self, seconds: float) -> dict[str, Any]:
        latencies = []
        started = now = time.perf_counter()
        while now < started + seconds:
            payload = random.randbytes(_KEY_PRESS)
            frame = payload if self._raw else frames.masked(payload)
            before = time.perf_counter()
            self._sock.sendall(frame)
            echoed = self._received()
            now = time.perf_counter()
            latencies.append(now - before)
            if echoed != payload:
                raise ValueError('received other data than was sent')
        return {'count': len(latencies), 'seconds': now - started, **percentiles(latencies)}

    def _received(self) -> bytes:
        echoed = b''
        while len(echoed) < _KEY_PRESS:
            got = self._sock.recv(4096)
            if not got:
                raise ConnectionError('the session ended')
            if self._raw:
                echoed += got
                continue
            received, self._rest = frames.parse(self._rest + got)
            for opcode, payload in received:
                if opcode < frames.CONTROL:
                    echoed += payload
                elif opcode == frames.PING:
                    self._sock.sendall(frames.masked(payload, frames.PONG))
                else:
                    raise ConnectionError(f'closed: {payload!r}')
        return echoed

    def close(self) -> dict[str, Any]:
        self._sock.close()
        return {}


class Opens:
    """Users who open and close sessions, each from its own address. Latency is the time until the upgrade."""

    def __init__(self, routes: list[Route]) -> None:
        self._routes = routes

    def run(self, seconds: float, callers: int) -> dict[str, Any]:
        latencies, elapsed = opens.run(self._open, seconds, callers)
        return {'count': len(latencies), 'seconds': elapsed, **percentiles(latencies)}

    def _open(self, source: str) -> Callable[[], None]:
        route = random.choice(self._routes)
        sock, _ = frames.connect(route, source)
        return lambda: _leave(sock, route)

    def close(self) -> dict[str, Any]:
        return {}


def _leave(sock: socket.socket, route: Route) -> None:
    """Close as a browser does: send a close frame, wait for the response, then close the connection."""
    with sock:
        if route.path is not None:
            with contextlib.suppress(ConnectionError):
                sock.sendall(frames.masked(b'\x03\xe8', frames.CLOSE))
                sock.recv(4096)


_KINDS = {
    'download': Download,
    'upload': Upload,
    'keys': KeyPresses,
    'opens': Opens,
    'crowd': Crowd,
}


def _routes(given: Sequence[dict[str, Any]]) -> list[Route]:
    return [Route(**values) for values in given]


def main() -> None:
    """Execute commands until standard input is closed."""
    gc.disable()  # its pauses would be attributed to the proxy
    users: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if 'open' in command:
                users = _KINDS[command.pop('open')](_routes(command.pop('routes')), **command)
                answer = getattr(users, 'opened', {})
            else:
                [(what, values)] = command.items()
                answer = getattr(users, what)(**values)
        except Exception as exc:
            answer = {'error': repr(exc)}
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
