# SPDX-License-Identifier: Apache-2.0
"""Connecting to a guest's console: where that may be, and the handshakes with the hypervisor."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from oslo_config import cfg

from consoled import exception
from consoled.proxy.forwarded import Network, contains, networks, parse_address
from consoled.proxy.security.base import Exchange, SecurityFailed
from consoled.proxy.security.rfb import HypervisorSide
from consoled.proxy.security.tunnel import Tunnel

LOG = logging.getLogger(__name__)

_KEEPALIVE_IDLE = 30  # seconds of silence before the kernel asks whether the hypervisor is still there
_KEEPALIVE_INTERVAL = 10
_KEEPALIVE_COUNT = 3
_USER_TIMEOUT = 60000  # milliseconds that sent data may stay unacknowledged

_PORTS = re.compile(r'([0-9]{1,5})(?:-([0-9]{1,5}))?')


@dataclasses.dataclass
class Target:
    """An open connection to a console; ``rest`` is what it has sent beyond the handshakes."""

    transport: asyncio.Transport
    rest: bytes


def port_ranges(texts: Sequence[str]) -> tuple[range, ...]:
    """Parse ports and ranges of ports such as 5900-6100.

    :raises ValueError: one is neither
    """
    found = []
    for text in texts:
        match = _PORTS.fullmatch(text.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise ValueError(f'[proxy] allowed_ports: {text} is no port or range of ports')
        found.append(range(first, last + 1))
    return tuple(found)


class Connector:
    """Connects to consoles.

    :raises ValueError: an option is wrong
    :raises OSError: a certificate can't be read
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._networks: tuple[Network, ...] = networks(conf.proxy.allowed_networks)
        self._ports = port_ranges(conf.proxy.allowed_ports)
        self._timeout: float = conf.proxy.connect_timeout
        self._schemes: list[str] = conf.vnc.auth_schemes
        self._vencrypt = _vencrypt_context(conf) if 'vencrypt' in self._schemes else None
        self._tls = {
            'spice-html5': _tls_context(conf.spice.target_ca_certs),
            'serial': _tls_context(conf.serial_console.target_ca_certs),
            'webmks': _tls_context(conf.mks.target_ca_certs),
        }

    async def connect(self, console: Any, reached: Callable[[], Awaitable[None]]) -> Target:
        """Connect to a console, and go through all handshakes with its hypervisor.

        Host and port come from the authorized console only (DESIGN invariant 8).

        :param console: a ConsoleConnection
        :param reached: awaited when it is connected and has not been sent a byte; what it raises is the end
        :raises TargetForbidden: it lies outside of the allowed networks and ports
        :raises TargetFailed: it can't be reached, or its handshake went wrong
        :raises TargetTimeout: that took longer than ``connect_timeout``
        """
        options: dict[str, str | None] = console.options
        tls = console.console_type != 'novnc' and (options.get('use_tls') or '').lower() == 'true'
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self._within(self._timeout, console):
            port = int(options.get('tls_port') or console.port) if tls else console.port
            negotiator = await self._reach(console.host, port)
        left = self._timeout - (loop.time() - began)
        try:
            await reached()
            async with self._within(left, console):
                return await self._negotiate(negotiator, console, port, tls=tls)
        except BaseException:
            negotiator.abort()
            raise

    @contextlib.asynccontextmanager
    async def _within(self, seconds: float, console: Any) -> AsyncIterator[None]:
        """For a part of the work: what goes wrong is logged, and becomes what users may know of it."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            LOG.warning('console %s:%s did not answer in %s s', console.host, console.port, self._timeout)
            raise exception.TargetTimeout() from None
        except SecurityFailed as exc:
            LOG.warning('console %s:%s: %s', console.host, console.port, exc)
            raise exception.TargetFailed() from None
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            LOG.warning('console %s:%s: %s', console.host, console.port, exc)
            raise exception.TargetFailed() from None

    async def _negotiate(self, negotiator: _Negotiator, console: Any, port: int, *, tls: bool) -> Target:
        steps: list[Exchange] = []
        if path := console.options.get('internal_access_path'):
            steps.append(Tunnel(path, console.host, port))
        if console.console_type == 'novnc':
            steps.append(HypervisorSide(self._schemes))
        if tls:
            await negotiator.start_tls(self._tls[console.console_type], console.host)
        for step in steps:
            await self._go_through(negotiator, step, console.host)
        return negotiator.finish()

    async def _go_through(self, negotiator: _Negotiator, step: Exchange, host: str) -> None:
        negotiator.send(step.start())
        while not step.done:
            if step.wants_tls:
                if self._vencrypt is None:
                    raise SecurityFailed('no_common_scheme', 'vencrypt is not configured')
                await negotiator.start_tls(self._vencrypt, host)
                negotiator.send(step.tls_started())
                continue
            data = await negotiator.receive()
            if not data:
                step.eof()
            negotiator.send(step.receive(data))
        negotiator.unread(step.rest())

    async def _reach(self, host: str, port: int) -> _Negotiator:
        """Try every address of the name, within an equal share of the time that is left."""
        if not any(port in allowed for allowed in self._ports):
            LOG.error('port %d of console host %s is not in [proxy] allowed_ports', port, host)
            raise exception.TargetForbidden()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        found = await _addresses(host, port)
        addresses = [info for info in found if contains(self._networks, parse_address(str(info[4][0])))]
        if not addresses:
            LOG.error('console host %s is not in [proxy] allowed_networks', host)
            raise exception.TargetForbidden()
        failure: OSError = OSError('no address')
        for left, (family, kind, protocol, _, address) in zip(
            range(len(addresses), 0, -1), addresses, strict=True
        ):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                async with asyncio.timeout((deadline - loop.time()) / left):
                    await loop.sock_connect(sock, address)
                _tune(sock)
                _, negotiator = await loop.create_connection(_Negotiator, sock=sock)
                return negotiator
            except TimeoutError:
                sock.close()
                if left == 1:
                    raise
            except OSError as exc:
                sock.close()
                failure = exc
            except BaseException:
                sock.close()
                raise
        raise failure


async def _addresses(host: str, port: int) -> list[Any]:
    try:  # no thread for what needs no resolver
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _tune(sock: socket.socket) -> None:
    """Send small messages at once; notice a hypervisor that has gone without a word."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ('TCP_KEEPIDLE', _KEEPALIVE_IDLE),
        ('TCP_KEEPINTVL', _KEEPALIVE_INTERVAL),
        ('TCP_KEEPCNT', _KEEPALIVE_COUNT),
        ('TCP_USER_TIMEOUT', _USER_TIMEOUT),
    ):
        with contextlib.suppress(AttributeError, OSError):  # not of this system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _tls_context(ca_certs: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_certs)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _vencrypt_context(conf: cfg.ConfigOpts) -> ssl.SSLContext:
    """The server's certificate and name are checked; ours is shown."""
    if not conf.vnc.vencrypt_ca_certs:
        raise ValueError('[vnc] vencrypt_ca_certs is needed for vencrypt')
    context = _tls_context(conf.vnc.vencrypt_ca_certs)
    if conf.vnc.vencrypt_client_cert:
        context.load_cert_chain(conf.vnc.vencrypt_client_cert, conf.vnc.vencrypt_client_key)
    return context


