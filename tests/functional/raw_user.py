# SPDX-License-Identifier: Apache-2.0
"""A user of a proxy, as a raw connection: the test controls every byte.

``User`` checks nothing and sends exactly the bytes that a test passes to it; only ``message`` answers pings.
"""

import contextlib
import dataclasses
import email.parser
import socket
import ssl
import struct

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

HANDSHAKE = (
    'GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyBpdA==\r\n{headers}\r\n'
)
MASK = b'\x3a\xc5\x9e\x61'
PATIENCE = 20.0  # seconds to wait for a response; only a failing test uses them up
MIB = 1024 * 1024

_NO_LINGER = struct.pack('ii', 1, 0)


def frame(payload=b'', opcode=BINARY, *, fin=True, rsv=0, masked=True, length=None):
    """Return a frame as a client sends it (RFC 6455, section 5.2), or a malformed one.

    :param length: the length in the header, if it is to differ from the payload's
    """
    declared = len(payload) if length is None else length
    first, flag = fin << 7 | rsv << 4 | opcode, masked << 7
    if declared < 126:
        head = struct.pack('!BB', first, flag | declared)
    elif declared < 65536:
        head = struct.pack('!BBH', first, flag | 126, declared)
    else:
        head = struct.pack('!BBQ', first, flag | 127, declared)
    if not masked:
        return head + payload
    pad = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    hidden = int.from_bytes(payload, 'big') ^ int.from_bytes(pad, 'big')
    return head + MASK + hidden.to_bytes(len(payload), 'big')


def close_frame(code=1000):
    return frame(struct.pack('!H', code), CLOSE)


def handshake(target, **headers):
    """Return the request that opens a websocket."""
    more = ''.join(f'{name.replace("_", "-")}: {value}\r\n' for name, value in headers.items())
    return HANDSHAKE.format(target=target, headers=more).encode()


@dataclasses.dataclass
class Answer:
    """An HTTP response; the names of ``headers`` are in lower case."""

    status: int
    headers: dict
    body: bytes
    raw_head: bytes


class User:
    """A user's end of a connection to a proxy.

    :param tls: the client's TLS context, or None
    :param source: the loopback address to connect from
    :param rcvbuf: size of the kernel's receive buffer in bytes, for users that do not read
    """

    def __init__(self, port, *, tls=None, source='127.0.0.1', rcvbuf=None):
        self.sock = socket.socket()
        self.sock.settimeout(PATIENCE)
        if rcvbuf is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._held = b''
        try:
            self.sock.bind((source, 0))
            self.sock.connect(('127.0.0.1', port))
            if tls is not None:
                self.sock = tls.wrap_socket(self.sock, server_hostname='localhost')
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.leave()

    # sending

    def send(self, data):
        self.sock.sendall(data)
        return self

    def flood(self, data, seconds, most=64 * MIB):
        """Send ``data`` repeatedly until sending blocks for that many seconds, or ``most`` bytes are sent.

        :returns: the number of bytes sent
        """
        sent = 0
        with contextlib.suppress(OSError):  # includes TimeoutError
            self.sock.settimeout(seconds)
            while sent < most:
                sent += self.sock.send(data[sent % len(data) :])
        with contextlib.suppress(OSError):
            self.sock.settimeout(PATIENCE)
        return sent

    # receiving

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f'connection closed after {self._held[-200:]!r}')
        self._held += data

    def _take(self, size):
        while len(self._held) < size:
            self._more()
        data, self._held = self._held[:size], self._held[size:]
        return data

    def answer(self, *, head=False):
        """Read the next HTTP response."""
        while b'\r\n\r\n' not in self._held:
            self._more()
        raw, _, self._held = self._held.partition(b'\r\n\r\n')
        line, _, rest = raw.partition(b'\r\n')
        parsed = email.parser.BytesHeaderParser().parsebytes(rest)
        headers = {name.lower(): value for name, value in parsed.items()}
        body = b'' if head else self._take(int(headers.get('content-length', 0)))
        return Answer(int(line.split()[1]), headers, body, raw)

    def frame(self):
        """Read the next frame: opcode and payload."""
        first, size = self._take(2)
        if size == 126:
            size = int.from_bytes(self._take(2), 'big')
        elif size == 127:
            size = int.from_bytes(self._take(8), 'big')
        return first & 15, self._take(size)

    def message(self, size):
        """Read ``size`` bytes from the guest, or more: whole frames. Answers pings that come meanwhile.

        :raises ValueError: on any other frame
        """
        data = b''
        while len(data) < size:
            opcode, payload = self.frame()
            if opcode == PING:
                self.send(frame(payload, PONG))
            elif opcode == BINARY:
                data += payload
            else:
                raise ValueError(f'opcode {opcode}: {payload!r}')
        return data

    def close_code(self):
        """Read until the websocket or connection is closed; return the close code, or None without one."""
        with contextlib.suppress(EOFError, ConnectionError, ssl.SSLError):
            while True:
                opcode, payload = self.frame()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], 'big')
        return None

    def ended(self):
        """Read until the proxy closes the connection, and return everything received."""
        with contextlib.suppress(EOFError, ConnectionError, ssl.SSLError):
            while True:
                self._more()
        return self._held

    # leaving

    def eof(self):
        """Send FIN and keep the connection half open; over TLS without close_notify."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def leave(self):
        """Close the connection with FIN, as the kernel does for a process that exits."""
        self.sock.close()

    def reset(self):
        """Reset the connection (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.sock.close()
