# SPDX-License-Identifier: Apache-2.0
"""Thousands of users in one event loop: most are idle, some press keys all the time."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import itertools
import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tests.bench.figures import percentile
from tests.bench.proxy import frames
from tests.bench.proxy.frames import Route

_MESSAGE = struct.Struct('!II8s')  # session, number of the message, filler
_FILLER = b'keypress'
_OPENERS = 16
_PER_SOURCE = 1000  # sessions from one loopback address
_ECHO_TIMEOUT = 10.0  # seconds for the last echoes


def percentiles(latencies: Iterable[float]) -> dict[str, float]:
    """Return the 50th and 99th percentile, in seconds, as ``p50`` and ``p99``."""
    ordered = sorted(latencies)
    return {f'p{percent}': percentile(ordered, percent) for percent in (50, 99)}


class _EchoSession:
    """One user with an echo guest, and the messages that have not come back yet."""

    def __init__(self, number: int, sock: socket.socket, rest: bytes) -> None:
        self.number = number
        self.sock = sock
        self.waiting: collections.deque[tuple[bytes, float]] = collections.deque()
        self._rest = rest
        self._payload = b''
        self._sent = 0

    def send(self) -> None:
        message = _MESSAGE.pack(self.number, self._sent, _FILLER)
        self._sent += 1
        self.waiting.append((message, time.perf_counter()))
        self.sock.send(frames.masked(message))

    def receive(self, latencies: list[float]) -> int:
        """Receive echoes, and return how many of them are wrong.

        :param latencies: extended by the latency of each echo
        :raises ConnectionError: when the session is over
        """
        data = self.sock.recv(65536)
        now = time.perf_counter()
        if not data:
            raise ConnectionError('closed without a close frame')
        received, self._rest = frames.parse(self._rest + data)
        for opcode, payload in received:
            if opcode < frames.CONTROL:
                self._payload += payload
            elif opcode == frames.PING:
                self.sock.send(frames.masked(payload, frames.PONG))
            elif opcode == frames.CLOSE:
                raise ConnectionError(f'closed: {payload!r}')
        wrong = 0
        while len(self._payload) >= _MESSAGE.size:
            echoed, self._payload = self._payload[: _MESSAGE.size], self._payload[_MESSAGE.size :]
            expected, sent = self.waiting.popleft() if self.waiting else (b'', now)
            wrong += echoed != expected
            latencies.append(now - sent)
        return wrong


class Crowd:
    """Sessions that are held open.

    :param count: number of sessions, distributed over the routes
    """

    def __init__(self, routes: Sequence[Route], count: int) -> None:
        started = time.perf_counter()
        self._poll = select.epoll()
        self._sessions: dict[int, _EchoSession] = {}
        self._lost: list[str] = []
        with concurrent.futures.ThreadPoolExecutor(_OPENERS) as openers:
            opened = list(openers.map(self._open, range(count), itertools.cycle(routes)))
        for session in opened:
            session.sock.setblocking(False)
            self._sessions[session.sock.fileno()] = session
            self._poll.register(session.sock, select.EPOLLIN)
        self.opened = {'seconds': time.perf_counter() - started} | self.check()

    def _open(self, number: int, route: Route) -> _EchoSession:
        sock, rest = frames.connect(route, f'127.0.2.{1 + number // _PER_SOURCE}')
        return _EchoSession(number, sock, rest)

    def _receive(self, timeout: float, latencies: list[float]) -> int:
        wrong = 0
        for fd, _ in self._poll.poll(timeout, 1024):
            session = self._sessions[fd]
            try:
                wrong += session.receive(latencies)
            except BlockingIOError:
                continue
            except OSError as exc:
                self._lose(session, exc)
        return wrong

    def _lose(self, session: _EchoSession, exc: OSError) -> None:
        self._lost.append(f'session {session.number}: {exc!r}')
        del self._sessions[session.sock.fileno()]
        session.sock.close()

    def _send(self, session: _EchoSession) -> int:
        """Send a message; return 1, or 0 when the session is lost."""
        if session.sock.fileno() < 0:
            return 0
        try:
            session.send()
        except OSError as exc:  # includes BlockingIOError: the proxy does not read
            self._lose(session, exc)
            return 0
        return 1

    def run(self, seconds: float, active: int, pace: float) -> dict[str, Any]:
        """Send ``pace`` messages per second on each of the first ``active`` sessions, evenly distributed.

        ``late`` in the result is how late (s) a message was sent at worst: large if this process lacked CPU.
        """
        sessions = list(self._sessions.values())[:active]
        latencies: list[float] = []
        planned, sent, wrong, late = int(seconds * active * pace), 0, 0, 0.0
        cpu, started = time.process_time(), time.perf_counter()
        for number in range(planned):
            due = started + number / (active * pace)
            while (left := due - time.perf_counter()) > 0:
                wrong += self._receive(min(left, 0.05), latencies)
            late = max(late, -left)
            sent += self._send(sessions[number % len(sessions)])
            if number % 32 == 31:
                wrong += self._receive(0, latencies)
        elapsed = time.perf_counter() - started
        cpu = time.process_time() - cpu
        wrong += self._wait(sessions, latencies)
        result = {'count': len(latencies), 'seconds': elapsed, 'late': late, 'cpu': cpu, 'planned': planned}
        return result | {'sent': sent, 'wrong': wrong, 'closed': self._lost} | percentiles(latencies or [0.0])

    def _wait(self, sessions: Iterable[_EchoSession], latencies: list[float]) -> int:
        """Wait for the outstanding echoes, and return how many of them are wrong."""
        wrong, ends = 0, time.perf_counter() + _ECHO_TIMEOUT
        while any(session.waiting for session in sessions) and time.perf_counter() < ends:
            wrong += self._receive(0.05, latencies)
            sessions = [session for session in sessions if session.waiting and session.sock.fileno() >= 0]
        return wrong

    def check(self) -> dict[str, Any]:
        """Send a message on each session; return how many came back, and the errors of lost sessions."""
        wrong, every = 0, list(self._sessions.values())
        latencies: list[float] = []
        for session in every:
            self._send(session)
            wrong += self._receive(0, latencies)
        wrong += self._wait(every, latencies)
        return {'alive': len(latencies), 'wrong': wrong, 'closed': self._lost}

    def close(self) -> dict[str, Any]:
        for session in self._sessions.values():
            with contextlib.suppress(OSError):
                session.sock.send(frames.masked(b'\x03\xe8', frames.CLOSE))
            session.sock.close()
        self._poll.close()
        return {}
