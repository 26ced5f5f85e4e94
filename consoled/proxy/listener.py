# SPDX-License-Identifier: Apache-2.0
"""Listening for users: sockets, TLS, and the limits on connections."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import logging
import os
import socket
import ssl
import stat
from asyncio import selector_events, sslproto
from collections.abc import Callable

from oslo_config import cfg

from consoled import listening
from consoled.proxy.connection import ConnectionContext, UserConnection
from consoled.proxy.forwarded import contains, parse_address
from consoled.proxy.limits import ConcurrencyLimit
from consoled.proxy.metrics import Metrics

LOG = logging.getLogger(__name__)

_BACKLOG = 1024
_ADDITIONAL = 'additional_addresses'
_ACCEPT_PAUSE = 0.1  # seconds after accept failed, most likely for want of file descriptors
_ACCEPT_LOG = 60.0  # seconds between two log lines on that: users may have taken the descriptors

# Bytes. By default, asyncio allocates 256 KiB for each TLS connection with its first byte, though a record
# has 16 KiB at most; without TLS it reads as much at a time, from users who have not shown a token yet.
_MAX_READ = 16 * 1024

_TLS = b'\x16'  # the first byte of a TLS connection: a record of the handshake (RFC 8446, section 5.1)
_MIN_TIMEOUT = 0.01  # seconds; asyncio refuses a timeout of 0


def bind_sockets(conf: cfg.ConfigOpts) -> list[socket.socket]:
    """Bind the sockets that users connect to, once before the fork: all workers share them.

    :raises OSError: an address is in use, or does not belong to this host
    :raises ValueError: an address is malformed or may not be used, or the unix socket may not have its group
    """
    with contextlib.ExitStack() as bound:
        sockets = []
        for number, (host, port) in enumerate(addresses(conf)):
            option = _ADDITIONAL if number else None
            sockets.append(listening.bind('proxy', host, port, option=option, backlog=_BACKLOG))
            bound.callback(sockets[-1].close)
        if conf.proxy.unix_socket:
            sockets.append(_bind_unix_socket(conf))
        bound.pop_all()
    for sock in sockets:
        sock.setblocking(False)
    return sockets


def addresses(conf: cfg.ConfigOpts) -> list[listening.Address]:
    """Return the TCP addresses to listen on for users: first that of ``host`` and ``port``.

    :raises ValueError: an additional one is malformed, or cannot be had beside another
    """
    found = [(conf.proxy.host, conf.proxy.port)]
    for text in conf.proxy[_ADDITIONAL]:
        try:
            address = listening.parse_address(text)
        except ValueError as exc:
            raise ValueError(f'[proxy] {_ADDITIONAL}: {exc}') from None
        for other in found:
            if listening.overlap(address, other):
                raise ValueError(
                    f'[proxy] {_ADDITIONAL}: {text} is listened on already, as '
                    f'{listening.show_address(other)}'
                )
        found.append(address)
    return found


def _bind_unix_socket(conf: cfg.ConfigOpts) -> socket.socket:
    path = conf.proxy.unix_socket
    group = _group_id(conf.proxy.unix_socket_group)
    left_behind = _is_socket(path)  # by a process that was killed
    if left_behind and _is_served(path):
        raise OSError(errno.EADDRINUSE, f'[proxy] unix_socket: {path} is in use by another program')
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if left_behind:
            os.unlink(path)
        sock.bind(path)
    except OSError as exc:
        sock.close()
        reason = exc.strerror or str(exc)  # it has no number if the path is too long
        raise ValueError(f'[proxy] unix_socket: {path} cannot be bound: {reason}') from None
    if group is not None:
        try:
            os.chown(path, -1, group)
        except (PermissionError, OverflowError):
            raise ValueError(
                f'[proxy] unix_socket_group: this user is not in {conf.proxy.unix_socket_group}'
            ) from None
    os.chmod(path, int(conf.proxy.unix_socket_mode, 8))  # the umask has restricted it further
    sock.listen(_BACKLOG)  # nobody could connect before
    return sock


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:  # binding says why
        return False


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) != errno.ECONNREFUSED


def _group_id(group: str | None) -> int | None:
    """Return the number of a group that is given by name or number.

    :raises ValueError: there is no group of this name
    """
    if not group or group.isdecimal():
        return int(group) if group else None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f'[proxy] unix_socket_group: there is no group {group!r}') from None


class Listener:
    """Accepts connections of users.

    :param sockets: bound sockets
    :ivar tls: TLS context of new connections, or None; a reload replaces it
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
        self._limit = ConcurrencyLimit(conf.proxy.max_connections, conf.proxy.max_connections_per_address)
        self._accepting: list[asyncio.Task[None]] = []
        self._starting: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return self._limit.count

    def start(self) -> None:
        """Begin to accept connections."""
        sslproto.SSLProtocol.max_size = _MAX_READ
        selector_events._SelectorTransport.max_size = _MAX_READ  # type: ignore[attr-defined]
        loop = asyncio.get_running_loop()
        self._accepting = [loop.create_task(self._accept(sock), name='accept') for sock in self._sockets]

    async def stop(self) -> None:
        """Stop accepting connections; open ones continue."""
        for task in [*self._accepting, *self._starting]:
            task.cancel()
        await asyncio.gather(*self._accepting, *self._starting, return_exceptions=True)
        for sock in self._sockets:
            sock.close()

    async def _accept(self, server_socket: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        log_after = 0.0
        while True:
            try:
                sock, address = await loop.sock_accept(server_socket)
            except OSError as exc:
                if loop.time() >= log_after:
                    LOG.error('Failed to accept a connection: %s', exc)
                    log_after = loop.time() + _ACCEPT_LOG
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            peer = address[0] if isinstance(address, tuple) else None
            if not self._acquire(peer):
                sock.close()
                continue
            task = loop.create_task(self._serve(sock, peer))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    def _acquire(self, peer: str | None) -> bool:
        """Acquire a permit for a connection; return False if a limit is reached."""
        parsed = None if peer is None else parse_address(peer)
        exempt = peer is None or contains(self._context.policy.trusted, parsed)
        if self._limit.acquire(peer, exempt=exempt):
            self._metrics.connections(self._limit.count)
            return True
        self._metrics.turned_away('process' if self._limit.full else 'address')
        return False

    def _release_callback(self, peer: str | None) -> Callable[[], None]:
        """Return a callback that releases the permit of a connection; calling it again has no effect."""
        held = [peer]

        def release() -> None:
            if held:
                self._limit.release(held.pop())
                self._metrics.connections(self._limit.count)

        return release

    async def _serve(self, sock: socket.socket, peer: str | None) -> None:
        """Set a connection up, with its TLS handshake, and hand it to a UserConnection."""
        release = self._release_callback(peer)
        loop = asyncio.get_running_loop()
        options = self._conf.proxy
        deadline = loop.time() + options.tls_timeout
        remote = sock.family != socket.AF_UNIX
        tls = self.tls if remote else None
        try:
            if remote:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if tls is not None and not options.ssl_only and await _first_byte(sock, deadline) != _TLS:
                tls = None
            await loop.connect_accepted_socket(
                lambda: UserConnection(self._context, peer, secure=tls is not None, closed=release),
                sock,
                ssl=tls,
                ssl_handshake_timeout=max(_MIN_TIMEOUT, deadline - loop.time()) if tls is not None else None,
            )
        except OSError as exc:  # ssl.SSLError is one
            LOG.debug('Failed to set up a connection from %s: %s', peer, exc)
            sock.close()
            release()
        except BaseException:
            sock.close()
            release()
            raise


async def _first_byte(sock: socket.socket, deadline: float) -> bytes:
    """Wait for the first byte of a connection, and return it without consuming it; b'' at its end.

    No memory is taken for a connection that sends nothing.

    :param deadline: by the event loop's clock
    :raises OSError: the connection was lost, or nothing arrived before the deadline (TimeoutError)
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        async with asyncio.timeout_at(deadline):
            await readable.wait()
    finally:
        loop.remove_reader(sock)
    return sock.recv(1, socket.MSG_PEEK)
