# SPDX-License-Identifier: Apache-2.0
"""Listening for users: sockets, TLS, and how many may come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import stat
from asyncio import selector_events, sslproto
from collections.abc import Callable

from oslo_config import cfg

from consoled.proxy.connection import ConnectionContext, UserConnection
from consoled.proxy.forwarded import contains, parse_address
from consoled.proxy.limits import Counter
from consoled.proxy.metrics import Metrics

LOG = logging.getLogger(__name__)

_BACKLOG = 1024
_PAUSE = 0.1  # seconds after a connection could not be accepted: no file descriptor, most likely

_VERSIONS = {'tlsv1_2': ssl.TLSVersion.TLSv1_2, 'tlsv1_3': ssl.TLSVersion.TLSv1_3}

# asyncio takes 256 KiB a connection for what comes over TLS, at its first byte: a record has 16. Without TLS
# it reads as much at a time, of users who have not shown a token yet.
_BUFFER = 16 * 1024


def listen(conf: cfg.ConfigOpts) -> list[socket.socket]:
    """Bind the sockets that users connect to. Done once, before a fork: all workers share them.

    :raises OSError: an address is taken, or is not ours
    """
    address = (conf.proxy.host, conf.proxy.port)
    dual = conf.proxy.host == '::'
    family = socket.AF_INET6 if ':' in conf.proxy.host else socket.AF_INET
    sockets = [socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=dual)]
    if conf.proxy.unix_socket:
        sockets.append(_listen_unix(conf.proxy.unix_socket))
    for sock in sockets:
        sock.setblocking(False)
    return sockets


def _listen_unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)  # of a process that was killed
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen(_BACKLOG)
    return sock


def tls_context(conf: cfg.ConfigOpts) -> ssl.SSLContext | None:
    """The users' TLS as configured, read from the files now; None: without.

    :raises OSError: a file can't be read, or certificate and key do not belong together
    """
    if not conf.proxy.ssl_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[conf.proxy.ssl_minimum_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if conf.proxy.ssl_ciphers:
        context.set_ciphers(conf.proxy.ssl_ciphers)
    context.load_cert_chain(conf.proxy.ssl_cert, conf.proxy.ssl_key or None)
    context.set_alpn_protocols(['http/1.1'])
    return context


class Listener:
    """Accepts users' connections on sockets that are bound.

    :ivar tls: for connections from now on; a reload replaces it
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        sockets: list[socket.socket],
        context: ConnectionContext,
        metrics: Metrics,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._conf = conf
        self._sockets = sockets
        self._context = context
        self._metrics = metrics
        self.tls = tls
        self._connections = Counter(conf.proxy.max_connections, conf.proxy.max_connections_per_address)
        self._accepting: list[asyncio.Task[None]] = []
        self._starting: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return self._connections.count

    def start(self) -> None:
        sslproto.SSLProtocol.max_size = _BUFFER
        selector_events._SelectorTransport.max_size = _BUFFER  # type: ignore[attr-defined]
        loop = asyncio.get_running_loop()
        self._accepting = [loop.create_task(self._accept(sock), name='accept') for sock in self._sockets]

    async def stop(self) -> None:
        """Accept no more; connections go on."""
        for task in [*self._accepting, *self._starting]:
            task.cancel()
        await asyncio.gather(*self._accepting, *self._starting, return_exceptions=True)
        for sock in self._sockets:
            sock.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except OSError as exc:
                LOG.error('no connection can be accepted: %s', exc)
                await asyncio.sleep(_PAUSE)
                continue
            peer = address[0] if isinstance(address, tuple) else None
            if not self._take(peer):
                sock.close()
                continue
            task = loop.create_task(self._serve(sock, peer))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    def _take(self, peer: str | None) -> bool:
        parsed = None if peer is None else parse_address(peer)
        exempt = peer is None or contains(self._context.policy.trusted, parsed)
        if self._connections.take(peer, exempt=exempt):
            self._metrics.connections(self._connections.count)
            return True
        self._metrics.turned_away('process' if self._connections.full else 'address')
        return False

    def _place(self, peer: str | None) -> Callable[[], None]:
        """What gives a taken place back, the first time it is called."""
        held = [peer]

        def closed() -> None:
            if held:
                self._connections.give_back(held.pop())
                self._metrics.connections(self._connections.count)

        return closed

    async def _serve(self, sock: socket.socket, peer: str | None) -> None:
        """Bring a connection to where it speaks HTTP."""
        closed = self._place(peer)
        remote = sock.family != socket.AF_UNIX
        tls = self.tls if remote else None
        try:
            if remote:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: UserConnection(self._context, peer, secure=tls is not None, closed=closed),
                sock,
                ssl=tls,
                ssl_handshake_timeout=self._conf.proxy.tls_timeout if tls is not None else None,
            )
        except OSError as exc:  # ssl.SSLError is one
            LOG.debug('a connection from %s did not come about: %s', peer, exc)
            sock.close()
            closed()
        except BaseException:
            sock.close()
            closed()
            raise
