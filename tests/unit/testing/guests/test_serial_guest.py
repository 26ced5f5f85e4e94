# SPDX-License-Identifier: Apache-2.0
"""The guest with a serial console, over real sockets."""

import socket
import threading

import testtools

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.fixture import GuestHostFixture
from consoled.testing.guests.serial_guest import SerialGuest
from tests.unit.testing.guests.test_shell import PROMPT, plain

TIMEOUT = 10  # seconds; only a failing test uses them up


class SerialGuestTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.host = self.useFixture(GuestHostFixture())
        self.guest = self.host.add(SerialGuest(pause=0.01))

    def connect(self):
        sock = socket.create_connection(('127.0.0.1', self.guest.port), TIMEOUT)
        self.addCleanup(sock.close)
        return sock

    @staticmethod
    def read_to(sock, end):
        """Read until the text ends with ``end``, and return it."""
        data = b''
        while not plain(data).endswith(end):
            piece = sock.recv(4096)
            if not piece:
                raise EOFError(data)
            data += piece
        return plain(data)

    @staticmethod
    def read_past(sock, text):
        """Read until the text has come; more may follow it at once."""
        data = b''
        while text not in plain(data):
            piece = sock.recv(4096)
            if not piece:
                raise EOFError(data)
            data += piece

    @staticmethod
    def read_all(sock):
        while sock.recv(4096):
            pass

    def test_a_terminal(self):
        sock = self.connect()
        self.assertIn('simulated router', self.read_to(sock, PROMPT))
        sock.sendall(b'show version\r')
        self.assertIn('serial port', self.read_to(sock, PROMPT))
        self.assertEqual(b'show version\r', bytes(self.guest.received))

    def test_ping_prints_without_input_and_can_be_interrupted(self):
        sock = self.connect()
        self.read_to(sock, PROMPT)
        sock.sendall(b'ping 192.0.2.7\r')
        self.assertIn('5 sent, 5 received', self.read_to(sock, PROMPT))
        self.guest._pause = 3600
        sock.close()
        sock = self.connect()
        self.read_to(sock, PROMPT)
        sock.sendall(b'ping 192.0.2.7\r')
        self.read_to(sock, 'to stop\r\n')
        sock.sendall(b'\x03')
        self.assertEqual(f'^C\r\n{PROMPT}', self.read_to(sock, PROMPT))

    def test_typing_does_not_postpone_pending_output(self):
        self.guest._pause = 0.05
        sock = self.connect()
        self.read_to(sock, PROMPT)
        sock.sendall(b'ping 192.0.2.7\r')
        done = threading.Event()

        def keep_typing():
            while not done.wait(0.005):
                sock.sendall(b'x')

        typist = threading.Thread(target=keep_typing)
        typist.start()
        try:
            self.read_past(sock, f'received\r\n{PROMPT}')
        finally:
            done.set()
            typist.join()

    def test_one_client_at_a_time(self):
        first, second = self.connect(), self.connect()
        self.read_to(first, PROMPT)
        self.host.settle()
        self.assertEqual((1, 1), (self.guest.connections, self.guest.clients))
        first.close()
        self.read_to(second, PROMPT)
        self.assertEqual(2, self.guest.connections)

    def test_several_clients_when_configured(self):
        self.guest = self.host.add(SerialGuest(clients=2))
        for _ in range(2):
            self.read_to(self.connect(), PROMPT)

    def test_the_record_of_input_is_limited(self):
        sock = self.connect()
        self.read_to(sock, PROMPT)
        reader = threading.Thread(target=self.read_all, args=(sock,), daemon=True)
        reader.start()
        sock.sendall(b'x' * 100_000)
        sock.sendall(b'end')
        wait_until(lambda: bytes(self.guest.received[-3:]) == b'end')
        self.assertEqual(2**16, len(self.guest.received))
        sock.shutdown(socket.SHUT_WR)
        reader.join(TIMEOUT)
