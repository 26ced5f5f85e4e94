# SPDX-License-Identifier: Apache-2.0
"""A minimal, fast implementation of the client's side of a websocket (RFC 6455)."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import random
import socket
import ssl
import struct

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
CONTROL = 8  # the first opcode of control frames

# The data of streams and uploads. Both sides know it and notice lost, repeated and reordered data.
PATTERN = random.Random(6455).randbytes(1 << 20)

_KEY = base64.b64encode(b'sixteen bytes it').decode()
_ACCEPT = base64.b64encode(
    hashlib.sha1(f'{_KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11'.encode(), usedforsecurity=False).digest()
)
_MASK = bytes.fromhex('3ac59e61')
_MAX_HEADER = 65536
_NO_PORT_YET = getattr(socket, 'IP_BIND_ADDRESS_NO_PORT', 24)  # named from Python 3.12 on


class Refused(Exception):
    """The proxy did not respond with an upgrade."""


@dataclasses.dataclass(frozen=True)
class Route:
    """A way to reach a guest.

    :param path: path of the websocket, with the token; None for plain TCP
    :param ca: file with the certificate to trust; None without TLS
    """

    port: int
    path: str | None = None
    ca: str | None = None


def connect(route: Route, source: str = '', timeout: float = 30.0) -> tuple[socket.socket, bytes]:
    """Connect and upgrade.

    :param source: loopback address to connect from
    :returns: the blocking socket, and the data that followed the response's header
    :raises Refused: when the response is not an upgrade
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            sock.setsockopt(socket.IPPROTO_IP, _NO_PORT_YET, 1)
            sock.bind((source, 0))
        sock.connect(('127.0.0.1', route.port))
        if route.ca:
            sock = ssl.create_default_context(cafile=route.ca).wrap_socket(sock, server_hostname='localhost')
        return sock, b'' if route.path is None else _upgrade(sock, route)
    except BaseException:
        sock.close()
        raise


def _upgrade(sock: socket.socket, route: Route) -> bytes:
    request = (
        f'GET {route.path} HTTP/1.1',
        f'Host: localhost:{route.port}',
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        f'Sec-WebSocket-Key: {_KEY}',
    )
    sock.sendall('\r\n'.join((*request, '', '')).encode())
    answer = b''
    while b'\r\n\r\n' not in answer:
        got = sock.recv(65536)
        if not got or len(answer) > _MAX_HEADER:
            raise Refused(f'closed after {answer!r}')
        answer += got
    header, _, rest = answer.partition(b'\r\n\r\n')
    if not header.startswith(b'HTTP/1.1 101 ') or _ACCEPT not in header:
        raise Refused(header.partition(b'\r\n')[0].decode(errors='replace'))
    return rest


def masked(payload: bytes, opcode: int = BINARY) -> bytes:
    """Return a masked frame, as clients send it."""
    size = len(payload)
    if size < 126:
        head = struct.pack('!BB', 0x80 | opcode, 0x80 | size)
    elif size < 65536:
        head = struct.pack('!BBH', 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack('!BBQ', 0x80 | opcode, 0x80 | 127, size)
    mask = (_MASK * (size // 4 + 1))[:size]
    hidden = int.from_bytes(payload, 'big') ^ int.from_bytes(mask, 'big')
    return head + _MASK + hidden.to_bytes(size, 'big')


def header(data: bytes | memoryview, at: int, end: int) -> tuple[int, int, int] | None:
    """Parse the header of a frame from a server.

    :returns: opcode, size and start of the payload; None if ``data[at:end]`` does not have the whole header
    """
    if end - at < 2:
        return None
    size, start = data[at + 1], at + 2
    if size > 127:
        raise ValueError('a masked frame from a server')
    if size > 125:
        start += 2 if size == 126 else 8
        if end < start:
            return None
        size = int.from_bytes(data[at + 2 : start], 'big')
    return data[at] & 15, size, start


def parse(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the complete frames in ``data`` as (opcode, payload), and the rest of the data."""
    frames = []
    at, end = 0, len(data)
    while (found := header(data, at, end)) and found[1] + found[2] <= end:
        opcode, size, start = found
        at = start + size
        frames.append((opcode, data[start:at]))
    return frames, data[at:]
