# SPDX-License-Identifier: Apache-2.0
"""The shell of the simulated router."""

import re

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.testing.guests.shell import MAX_LINE, Shell

PROMPT = 'router> '
UP, DOWN = '\x1b[A', '\x1b[B'


def plain(data):
    """Return the text without escape sequences for colours."""
    return re.sub(r'\x1b\[[0-9;]*m', '', data.decode())


class ShellTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.shell = Shell('router', lambda: 3725.9, pause=0.5)
        self.greeting = plain(self.shell.greet())

    def type(self, text):
        return plain(self.shell.feed(text.encode()))

    def finish_output(self):
        """Return the pending output."""
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

    def test_a_character_that_arrives_in_two_parts(self):
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

    def test_line_endings(self):
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

    def test_control_c_discards_the_line(self):
        self.type('reload')
        self.assertEqual(f'^C\r\n{PROMPT}', self.type('\x03'))
        self.assertEqual(f'\r\n{PROMPT}', self.type('\r'))

    def test_redrawing(self):
        self.type('half')
        self.assertEqual(f'\x1b[2J\x1b[H{PROMPT}half', self.type('\x0c'))

    def test_the_length_of_a_line_is_limited(self):
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

    def test_other_control_sequences_are_ignored(self):
        for sequence in ('\x1b[C', '\x1b[1;5D', '\x1b[3~', '\x1bOP', '\x1b[24;80R', '\x1bx', '\x1b[200~'):
            self.assertEqual('', self.type(sequence), repr(sequence))
        self.assertEqual('ok', self.type('ok'))
        self.assertIn('unknown command', self.type('\x1b\r'))  # the key Escape, then Enter
        self.assertEqual(f'^C\r\n{PROMPT}', self.type('\x1b[1\x03'))
        self.assertTrue(self.type('\x1b[' + '1' * 30).endswith('1'))  # a sequence without an end

    def test_ping_prints_its_output_over_time(self):
        said = self.type('ping 192.0.2.7\r')
        self.assertNotIn(PROMPT, said)
        self.assertEqual(0.5, self.shell.pending[0][0])
        self.assertEqual('', self.type('typed meanwhile\r'))
        said = self.finish_output()
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
        said = self.finish_output()
        self.assertIn('serial port 0', said)
        self.assertIn('simulated router', said)
        self.assertTrue(said.endswith(PROMPT))

    @given(st.binary(max_size=400))
    def test_any_input(self, data):
        shell = Shell('router', lambda: 0)
        for each in (data, b'\r' + data, b'\x03'):
            shell.feed(each).decode()
            while shell.pending:
                shell.continue_output()
        self.assertLessEqual(len(shell._line), MAX_LINE)
        self.assertLessEqual(len(shell._sequence), 16)
