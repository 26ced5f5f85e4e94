# SPDX-License-Identifier: Apache-2.0
"""The monitoring server: clients that are slow, or ask too much, do not keep others from being answered."""

import contextlib
import http.client
import socket
import threading

import fixtures
import prometheus_client
import testtools

from consoled import monitoring
from tests.functional.raw_user import PATIENCE

_MANY = 3 * monitoring._MAX_WAITING


class MonitoringTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.hangs, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.registry = prometheus_client.CollectorRegistry()
        readiness = monitoring.Readiness({'bus': self.check})
        app = monitoring.application(self.registry, readiness)
        self.server = monitoring.MonitoringServer('127.0.0.1', 0, app)
        self.server.start()
        self.addCleanup(self.server.stop)
        self.addCleanup(self.go.set)

    def check(self):
        self.hangs.set()
        self.go.wait(PATIENCE)

    def get(self, path):
        connection = http.client.HTTPConnection('127.0.0.1', self.server.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request('GET', path)
            return connection.getresponse().status

    def client(self, data=b'', rcvbuf=None):
        """Return a connection that has sent these bytes."""
        sock = socket.socket()
        self.addCleanup(sock.close)
        if rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.settimeout(PATIENCE)
        sock.connect(('127.0.0.1', self.server.port))
        sock.sendall(data)
        return sock

    def test_clients_that_send_slowly_do_not_keep_others_from_being_answered(self):
        slow = []
        for _ in range(_MANY):
            slow.append(self.client(b'GET /metrics HTTP/1.1\r\n'))
            self.assertEqual(200, self.get('/readyz'))
        for sock in slow[-monitoring._MAX_WAITING // 2 :]:
            sock.sendall(b'X: y\r\n')
            self.assertEqual(200, self.get('/readyz'))

    def test_a_request_has_one_deadline_however_often_a_line_arrives(self):
        self.useFixture(fixtures.MockPatchObject(monitoring, '_REQUEST_TIMEOUT', 0.5))
        slow = self.client(b'GET /readyz HTTP/1.1\r\n')
        slow.settimeout(0.1)
        with contextlib.suppress(ConnectionError):
            for _ in range(int(PATIENCE / 0.1)):
                slow.sendall(b'X: y\r\n')
                try:
                    self.assertEqual(b'', slow.recv(1))
                    return
                except TimeoutError:
                    continue
            self.fail('the request was waited for without end')

    def test_clients_that_read_slowly_do_not_keep_others_from_being_answered(self):
        for number in range(2000):
            prometheus_client.Gauge(f'gauge_{number}', 'x' * 4000, registry=self.registry)
        for _ in range(_MANY):
            self.client(b'GET /metrics HTTP/1.1\r\n\r\n', rcvbuf=4096)
        for _ in range(5):
            self.assertEqual(200, self.get('/readyz'))

    def test_a_check_that_hangs_does_not_keep_other_paths_from_being_answered(self):
        self.go.clear()
        self.client(b'GET /readyz HTTP/1.1\r\n\r\n')
        self.assertTrue(self.hangs.wait(PATIENCE))
        for _ in range(_MANY):
            self.client(b'GET /readyz HTTP/1.1\r\n\r\n')
        for path in ('/healthz', '/metrics'):
            self.assertEqual(200, self.get(path))
        self.assertEqual(503, self.get('/readyz'), 'as many as may wait for the check do so')

    def test_a_request_that_is_too_large_is_not_read(self):
        sock = self.client()
        with contextlib.suppress(ConnectionError):
            sock.sendall(b'GET /readyz HTTP/1.1\r\n' + b'X: y\r\n' * 1_000_000)
            self.assertEqual(b'', sock.recv(1))
        self.assertEqual(200, self.get('/readyz'))

    def test_malformed_requests(self):
        for data in (
            b'\r\n\r\n',
            b'garbage\n\n',
            b'GET\r\n\r\n',
            b'GET / HTTP/9.9\r\n\r\n',
            b'\0' * 100 + b'\n\n',
        ):
            with contextlib.closing(self.client(data)) as sock, contextlib.suppress(ConnectionError):
                sock.recv(65536)
        self.assertEqual(200, self.get('/readyz'))
