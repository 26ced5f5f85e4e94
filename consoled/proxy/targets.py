# SPDX-License-Identifier: Apache-2.0
"""Connecting to the hypervisor's side of a console: allowed networks and ports, TLS, and the handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from oslo_config import cfg

from consoled import exception
from consoled.proxy import certificates
from consoled.proxy.forwarded import Network, contains, parse_address, parse_networks
from consoled.proxy.limits import RateLimit
from consoled.proxy.resolver import Resolver
from consoled.proxy.security.base import Exchange, SecurityFailed
from consoled.proxy.security.rfb import HypervisorHandshake
from consoled.proxy.security.tunnel import Tunnel

if TYPE_CHECKING:  # only: contrib.websockify imports this module before it may import oslo libraries
    from consoled import objects

LOG = logging.getLogger(__name__)

_KEEPALIVE_IDLE = 30  # seconds of silence before the kernel probes the connection
_KEEPALIVE_INTERVAL = 10  # seconds between probes
_KEEPALIVE_COUNT = 3
_USER_TIMEOUT = 60000  # milliseconds that sent data may stay unacknowledged
_RESET = struct.pack('ii', 1, 0)  # struct linger: on, 0 seconds

# For users who acknowledge what they have seen: what the kernel buffers of a guest's output precedes the echo
# of ^C. It buffers some segments, and over the loopback interface those would be of 64 KiB.
_SMALL_BUFFER = 32 * 1024  # bytes
_SMALL_SEGMENT = 1460  # bytes

_LOGGED_FAILURES = 10  # a minute and console: its user may try again and again

_PORT_RANGE = re.compile(r'([0-9]{1,5})(?:-([0-9]{1,5}))?')


@dataclasses.dataclass
class Target:
    """An open connection to a console.

    :ivar rest: bytes already received after the handshakes
    """

    transport: asyncio.Transport
    rest: bytes


def parse_port_ranges(texts: Sequence[str]) -> tuple[range, ...]:
    """Parse ports and ranges of ports such as 5900-6100.

    :raises ValueError: a text is neither
    """
    found = []
    for text in texts:
        match = _PORT_RANGE.fullmatch(text.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise ValueError(f'[proxy] allowed_ports: {text!r} is not a port or a range of ports')
        found.append(range(first, last + 1))
    return tuple(found)


class Connector:
    """Connects to consoles.

    :param networks: where consoles may be
    :param ports: where consoles may be
    :param timeout: seconds to connect, handshakes included
    :param schemes: RFB security schemes (names of ``rfb.SCHEMES``), the preferred one first
    :param vencrypt: TLS towards VNC servers; needed for the scheme ``vencrypt``
    :param tls: TLS towards the consoles of other types that ask for it (``use_tls``), by console type
    """

    def __init__(
        self,
        *,
        networks: Sequence[Network],
        ports: Sequence[range],
        timeout: float,
        schemes: Sequence[str],
        vencrypt: ssl.SSLContext | None,
        tls: Mapping[str, ssl.SSLContext],
    ) -> None:
        self._networks = networks
        self._ports = ports
        self._timeout = timeout
        self._schemes = schemes
        self._vencrypt = vencrypt
        self._tls = tls
        self._resolver = Resolver()
        self._logged = RateLimit(_LOGGED_FAILURES)

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> Connector:
        """Build the connector from the configuration, reading the certificates now.

        :raises ValueError: an option is malformed, or a certificate cannot be used
        """
        certificates.check_pairs(conf)
        schemes: list[str] = conf.vnc.auth_schemes
        return cls(
            networks=parse_networks(conf.proxy.allowed_networks, 'allowed_networks'),
            ports=parse_port_ranges(conf.proxy.allowed_ports),
            timeout=conf.proxy.connect_timeout,
            schemes=schemes,
            vencrypt=certificates.vencrypt_context(conf) if 'vencrypt' in schemes else None,
            tls={
                'spice-html5': certificates.target_context(conf, 'spice'),
                'serial': certificates.target_context(conf, 'serial_console'),
                'webmks': certificates.target_context(conf, 'mks'),
            },
        )

    async def connect(
        self,
        console: objects.ConsoleConnection,
        on_connected: Callable[[], Awaitable[None]],
        *,
        small_buffers: bool = False,
    ) -> Target:
        """Connect to a console and complete all handshakes with its hypervisor.

        Host and port come from the authorized console only (design.md, invariant 8).

        :param on_connected: awaited once connected, before the first byte is sent; if it raises, the
            connection is aborted
        :param small_buffers: let the kernel buffer little of the console's output
        :raises TargetForbidden: the console lies outside the allowed networks and ports
        :raises TargetFailed: the connection or a handshake failed
        :raises TargetTimeout: both together took longer than the timeout
        """
        options: dict[str, str | None] = console.options
        tls = console.console_type != 'novnc' and (options.get('use_tls') or '').lower() == 'true'
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        async with self._mapped_errors(self._timeout, console):
            port = int(options.get('tls_port') or console.port) if tls else console.port
            negotiator = await self._open_connection(console.host, port, small_buffers=small_buffers)
        remaining = self._timeout - (loop.time() - started_at)
        try:
            await on_connected()
            async with self._mapped_errors(remaining, console):
                return await self._negotiate(negotiator, console, port, tls=tls)
        except BaseException:
            negotiator.abort()
            raise

    @contextlib.asynccontextmanager
    async def _mapped_errors(self, seconds: float, console: objects.ConsoleConnection) -> AsyncIterator[None]:
        """Limit a part of the work to ``seconds``; log its errors and raise what users may know of them."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            if self._may_log(console.host, console.port):
                LOG.warning(
                    'Console %s:%s did not respond within %s s', console.host, console.port, self._timeout
                )
            raise exception.TargetTimeout() from None
        except (SecurityFailed, OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            if self._may_log(console.host, console.port):
                LOG.warning('Failed to open console %s:%s: %s', console.host, console.port, exc)
            raise exception.TargetFailed() from None

    def _may_log(self, host: str, port: int) -> bool:
        """Count a failure of a console; return whether to log it. The audit trail counts the others too."""
        return self._logged.take(((f'{host} {port}', 1),), time.monotonic())

    async def _negotiate(
        self, negotiator: _Negotiator, console: objects.ConsoleConnection, port: int, *, tls: bool
    ) -> Target:
        exchanges: list[Exchange] = []
        if path := console.options.get('internal_access_path'):
            exchanges.append(Tunnel(path, console.host, port))
        if console.console_type == 'novnc':
            exchanges.append(HypervisorHandshake(self._schemes))
        if tls:
            await negotiator.start_tls(self._tls[console.console_type], console.host)
        for exchange in exchanges:
            await self._complete(negotiator, exchange, console.host)
        return negotiator.finish()

    async def _complete(self, negotiator: _Negotiator, exchange: Exchange, host: str) -> None:
        negotiator.send(exchange.start())
        while not exchange.done:
            if exchange.wants_tls:
                if self._vencrypt is None:
                    raise SecurityFailed('no_common_scheme', 'vencrypt is not configured')
                await negotiator.start_tls(self._vencrypt, host)
                negotiator.send(exchange.tls_started())
                continue
            data = await negotiator.receive()
            if not data:
                exchange.eof()
            negotiator.send(exchange.receive(data))
        negotiator.unread(exchange.rest())

    async def _open_connection(self, host: str, port: int, *, small_buffers: bool) -> _Negotiator:
        """Try all allowed addresses of the host in turn, each for an equal share of the time left."""
        if not any(port in allowed for allowed in self._ports):
            if self._may_log(host, port):
                LOG.error('Port %d of console host %s is not in [proxy] allowed_ports', port, host)
            raise exception.TargetForbidden()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        found = await self._resolver.resolve(host, port)
        addresses = [info for info in found if contains(self._networks, parse_address(str(info[4][0])))]
        if not addresses:
            if self._may_log(host, port):
                LOG.error('Console host %s is not in [proxy] allowed_networks', host)
            raise exception.TargetForbidden()
        failure: OSError = OSError('no address')
        for left, (family, kind, protocol, _, address) in zip(
            range(len(addresses), 0, -1), addresses, strict=True
        ):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                if small_buffers:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SMALL_SEGMENT)
                async with asyncio.timeout((deadline - loop.time()) / left):
                    await loop.sock_connect(sock, address)
                _set_socket_options(sock)
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


