# SPDX-License-Identifier: Apache-2.0
"""The guest with a serial console: its shell by itself, and over real sockets."""

import re
import socket
import threading

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.fixture import GuestHostFixture
from consoled.testing.guests.serial_guest import SerialGuest
from consoled.testing.guests.shell import MAX_LINE, Shell

TIMEOUT = 10  # seconds, for what takes milliseconds
PROMPT = 'router> '
UP, DOWN = '\x1b[A', '\x1b[B'


def plain(data):
    """What is said, without colours."""
    return re.sub(r'\x1b\[[0-9;]*m', '', data.decode())


class ShellTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.shell = Shell('router', lambda: 3725.9, pause=0.5)
        self.greeting = plain(self.shell.greet())

    def type(self, text):
        return plain(self.shell.feed(text.encode()))

    def run_out(self):
        said = ''
        while self.shell.pending:
            said += plain(self.shell.continue_output())
        return said

    def test_a_banner_and_a_prompt(self):
        self.assertIn('simulated router', self.greeting)
        self.assertTrue(self.greeting.endswith(PROMPT))
        self.assertEqual(self.greeting.count('\n'), self.greeting.count('\r\n'))
        frame = [line for line in self.greeting.split('\r\n') if line[:1] in ('|', '+')]
        self.assertEqual([48] * 4, [len(line) for line in frame])

    def test_typing_is_echoed(self):
        self.assertEqual('sho', self.type('sho'))
        self.assertEqual('Grüße 世界', self.type('Grüße 世界'))

    def test_a_character_in_two_pieces(self):
        first, second = 'ü'.encode()[:1], 'ü'.encode()[1:]
        self.assertEqual(b'', self.shell.feed(first))
        self.assertEqual('ü'.encode(), self.shell.feed(second))
        self.assertEqual('\ufffd'.encode(), self.shell.feed(b'\xff'))

    def test_commands(self):
        for line, expected in (
            ('help', 'show interfaces'),
            ('?', 'ping'),
            ('show interfaces', '192.0.2.1/24'),
            ('SHOW  Interfaces', 'uplink'),
            ('show version', 'up 1:02:05'),
            ('uptime', 'up 1:02:05'),
            ('colours', 'bold'),
            ('ping', 'missing address'),
            ('frobnicate now', 'unknown command: frobnicate now'),
            ('show', 'unknown command: show'),
            ('clear', '\x1b[2J\x1b[H'),
        ):
            said = self.type(f'{line}\r')
            self.assertTrue(said.startswith(f'{line}\r\n'), said)
            self.assertIn(expected, said)
            self.assertTrue(said.endswith(PROMPT), said)
            self.assertEqual(said.count('\n'), said.count('\r\n'))

    def test_each_way_to_end_a_line(self):
        for end in ('\r', '\n', '\r\n'):
            self.assertEqual(1, self.type(f'uptime{end}').count('up 1:'))
        self.assertEqual(f'\r\n{PROMPT}', self.type('\r'))

    def test_erasing(self):
        self.type('uptimex')
        self.assertEqual('\b \b', self.type('\x7f'))
        self.assertIn('up 1:02:05', self.type('\r'))
        self.type('界')
        self.assertEqual('\b \b' * 2, self.type('\b'))  # it was two columns wide
        self.assertEqual('', self.type('\b'))
        self.type('show interfaces all')
        self.assertEqual('\b \b' * 3, self.type('\x17'))
        self.assertEqual('\b \b' * 16, self.type('\x15'))
        self.assertEqual(f'\r\n{PROMPT}', self.type('\r'))

    def test_a_line_is_given_up(self):
        self.type('reload')
        self.assertEqual(f'^C\r\n{PROMPT}', self.type('\x03'))
        self.assertEqual(f'\r\n{PROMPT}', self.type('\r'))

    def test_redrawing(self):
        self.type('half')
        self.assertEqual(f'\x1b[2J\x1b[H{PROMPT}half', self.type('\x0c'))

    def test_a_line_is_bounded(self):
        said = self.type('x' * (MAX_LINE + 3))
        self.assertEqual('x' * MAX_LINE + '\a' * 3, said)

    def test_history(self):
        for line in ('uptime', 'help', 'help'):
            self.type(f'{line}\r')
        self.type('draft')
        self.assertEqual(f'\r{PROMPT}help\x1b[K', self.type(UP))
        self.assertEqual(f'\r{PROMPT}uptime\x1b[K', self.type('\x1bOA'))
        self.assertEqual('\a', self.type(UP))
        self.assertEqual(f'\r{PROMPT}help\x1b[K', self.type(DOWN))
        self.assertEqual(f'\r{PROMPT}draft\x1b[K', self.type(DOWN))
        self.assertEqual('\a', self.type(DOWN))
        self.type(UP + UP)
        self.assertIn('up 1:02:05', self.type('\r'))
        self.assertEqual(['uptime', 'help', 'uptime'], self.shell._history)
        for number in range(100):
            self.type(f'{number}\r')
        self.assertEqual(50, len(self.shell._history))

    def test_other_sequences_are_nothing(self):
        for sequence in ('\x1b[C', '\x1b[1;5D', '\x1b[3~', '\x1bOP', '\x1b[24;80R', '\x1bx', '\x1b[200~'):
            self.assertEqual('', self.type(sequence), repr(sequence))
        self.assertEqual('ok', self.type('ok'))
        self.assertIn('unknown command', self.type('\x1b\r'))  # the key Escape, then Enter
        self.assertEqual(f'^C\r\n{PROMPT}', self.type('\x1b[1\x03'))
        self.assertTrue(self.type('\x1b[' + '1' * 30).endswith('1'))  # a sequence without an end

    def test_ping_takes_its_time(self):
        said = self.type('ping 192.0.2.7\r')
        self.assertNotIn(PROMPT, said)
        self.assertEqual(0.5, self.shell.pending[0][0])
        self.assertEqual('', self.type('typed meanwhile\r'))
        said = self.run_out()
        self.assertEqual(5, said.count('64 bytes from 192.0.2.7'))
        self.assertTrue(said.endswith(PROMPT))
        self.assertEqual(f'\r\n{PROMPT}', self.type('\r'))

    def test_ping_is_interrupted(self):
        self.type('ping 192.0.2.7\r')
        self.shell.continue_output()
        self.assertEqual(f'^C\r\n{PROMPT}', self.type('\x03'))
        self.assertEqual([], self.shell.pending)

    def test_logging_out_and_in(self):
        for way in ('exit\r', 'logout\r', '\x04'):
            said = self.type(way)
            self.assertIn('logged out', said)
            self.assertIn('simulated router', said)
            self.assertNotIn(PROMPT, said)
            self.assertEqual('', self.type('help' + UP))
            self.assertEqual(f'\r\n{PROMPT}', self.type('\r'))
        self.type('x')
        self.assertEqual('', self.type('\x04'))

    def test_reload(self):
        self.type('reload\r')
        said = self.run_out()
        self.assertIn('serial port 0', said)
        self.assertIn('simulated router', said)
        self.assertTrue(said.endswith(PROMPT))

    @given(st.binary(max_size=400))
    def test_whatever_is_typed(self, data):
        shell = Shell('router', lambda: 0)
        for each in (data, b'\r' + data, b'\x03'):
            shell.feed(each).decode()
            while shell.pending:
                shell.continue_output()
        self.assertLessEqual(len(shell._line), MAX_LINE)
        self.assertLessEqual(len(shell._sequence), 16)


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
        """Read until what was said ends so."""
        data = b''
        while not plain(data).endswith(end):
            piece = sock.recv(4096)
            if not piece:
                raise EOFError(data)
            data += piece
        return plain(data)

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

    def test_ping_comes_by_itself_and_can_be_interrupted(self):
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

    def test_typing_does_not_put_off_what_is_to_come(self):
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
            self.read_to(sock, f'received\r\n{PROMPT}')
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

    def test_several_if_so_wished(self):
        self.guest = self.host.add(SerialGuest(clients=2))
        for _ in range(2):
            self.read_to(self.connect(), PROMPT)

    def test_what_was_received_is_bounded(self):
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