class _Negotiator(asyncio.Protocol):
    """A connection during its handshakes: what comes is held, and no more is read until it is taken."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held = b''
        self._ended = False
        self._failure: Exception | None = None
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._held += data
        self._transport.pause_reading()
        self._changed.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._changed.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._failure = exc
        self._changed.set()

    def send(self, data: bytes) -> None:
        if data:
            self._transport.write(data)

    async def receive(self) -> bytes:
        """What has come, at least a byte; nothing at the end."""
        while not (self._held or self._ended):
            self._changed.clear()
            self._transport.resume_reading()
            await self._changed.wait()
        if self._failure is not None and not self._held:
            raise OSError(str(self._failure))
        data, self._held = self._held, b''
        return data

    def unread(self, data: bytes) -> None:
        self._held = data + self._held

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """:raises SecurityFailed: there were bytes already that came in clear"""
        if self._held:
            raise SecurityFailed('plaintext_after_tls')
        secured = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        if secured is None:
            raise OSError('the connection was lost')
        self._transport = secured

    def finish(self) -> Target:
        """:raises OSError: the console has closed it"""
        self._transport.pause_reading()
        if self._ended and not self._held:
            raise OSError('the connection was closed')
        return Target(self._transport, self._held)

    def abort(self) -> None:
        self._transport.abort()
