# SPDX-License-Identifier: Apache-2.0
"""Base of the proxy tests: the daemon on a cell, guests and users.

``ProxyTestCase`` checks that nothing is left behind when users and guests are gone.
"""

import contextlib
import dataclasses
import pathlib
import ssl
import time
import urllib.parse
import urllib.request

import fixtures
import psutil
import testtools
import trustme
from testtools.content import text_content

from consoled import exception
from consoled.context import RequestContext
from consoled.testing import daemons
from consoled.testing.fixtures import wait_until
from consoled.testing.guests.base import FakeGuest
from consoled.testing.guests.fixture import GuestHostFixture
from consoled.testing.guests.tcp_guests import EchoGuest
from tests.functional import base
from tests.functional.raw_user import MIB, PATIENCE, User, close_frame, frame, handshake


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
        self.addCleanup(self.forget, self.instance)
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

    def forget(self, instance):
        """Delete an instance: the guest of a later test may get the port of its guest."""
        with contextlib.suppress(exception.ManagerUnreachable):
            self.api.clean_console_auths_for_instance(self.context, instance)

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
