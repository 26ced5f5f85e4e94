# SPDX-License-Identifier: Apache-2.0
"""The plain guests, and the thread that guests run in: over real sockets."""

import contextlib
import random
import socket
import subprocess
import sys
import threading

import testtools

from consoled.testing.fixtures import wait_until
from consoled.testing.guests import plain
from consoled.testing.guests.fixture import GuestHostFixture

WITHIN = 10  # seconds, for what takes milliseconds


class GuestsTestCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.host = self.useFixture(GuestHostFixture())

    def connect(self, guest):
        sock = socket.create_connection((guest.host, guest.port), WITHIN)
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
        first, second = self.host.add(plain.EchoGuest()), self.host.add(plain.EchoGuest())
        self.assertNotIn(0, (first.port, second.port))
        self.assertNotEqual(first.port, second.port)
        self.connect(first)

    def test_connections_and_clients_are_counted(self):
        guest = self.host.add(plain.EchoGuest())
        one, _two = self.connect(guest), self.connect(guest)
        self.host.settle()
        self.assertEqual((2, 2), (guest.connections, guest.clients))
        one.close()
        wait_until(lambda: guest.clients == 1)
        self.assertEqual(2, guest.connections)

    def test_settling_counts_all_that_were_connected_before(self):
        guest = self.host.add(plain.ResetGuest())
        for _ in range(50):
            with contextlib.suppress(ConnectionError):
                self.connect(guest).close()
        self.host.settle()
        self.assertEqual(50, guest.connections)

    def test_who_is_not_connected_to_counts_nothing(self):
        guest = self.host.add(plain.EchoGuest())
        self.host.settle()
        self.assertEqual(0, guest.connections)

    def test_a_removed_guest_is_gone_with_its_clients(self):
        guest = self.host.add(plain.EchoGuest())
        sock = self.connect(guest)
        self.host.settle()
        self.host.remove(guest)
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(b'', sock.recv(1))
        self.assertRaises(ConnectionRefusedError, self.connect, guest)
        self.assertEqual(0, guest.clients)

    def test_a_guest_comes_back_on_its_port(self):
        guest = self.host.add(plain.EchoGuest())
        port = guest.port
        self.connect(guest).sendall(b'x')
        self.host.remove(guest)
        self.host.add(guest)
        self.assertEqual(port, guest.port)
        sock = self.connect(guest)
        sock.sendall(b'again')
        self.assertEqual(b'again', self.read(sock, 5))

    def test_disconnecting_leaves_the_port_open(self):
        guest = self.host.add(plain.EchoGuest())
        sock = self.connect(guest)
        self.host.settle()
        self.host.disconnect(guest)
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(b'', sock.recv(1))
        self.connect(guest)

    def test_a_taken_address_is_an_error(self):
        guest = self.host.add(plain.EchoGuest())
        self.assertRaises(OSError, self.host.add, plain.EchoGuest(port=guest.port))

    def test_a_guest_on_ipv6(self):
        try:
            guest = self.host.add(plain.EchoGuest('::1'))
        except OSError as exc:
            self.skipTest(f'no IPv6 here: {exc}')
        sock = self.connect(guest)
        sock.sendall(b'six')
        self.assertEqual(b'six', self.read(sock, 3))

    def test_stopping_ends_the_thread_and_closes_all(self):
        with plain.GuestHost() as host:
            guest = host.add(plain.SilentGuest())
            self.connect(guest)
            host.settle()
            thread = host._thread
        self.assertFalse(thread.is_alive())
        self.assertRaises(ConnectionRefusedError, self.connect, guest)
        host.stop()  # a second time does nothing
        self.assertRaises(RuntimeError, host.add, plain.EchoGuest())
        host.start()
        self.addCleanup(host.stop)
        self.connect(host.add(guest))

    def test_clients_beyond_the_limit_wait(self):
        class One(plain.EchoGuest):
            def __init__(self):
                super().__init__(clients=1)

        guest = self.host.add(One())
        first, second = self.connect(guest), self.connect(guest)
        second.sendall(b'me too')
        self.host.settle()
        self.assertEqual((1, 1), (guest.connections, guest.clients))
        first.close()
        self.assertEqual(b'me too', self.read(second, 6))

    def test_the_demo_gets_by_without_the_libraries_of_tests(self):
        code = (
            'import sys; sys.modules.update(dict.fromkeys(["fixtures", "testtools"]))\n'
            'from consoled.testing.guests import plain, rfb_guest, serial_guest'
        )
        subprocess.run([sys.executable, '-c', code], check=True, timeout=60)


