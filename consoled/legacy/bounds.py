# SPDX-License-Identifier: Apache-2.0
"""Bounds that the client libraries behind oslo.cache don't have by themselves.

Each operation has a deadline and a limit of bytes, however slowly a server sends; a server that failed is
left alone for a while, by all clients of the process.
"""

from __future__ import annotations

import dataclasses
import socket
import threading
import time

PICKLED = 1  # the flags of a value that python-memcached has pickled
MAX_RECEIVED = 2 * 1024 * 1024  # bytes in one step


@dataclasses.dataclass(frozen=True)
class Stored:
    """A value with the flags of a pickle. Its repr does not show it: it may end up in a log."""

    data: bytes = dataclasses.field(repr=False)


FOREIGN = Stored(b'')  # in place of a value with other flags: compressed, an integer, a text


class Exhausted(TimeoutError):
    """There is no time left to connect to a server: that is not the server's fault."""


class Attempt(threading.local):
    """What a thread does just now: an operation, that has a deadline, made of steps, that may fail.

    :ivar answered: a server has sent something in this step
    :ivar away: a server has failed in this step, or is being left alone, so that another stood in for it
    :ivar stale: a connection turned out to have been closed since its last use: the step is worth repeating
    """

    def __init__(self) -> None:
        self.begin(0.0)

    def begin(self, deadline: float) -> None:
        """Begin an operation.

        :param deadline: by the monotonic clock
        """
        self._deadline = deadline
        self.begin_step()

    def begin_step(self) -> None:
        self._left = MAX_RECEIVED
        self.step = object()
        self.answered = self.away = self.stale = False

    def seconds(self, most: float) -> float:
        """How long the next thing to do may take.

        :raises Exhausted: there is no time left
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Exhausted('no time left')
        return min(left, most)

    def received(self, count: int) -> None:
        """:raises OSError: more has been received in this step than there may be"""
        self.answered = True
        self._left -= count
        if self._left < 0:
            raise OSError('a server sends too much')


class Servers:
    """How the servers are: shared by all clients.

    :param timeout: seconds to connect, or to wait for bytes
    :param dead_retry: seconds for which a server is left alone that has failed
    """

    def __init__(self, timeout: float, dead_retry: float) -> None:
        self.timeout = timeout
        self.attempt = Attempt()
        self._dead_retry = dead_retry
        self._until: dict[str, float] = {}

    def skipped(self, name: str) -> bool:
        if time.monotonic() >= self._until.get(name, 0.0):
            return False
        self.attempt.away = True
        return True

    def failed(self, name: str, reason: object, used_before: bool) -> None:
        """Take note of a failure.

        :param used_before: on a connection from before this step. If it was closed, as by a restart of the
            server, that says nothing about the server.
        """
        if used_before and not isinstance(reason, TimeoutError):
            self.attempt.stale = True
            return
        self.attempt.away = True
        self._until[name] = time.monotonic() + self._dead_retry


class BoundedSocket:
    """A connected socket, for what the clients use of one."""

    def __init__(self, connected: socket.socket, servers: Servers) -> None:
        self._socket = connected
        self._servers = servers
        self._opened_in = servers.attempt.step

    @property
    def used_before(self) -> bool:
        return self._opened_in is not self._servers.attempt.step

    def recv(self, size: int) -> bytes:
        self._set_timeout()
        data = self._socket.recv(min(size, 65536))  # a client asks for what the server has announced
        if data:
            self._servers.attempt.received(len(data))
        return data

    def sendall(self, data: bytes) -> None:
        self._set_timeout()
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()

    def _set_timeout(self) -> None:
        try:
            self._socket.settimeout(self._servers.attempt.seconds(self._servers.timeout))
        except Exhausted:  # by this server, that sends now and then a byte
            raise TimeoutError('no time left') from None
