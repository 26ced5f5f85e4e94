# SPDX-License-Identifier: Apache-2.0
"""Bounds on time and memory that the client libraries behind oslo.cache lack.

Each operation has a deadline and a limit of received bytes, however slowly a server sends. A server that
failed is skipped for a while by all clients of the process.
"""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
import zlib

PICKLED = 1  # flags of a value that python-memcached has pickled
MAX_RECEIVED = 2 * 1024 * 1024  # bytes per request
_MAX_CHUNK = 65536  # bytes per recv; a client asks for as many as the server has announced


@dataclasses.dataclass(frozen=True)
class RawValue:
    """The bytes of a pickled value. They are not in its repr, which may end up in a log."""

    data: bytes = dataclasses.field(repr=False)


# Stands in for a value with other flags: a compressed one, an integer, a text.
UNREADABLE = RawValue(b'')


def server_hash(key: bytes) -> int:
    """Return the hash by which python-memcached chose the server of a key when the old service used it.

    Its later releases return 0 instead of 1, so they would look for such a key on another server.
    """
    return (zlib.crc32(key) >> 16 & 0x7FFF) or 1


class OutOfTime(TimeoutError):
    """The operation has no time left to connect to a server, which is not the server's fault."""


class Operation(threading.local):
    """State of the operation that the current thread runs: a deadline, and one request at a time.

    :ivar answered: a server has sent something in this request
    :ivar failed_over: a server has failed in this request, or was skipped, so another one stood in for it
    :ivar stale: a connection turned out to have been closed since its last use, so the request should be
        repeated
    :ivar request: identifies the request
    """

    def __init__(self) -> None:
        self.begin(0.0)

    def begin(self, deadline: float) -> None:
        """Begin an operation.

        :param deadline: by the monotonic clock
        """
        self._deadline = deadline
        self.begin_request()

    def begin_request(self) -> None:
        """Begin a request of the operation."""
        self._remaining_bytes = MAX_RECEIVED
        self.request = object()
        self.answered = self.failed_over = self.stale = False

    def timeout(self, limit: float) -> float:
        """Return the seconds that the next step may take: until the deadline, and ``limit`` at most.

        :raises OutOfTime: the deadline is over
        """
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise OutOfTime('no time left')
        return min(remaining, limit)

    def count_received(self, count: int) -> None:
        """Count received bytes.

        :raises OSError: a server has sent more than ``MAX_RECEIVED`` in this request
        """
        self.answered = True
        self._remaining_bytes -= count
        if self._remaining_bytes < 0:
            raise OSError('a server sends too much')


class ServerHealth:
    """Record of the servers that have failed recently; shared by all clients of a process.

    :param timeout: seconds to connect, or to wait for bytes
    :param dead_retry: seconds for which a server is skipped after a failure
    """

    def __init__(self, timeout: float, dead_retry: float) -> None:
        self.timeout = timeout
        self.operation = Operation()
        self._dead_retry = dead_retry
        self._dead_until: dict[str, float] = {}

    def is_skipped(self, name: str) -> bool:
        """Return whether to skip a server in this request, because it has failed recently."""
        if time.monotonic() >= self._dead_until.get(name, 0.0):
            return False
        self.operation.failed_over = True
        return True

    def report_failure(self, name: str, reason: object, used_before: bool) -> None:
        """Skip a server from now on, unless only its connection was stale.

        :param reason: an exception, or a client library's message
        :param used_before: the failed connection is older than this request. It may have been closed since,
            as by a restart of the server, which says nothing about the server now.
        """
        if used_before and not isinstance(reason, TimeoutError):
            self.operation.stale = True
            return
        self.operation.failed_over = True
        self._dead_until[name] = time.monotonic() + self._dead_retry


class BoundedSocket:
    """A connected socket with the bounds of the current operation, as far as the clients use sockets."""

    def __init__(self, connected: socket.socket, health: ServerHealth) -> None:
        self._socket = connected
        self._health = health
        self._opened_in = health.operation.request

    @property
    def used_before(self) -> bool:
        """Whether the connection was opened in an earlier request."""
        return self._opened_in is not self._health.operation.request

    def recv(self, size: int) -> bytes:
        self._set_timeout()
        data = self._socket.recv(min(size, _MAX_CHUNK))
        if data:
            self._health.operation.count_received(len(data))
        return data

    def sendall(self, data: bytes) -> None:
        self._set_timeout()
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()

    def _set_timeout(self) -> None:
        try:
            self._socket.settimeout(self._health.operation.timeout(self._health.timeout))
        except OutOfTime:  # used up by this server, which sends a byte now and then
            raise TimeoutError('no time left') from None
