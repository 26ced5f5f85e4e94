# SPDX-License-Identifier: Apache-2.0
"""A port that is reassigned between authorization and connection: the next guest receives nothing."""

import contextlib
import json
import pathlib
import socket
import time

import fixtures as fixtures_library
from testtools.content import text_content

from consoled.db import models
from consoled.manager.sessions import SessionOpener
from consoled.proxy import admission
from consoled.testing import daemons
from consoled.testing.fixtures import wait_until
from tests.functional import compute_base
from tests.functional.compute_base import a_guest, stopped
from tests.functional.raw_user import PATIENCE, User, frame, handshake

_QUEUE_FULL = 0.3  # seconds without an answer that mean that a listener's queue is full
_SYN_SENT = ' 02 '  # state in /proc/net/tcp


class LateGuest(fixtures_library.Fixture):
    """A listener with a full queue: a client that connects waits until ``accept``."""

    def _setUp(self):  # noqa: N802 - named by the library
        self._listener = socket.create_server(('127.0.0.1', 0), backlog=0)
        self.addCleanup(self._listener.close)
        self._listener.settimeout(PATIENCE)
        self.port = self._listener.getsockname()[1]
        self._others = 0
        with contextlib.suppress(TimeoutError):
            while True:
                other = socket.create_connection(('127.0.0.1', self.port), _QUEUE_FULL)
                self.addCleanup(other.close)
                self._others += 1

    def has_waiting_client(self):
        """Return whether a client is waiting for its connection to be accepted."""
        wanted = f':{self.port:04X} '
        lines = pathlib.Path('/proc/net/tcp').read_text().splitlines()
        return any(_SYN_SENT in line and wanted in line.split(_SYN_SENT)[0] + ' ' for line in lines)

    def accept(self):
        """Accept the connections that fill the queue, then the waiting client's, and return that one."""
        for _ in range(self._others):
            self._listener.accept()[0].close()
        sock = self._listener.accept()[0]
        self.addCleanup(sock.close)
        sock.settimeout(PATIENCE)
        return sock


class LateTest(compute_base.AgentTestCase):
    engine = 'sqlite'
    emptied = (models.instances,)  # the proxy's row stays: the daemon outlives the test

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.daemon = daemons.ProxyProcess(cls.bus, {'proxy': {'connect_timeout': 20}})
        cls.daemon.setUp()
        cls.addClassCleanup(cls.daemon.cleanUp)
        cls.daemon.wait_ready()

    def setUp(self):
        super().setUp()
        start = len(self.daemon.log())
        self.addOnException(lambda _: self.addDetail('proxy', text_content(self.daemon.log()[start:])))
        self.late = self.useFixture(LateGuest())
        self.guest = self.put(self.late.port, host='127.0.0.1')

    def request(self):
        """Return a user who has requested the guest's console and sent input with the request."""
        user = User(self.daemon.port)
        self.addCleanup(user.leave)
        target = f'/?token={self.get(self.guest).token}'
        return user.send(handshake(target, Accept='application/json') + frame(b'secret'))

    def replace(self):
        """Give the port to another guest, without the managers being told."""
        self.driver.watch(lambda uuid: None)
        self.driver.put(stopped(self.guest))
        self.driver.put(a_guest(self.late.port, host='127.0.0.1'))

    def assert_gone(self, user, connection):
        answer = user.answer()
        self.assertEqual((404, 'console_gone'), (answer.status, json.loads(answer.body)['code']))
        self.assertRaises(ConnectionResetError, connection.recv, 100)  # without a byte
        wait_until(lambda: self.count('console_session') == 0, what='the end of the session')

    def test_the_port_is_reassigned_during_a_slow_connection(self):
        user = self.request()
        wait_until(self.late.has_waiting_client, what='the proxy')
        self.replace()
        self.assert_gone(user, self.late.accept())

    def test_the_port_is_reassigned_during_a_slow_authorization(self):
        claimed = SessionOpener._claim

        def slowly(*args):
            session = claimed(*args)
            self.replace()
            time.sleep(admission._FRESH + 0.05)
            return session

        self.useFixture(
            fixtures_library.MonkeyPatch('consoled.manager.sessions.SessionOpener._claim', slowly)
        )
        user = self.request()
        self.assert_gone(user, self.late.accept())

    def test_a_slow_connection_to_the_same_guest_works(self):
        user = self.request()
        wait_until(self.late.has_waiting_client, what='the proxy')
        connection = self.late.accept()
        self.assertEqual(101, user.answer().status)
        self.assertEqual(b'secret', connection.recv(100))
        connection.sendall(b'hello')
        self.assertEqual(b'hello', user.message(5))
        self.assertEqual(1, self.count('console_session'))
