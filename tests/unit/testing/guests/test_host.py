# SPDX-License-Identifier: Apache-2.0
"""The thread that runs guests, and what all guests have in common, over real sockets."""

import contextlib
import socket
import subprocess
import sys

import testtools

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.fixture import GuestHostFixture
from consoled.testing.guests.host import GuestHost
from consoled.testing.guests.tcp_guests import EchoGuest, ResetGuest, SilentGuest

TIMEOUT = 10  # seconds; only a failing test uses them up


class GuestsTestCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.host = self.useFixture(GuestHostFixture())

    def connect(self, guest):
        sock = socket.create_connection((guest.host, guest.port), TIMEOUT)
        self.addCleanup(sock.close)
        return sock

    @staticmethod
    def read(sock, length):
        data = bytearray()
        while len(data) < length and (piece := sock.recv(length - len(data))):
            data += piece
        return bytes(data)


class HostTest(GuestsTestCase):
    def test_a_guest_has_a_port_once_it_is_added(self):
        first, second = self.host.add(EchoGuest()), self.host.add(EchoGuest())
        self.assertNotIn(0, (first.port, second.port))
        self.assertNotEqual(first.port, second.port)
        self.connect(first)

    def test_connections_and_clients_are_counted(self):
        guest = self.host.add(EchoGuest())
        one, _two = self.connect(guest), self.connect(guest)
        self.host.settle()
        self.assertEqual((2, 2), (guest.connections, guest.clients))
        one.close()
        wait_until(lambda: guest.clients == 1)
        self.assertEqual(2, guest.connections)

    def test_settle_counts_all_connections_made_before(self):
        guest = self.host.add(ResetGuest())
        for _ in range(50):
            with contextlib.suppress(ConnectionError):
                self.connect(guest).close()
        self.host.settle()
        self.assertEqual(50, guest.connections)

    def test_a_guest_without_clients_counts_no_connections(self):
        guest = self.host.add(EchoGuest())
        self.host.settle()
        self.assertEqual(0, guest.connections)

    def test_removing_a_guest_closes_its_port_and_disconnects_its_clients(self):
        guest = self.host.add(EchoGuest())
        sock = self.connect(guest)
        self.host.settle()
        self.host.remove(guest)
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(b'', sock.recv(1))
        self.assertRaises(ConnectionRefusedError, self.connect, guest)
        self.assertEqual(0, guest.clients)

    def test_a_guest_that_is_added_again_keeps_its_port(self):
        guest = self.host.add(EchoGuest())
        port = guest.port
        self.connect(guest).sendall(b'x')
        self.host.remove(guest)
        self.host.add(guest)
        self.assertEqual(port, guest.port)
        sock = self.connect(guest)
        sock.sendall(b'again')
        self.assertEqual(b'again', self.read(sock, 5))

    def test_disconnecting_leaves_the_port_open(self):
        guest = self.host.add(EchoGuest())
        sock = self.connect(guest)
        self.host.settle()
        self.host.disconnect(guest)
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(b'', sock.recv(1))
        self.connect(guest)

    def test_an_address_in_use_is_an_error(self):
        guest = self.host.add(EchoGuest())
        self.assertRaises(OSError, self.host.add, EchoGuest(port=guest.port))

    def test_a_guest_on_ipv6(self):
        try:
            guest = self.host.add(EchoGuest('::1'))
        except OSError as exc:
            self.skipTest(f'IPv6 is not available: {exc}')
        sock = self.connect(guest)
        sock.sendall(b'six')
        self.assertEqual(b'six', self.read(sock, 3))

    def test_stopping_the_host_ends_the_thread_and_all_guests(self):
        with GuestHost() as host:
            guest = host.add(SilentGuest())
            self.connect(guest)
            host.settle()
            thread = host._thread
        self.assertFalse(thread.is_alive())
        self.assertRaises(ConnectionRefusedError, self.connect, guest)
        host.stop()  # a second time does nothing
        self.assertRaises(RuntimeError, host.add, EchoGuest())
        host.start()
        self.addCleanup(host.stop)
        self.connect(host.add(guest))

    def test_clients_beyond_the_limit_wait(self):
        class OneClientGuest(EchoGuest):
            def __init__(self):
                super().__init__(clients=1)

        guest = self.host.add(OneClientGuest())
        first, second = self.connect(guest), self.connect(guest)
        second.sendall(b'me too')
        self.host.settle()
        self.assertEqual((1, 1), (guest.connections, guest.clients))
        first.close()
        self.assertEqual(b'me too', self.read(second, 6))

    def test_the_demo_needs_no_test_libraries(self):
        code = (
            'import sys; sys.modules.update(dict.fromkeys(["fixtures", "testtools"]))\n'
            'from consoled.testing.guests import host, serial_guest, tcp_guests, vnc_guest'
        )
        subprocess.run([sys.executable, '-c', code], check=True, timeout=60)