def _set_socket_options(sock: socket.socket) -> None:
    """Send small messages at once, detect a hypervisor that is gone, and reset what is closed before its end.

    QEMU does not see that a connection to a serial port was closed while its guest does not read the port.
    It sees a reset, which the kernel now sends whenever the connection is closed before both streams have
    ended: also if this process is killed.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ('TCP_KEEPIDLE', _KEEPALIVE_IDLE),
        ('TCP_KEEPINTVL', _KEEPALIVE_INTERVAL),
        ('TCP_KEEPCNT', _KEEPALIVE_COUNT),
        ('TCP_USER_TIMEOUT', _USER_TIMEOUT),
    ):
        with contextlib.suppress(AttributeError, OSError):  # not every system has them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class _Negotiator(asyncio.Protocol):
    """Protocol of a connection during its handshakes.

    Reading is paused while received data waits to be consumed, so it holds one read at most.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = b''
        self._ended = False
        self._failure: Exception | None = None
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
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
        """Return received data, b'' at the end of the stream.

        :raises OSError: the connection was lost
        """
        while not (self._received or self._ended):
            self._changed.clear()
            self._transport.resume_reading()
            await self._changed.wait()
        if self._failure is not None and not self._received:
            raise OSError(str(self._failure))
        data, self._received = self._received, b''
        return data

    def unread(self, data: bytes) -> None:
        """Put data back in front of what is received next."""
        self._received = data + self._received

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Upgrade the connection to TLS.

        :raises SecurityFailed: bytes in clear have already been received
        :raises OSError: the TLS handshake failed
        """
        if self._received:
            raise SecurityFailed('plaintext_after_tls')
        secured = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        if secured is None:
            raise OSError('the connection was lost')
        self._transport = secured

    def finish(self) -> Target:
        """Return the connection, ready to relay.

        :raises OSError: the console has closed it
        """
        self._transport.pause_reading()
        if self._ended and not self._received:
            raise OSError('the connection was closed')
        return Target(self._transport, self._received)

    def abort(self) -> None:
        self._transport.abort()
