# SPDX-License-Identifier: Apache-2.0
"""Base class of fake guests: a TCP server that counts and limits its clients."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket

LOG = logging.getLogger(__name__)

_BACKLOG = 100
_READ_LIMIT = 2**16  # bytes; asyncio reads at most twice as many ahead of a client's handler
_WRITE_LIMIT = 2**16  # bytes buffered for a slow client before ``drain`` waits
_RETRY_ACCEPT = 0.1  # seconds to wait when the process is out of file descriptors

# raised in a handler when its client disconnects; logged at DEBUG only
_DISCONNECTED = (OSError, asyncio.IncompleteReadError)


class FakeGuest:
    """The console of a fake guest, on TCP. The counters may be read from any thread.

    Subclasses implement ``serve``. A guest that was stopped can be started again; it keeps its port.

    :param host: the address to listen on
    :param port: the port to listen on; with 0, ``start`` chooses a free one and sets the attribute
    :param name: for log messages and for the guest's own screen
    :param clients: how many clients to serve at a time, others wait in the backlog; None for no limit
    :ivar connections: how many connections have been accepted in all
    """

    def __init__(
        self, host: str = '127.0.0.1', port: int = 0, *, name: str = 'guest', clients: int | None = None
    ) -> None:
        self.host = host
        self.port = port
        self.name = name
        self.connections = 0
        self._max_clients = clients
        self._sessions: dict[asyncio.Task[None], asyncio.StreamWriter | None] = {}
        self._listener: socket.socket | None = None

    @property
    def clients(self) -> int:
        """The number of connected clients, not counting the backlog."""
        return len(self._sessions)

    async def start(self) -> None:
        """Start to listen.

        :raises OSError: when the address is not available
        :raises RuntimeError: when the guest is already running
        """
        if self._listener is not None:
            raise RuntimeError(f'guest {self.name} is already running')
        family = socket.AF_INET6 if ':' in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._resume_accepting()

    async def stop(self) -> None:
        """Close the port and all connections. Does nothing when the guest is not running."""
        if self._listener is None:
            return
        self._stop_accepting()
        self._listener.close()
        self._listener = None
        self.disconnect()
        tasks = list(self._sessions)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def disconnect(self) -> None:
        """Abort all connections, as when a guest is destroyed. Call it from the guest's event loop."""
        for writer in self._sessions.values():
            if writer is not None:
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client. The connection is closed when this returns or raises."""
        raise NotImplementedError

    def _resume_accepting(self) -> None:
        if self._listener is not None and self.clients != self._max_clients:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _stop_accepting(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)

    def _accept(self) -> None:
        # Not loop.sock_accept, which may lose an accepted connection when it is cancelled.
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as exc:
            LOG.warning('Guest %s cannot accept: %s', self.name, exc)
            self._stop_accepting()
            asyncio.get_running_loop().call_later(_RETRY_ACCEPT, self._resume_accepting)
            return
        self.connections += 1
        sock.setblocking(False)
        task = asyncio.create_task(self._serve(sock))
        self._sessions[task] = None
        task.add_done_callback(functools.partial(self._ended, sock))
        if self.clients == self._max_clients:
            self._stop_accepting()

    def _ended(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        if self._sessions.pop(task) is None:
            sock.close()  # there is no writer yet that would close it
        self._resume_accepting()
        if not task.cancelled() and (exc := task.exception()) is not None:
            LOG.error('Guest %s failed', self.name, exc_info=exc)

    async def _serve(self, sock: socket.socket) -> None:
        # StreamWriter.start_tls takes the server's side only with a protocol that has a callback.
        reader, writers = asyncio.StreamReader(limit=_READ_LIMIT), list[asyncio.StreamWriter]()
        protocol = asyncio.StreamReaderProtocol(reader, lambda _, writer: writers.append(writer))
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
            (writer,) = writers
            task = asyncio.current_task()
            assert task is not None
            self._sessions[task] = writer
            writer.transport.set_write_buffer_limits(high=_WRITE_LIMIT)
            await self.serve(reader, writer)
            writer.close()
            await writer.wait_closed()
        except _DISCONNECTED as exc:
            LOG.debug('Guest %s: client disconnected: %r', self.name, exc)
        finally:
            for writer in writers:
                writer.transport.abort()
