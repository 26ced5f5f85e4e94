# SPDX-License-Identifier: Apache-2.0
"""Base of the proxy tests: the daemon on a cell, guests, and a user whose bytes the test controls.

``User`` is a raw connection: it checks nothing and sends exactly the bytes that a test passes to it; only
``message`` answers pings. ``ProxyTestCase`` checks that nothing is left when users and guests are gone.
"""

import contextlib
import dataclasses
import email.parser
import pathlib
import socket
import ssl
import struct
import time
import urllib.parse
import urllib.request

import fixtures
import psutil
import testtools
import trustme
from testtools.content import text_content

from consoled.context import RequestContext
from consoled.testing import daemons
from consoled.testing.fixtures import wait_until
from consoled.testing.guests.base import FakeGuest
from consoled.testing.guests.fixture import GuestHostFixture
from consoled.testing.guests.tcp_guests import EchoGuest
from tests.functional import base

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


class Authority:
    """A certificate authority with a server certificate for localhost in a file, and a client context."""

    def __init__(self, directory):
        authority = trustme.CA()
        self.path = pathlib.Path(directory, 'localhost.pem')
        authority.issue_cert('localhost', '127.0.0.1').private_key_and_cert_chain_pem.write_to_path(self.path)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


class ScriptedGuest(FakeGuest):
    """A guest that runs ``script(reader, writer)`` for each client."""

    def __init__(self, script, **how):
        super().__init__(**how)
        self.serve = script


@dataclasses.dataclass(frozen=True)
class Resources:
    """Resources held by users: sessions, their rows, connections, and the worker's file descriptors."""

    sessions: int
    rows: int
    connections: int
    descriptors: int


class ProxyTestCase(base.CellTestCase):
    """A cell with a proxy daemon for all tests of the class, an echo guest for each test, and users.

    :cvar proxy_options: the daemon's options in [proxy]
    :cvar tls: whether users connect with TLS
    """

    engine = 'sqlite'
    proxy_options: dict = {}
    tls = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.authority = Authority(cls.fixture(fixtures.TempDir()).path) if cls.tls else None
        cls.guests = cls.fixture(GuestHostFixture())
        cls.daemon = cls.fixture(cls.new_daemon())
        cls.daemon.wait_ready()

    @classmethod
    def fixture(cls, fixture):
        fixture.setUp()
        cls.addClassCleanup(fixture.cleanUp)
        return fixture

    @classmethod
    def new_daemon(cls, **options):
        """Return a proxy with the options of this class and these, not started."""
        secure = {} if cls.authority is None else {'ssl_cert': cls.authority.path}
        return daemons.ProxyProcess(cls.bus, {'proxy': {**secure, **cls.proxy_options, **options}})

    def setUp(self):
        testtools.TestCase.setUp(self)  # not CellTestCase's, which would delete the row of the class's proxy
        self.context = RequestContext(user_id='user-1', project_id='project-1')
        self.instance = base.new_uuid()
        self.guest = self.add(EchoGuest())
        self.use(self.daemon)
        self.wait_until(
            lambda: dataclasses.astuple(self.resources())[:3] == (0, 0, 0), 'the end of earlier tests'
        )
        self.before = self.resources()

    def use(self, daemon):
        """Let users connect to this proxy from now on."""
        self.daemon = daemon
        [self.worker] = daemon.worker_pids()
        self.before = self.resources()
        start = len(daemon.log())
        self.addOnException(lambda _: self.addDetail('proxy', text_content(daemon.log()[start:][-8000:])))
        self.addCleanup(lambda: self.assert_no_traceback(daemon.log()[start:]))

    def assert_no_traceback(self, log):
        # asyncio (3.11) may close a TLS connection twice when it is lost as its last bytes are sent
        twice = log.count('Exception in callback _SelectorSocketTransport._call_connection_lost')
        self.assertEqual(2 * twice, log.count('Traceback'), log)

    def use_another(self, **options):
        """Start a proxy with additional options, and let users connect to it from now on."""
        daemon = self.useFixture(self.new_daemon(**options))
        daemon.wait_ready()
        self.use(daemon)

    def add(self, guest):
        self.guests.add(guest)
        self.addCleanup(self.guests.remove, guest)
        return guest

    # users

    def grant(self, guest=None, **changes):
        """Authorize a console and return the path of its websocket, with the token."""
        changes = {'host': '127.0.0.1', 'port': (guest or self.guest).port, **changes}
        return f'/?token={self.authorize(**changes).token}'

    def user(self, **how):
        """Connect a user to the proxy."""
        tls = self.authority.client if self.authority else None
        user = User(self.daemon.port, **{'tls': tls, **how})
        self.addCleanup(user.leave)
        return user

    def ask(self, target, user=None, **headers):
        """Request a websocket; return the user and the response."""
        user = user or self.user()
        user.send(handshake(target, **headers))
        return user, user.answer()

    def opened(self, guest=None, *, target=None, **how):
        """Return a user with an open session."""
        user, answer = self.ask(target or self.grant(guest), self.user(**how))
        self.assertEqual(101, answer.status, answer)
        return user

    def assert_echo(self, user, text=b'are you there?'):
        """Assert that the session of a user with an ``EchoGuest`` works."""
        user.send(frame(text))
        self.assertEqual(text, user.message(len(text)))

    # resources

    def metrics(self):
        """Return the proxy's metrics: values by name with labels, as they are written."""
        url = f'http://127.0.0.1:{self.daemon.monitoring_port}/metrics'
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (x.rsplit(' ', 1) for x in lines if x[0] != '#')}

    def metric(self, name, label='', values=None):
        """Return the sum of a metric over all its label sets that contain ``label``."""
        found = (values or self.metrics()).items()
        return sum(int(value) for key, value in found if key.startswith(name + '{') and label in key)

    def ended_as(self, reason):
        """Return how many sessions have ended for this reason."""
        return self.metric('consoled_proxy_closed_total', f'reason="{reason}"')

    def descriptors(self):
        """Count the worker's file descriptors, except connections to the bus (a pool) and metrics files."""
        broker = urllib.parse.urlsplit(self.bus).port
        sockets = psutil.Process(self.worker).net_connections('tcp')
        to_bus = [sock for sock in sockets if sock.raddr and sock.raddr.port == broker]
        count = 0
        for path in pathlib.Path(f'/proc/{self.worker}/fd').iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += not path.readlink().name.endswith('.db')
        return count - len(to_bus)

    def rss(self):
        return psutil.Process(self.worker).memory_info().rss

    def resources(self):
        values = self.metrics()
        return Resources(
            self.metric('consoled_proxy_sessions', values=values),
            self.count('console_session'),
            self.metric('consoled_proxy_connections', values=values),
            self.descriptors(),
        )

    def assert_nothing_left(self):
        """Assert that sessions, rows, connections and descriptors fall back to what the test began with."""
        deadline = time.monotonic() + PATIENCE
        while (resources := self.resources()) != self.before and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(self.before, resources)

    def assert_slot_free(self, guest=None):
        """Assert that nothing is left, and that the console, limited to one session, can be opened again."""
        self.assert_nothing_left()
        with self.opened(guest) as user:
            user.send(close_frame())
            user.close_code()
        self.assert_nothing_left()

    @contextlib.contextmanager
    def memory_within(self, growth):
        """Assert that the worker's memory grows by at most ``growth`` bytes during the block."""
        before = self.rss()
        yield
        self.assertLess((self.rss() - before) / MIB, growth / MIB)

    def wait_until(self, condition, what='condition'):
        return wait_until(condition, timeout=PATIENCE, what=what)
