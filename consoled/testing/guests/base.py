# SPDX-License-Identifier: Apache-2.0
"""What the consoles of pretended guests have in common: a TCP server that counts and bounds its clients."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket

LOG = logging.getLogger(__name__)

_BACKLOG = 100
_READ_LIMIT = 2**16  # bytes that asyncio reads ahead of a client's handler, at most twice
_WRITE_LIMIT = 2**16  # bytes that wait for a client to read, before ``drain`` waits
_RETRY_ACCEPT = 0.1  # seconds, when the process is out of file descriptors

# what a peer does to a handler by leaving at any moment; not worth a word in the log
GONE = (OSError, asyncio.IncompleteReadError)


class Guest:
    """A guest's console on TCP. The counters can be read from any thread.

    A subclass says in ``serve`` what it does with a client. ``start`` and ``stop`` may alternate: a guest
    that was stopped starts again on the port that it had.

    :param host: the address to listen on
    :param port: 0 for any free one; the attribute has the real one, once started
    :param name: for people
    :param clients: serve so many at once and leave others in the backlog; None for all
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
        """Clients that are connected now, not counting those in the backlog."""
        return len(self._sessions)

    async def start(self) -> None:
        """Listen.

        :raises OSError: the address cannot be had
        """
        if self._listener is not None:
            raise RuntimeError(f'guest {self.name} runs already')
        family = socket.AF_INET6 if ':' in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._listen()

    async def stop(self) -> None:
        """Close the port and all connections. Does nothing to a guest that does not run."""
        if self._listener is None:
            return
        self._deafen()
        self._listener.close()
        self._listener = None
        self.disconnect()
        tasks = list(self._sessions)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def disconnect(self) -> None:
        """Drop all clients at once, as a guest that is destroyed does. Call it in the guest's loop."""
        for writer in self._sessions.values():
            if writer is not None:
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client until this returns or raises; then the connection is closed."""
        raise NotImplementedError

    def _listen(self) -> None:
        if self._listener is not None and self.clients != self._max_clients:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _deafen(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)

    def _accept(self) -> None:
        # not ``loop.sock_accept``: when it is cancelled, it may lose a connection that it has accepted
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as exc:
            LOG.warning('Guest %s cannot accept: %s', self.name, exc)
            self._deafen()
            asyncio.get_running_loop().call_later(_RETRY_ACCEPT, self._listen)
            return
        self.connections += 1
        sock.setblocking(False)
        task = asyncio.create_task(self._serve(sock))
        self._sessions[task] = None
        task.add_done_callback(functools.partial(self._ended, sock))
        if self.clients == self._max_clients:
            self._deafen()

    def _ended(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        if self._sessions.pop(task) is None:
            sock.close()  # it ended before there was anything else to close
        self._listen()
        if not task.cancelled() and (exc := task.exception()) is not None:
            LOG.error('Guest %s failed', self.name, exc_info=exc)

    async def _serve(self, sock: socket.socket) -> None:
        # a reader protocol with a callback is what ``StreamWriter.start_tls`` takes for the server's side
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
        except GONE as exc:
            LOG.debug('Guest %s: client left: %r', self.name, exc)
        finally:
            for writer in writers:
                writer.transport.abort()