class EchoTest(GuestsTestCase):
    def test_it_echoes_and_ends_with_the_client(self):
        sock = self.connect(self.host.add(plain.EchoGuest()))
        data = random.Random(1).randbytes(300_000)
        writer = threading.Thread(target=sock.sendall, args=(data,))
        writer.start()
        self.assertEqual(data, self.read(sock, len(data)))
        writer.join()
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(b'', sock.recv(1))


class StreamTest(GuestsTestCase):
    def test_the_pattern_is_the_same_wherever_it_is_cut(self):
        whole = plain.pattern(0, 200_000)
        self.assertEqual(200_000, len(whole))
        for offset in (0, 1, 65520, 65521, 65522, 131_042, 199_999):
            self.assertEqual(whole[offset:], plain.pattern(offset, 200_000 - offset))
        self.assertEqual(b'', plain.pattern(5, 0))

    def test_a_client_gets_the_pattern_and_eof(self):
        guest = self.host.add(plain.StreamGuest(total=3_000_001))
        sock = self.connect(guest)
        check = plain.PatternCheck()
        while piece := sock.recv(70_000):
            check.feed(piece)
        self.assertEqual((3_000_001, True), (check.received, check.correct))
        self.assertEqual(3_000_001, guest.sent)

    def test_a_client_that_does_not_read_holds_it_up(self):
        guest = self.host.add(plain.StreamGuest(total=2**30))
        self.connect(guest)
        sent = -1
        while sent != (sent := guest.sent) or not sent:
            self.host.settle()
        self.assertLess(guest.sent, 2**25)  # what the kernel buffers on loopback

    def test_what_clients_send_is_checked(self):
        guest = self.host.add(plain.StreamGuest(total=0))
        good, bad = self.connect(guest), self.connect(guest)
        good.sendall(plain.pattern(0, 150_000))
        bad.sendall(plain.pattern(0, 1000) + plain.pattern(1001, 1000))
        for sock in (good, bad):
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(b'', sock.recv(1))
        self.assertEqual(
            [(2000, False), (150_000, True)], sorted((each.received, each.correct) for each in guest.uploads)
        )


class SilentTest(GuestsTestCase):
    def test_it_neither_reads_nor_writes(self):
        guest = self.host.add(plain.SilentGuest())
        sock = self.connect(guest)
        self.host.settle()
        self.assertEqual(1, guest.clients)
        sock.setblocking(False)
        self.assertRaises(BlockingIOError, sock.recv, 1)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 2**26:
                sent += sock.send(bytes(2**16))
        self.assertLess(sent, 2**25)


class ResetTest(GuestsTestCase):
    def test_it_resets_at_once(self):
        guest = self.host.add(plain.ResetGuest())
        # it may be so quick that connecting hears of it already
        self.assertRaises(ConnectionResetError, lambda: self.connect(guest).recv(1))

    def test_it_resets_after_so_many_bytes(self):
        guest = self.host.add(plain.ResetGuest(after=5))
        sock = self.connect(guest)
        sock.sendall(b'1234')
        self.host.settle()
        self.assertEqual(1, guest.clients)
        sock.sendall(b'5')
        self.assertRaises(ConnectionResetError, sock.recv, 1)
        self.host.settle()
        self.assertEqual((1, 0), (guest.connections, guest.clients))
