# SPDX-License-Identifier: Apache-2.0
"""The user's terminal: the escape key, input with look-ahead, output, and the modes."""

import asyncio
import contextlib
import io
import os
import select
import string
import termios

import fixtures
import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.consolectl import terminal
from consoled.consolectl.terminal import Escape, Keys, Screen, Terminal
from tests.unit.consolectl.terminals import new_terminal

PATIENCE = 20.0  # seconds; only used up by a failure
ESCAPE = Escape.from_caret('^]')
KEY = b'\x1d'


def end(fd):
    """Close a descriptor that may be closed already."""
    with contextlib.suppress(OSError):
        os.close(fd)


class EscapeTest(testtools.TestCase):
    def test_carets_and_their_keys(self):
        for caret, name, key in (
            ('^]', 'Ctrl-]', b'\x1d'),
            ('^a', 'Ctrl-A', b'\x01'),
            ('^@', 'Ctrl-@', b'\0'),
            ('^\\', 'Ctrl-\\', b'\x1c'),
            ('^^', 'Ctrl-^', b'\x1e'),
        ):
            escape = Escape.from_caret(caret)
            self.assertEqual(name, escape.name)
            self.assertEqual(3, escape.find(b'abc' + key + b'd' + key))
            self.assertEqual(-1, escape.find(b'abc'))

    def test_keys_that_are_needed_for_typing_are_refused(self):
        for caret in ('^J', '^m', '^[', '', '^', 'x', ']', '^]]', '^1', '^ ', '^é'):
            self.assertRaises(ValueError, Escape.from_caret, caret)

    def test_extended_key_reports_are_found_too(self):
        for sequence in (b'\x1b[93;5u', b'\x1b[27;5;93~'):
            self.assertEqual(1, ESCAPE.find(b'x' + sequence + KEY))
        self.assertEqual(0, Escape.from_caret('^B').find(b'\x1b[98;5u'))

    @given(st.sampled_from(sorted(set(string.ascii_uppercase) - set('JM'))), st.binary(max_size=50))
    def test_the_first_occurrence_is_found(self, letter, data):
        escape = Escape.from_caret(f'^{letter}')
        found = escape.find(data)
        if found < 0:
            self.assertFalse(any(sequence in data for sequence in escape.sequences))
        else:
            self.assertTrue(data[found:].startswith(escape.sequences))
            self.assertEqual(-1, escape.find(data[:found]))


class KeysTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.fd, self.source = os.pipe()
        for fd in (self.fd, self.source):
            self.addCleanup(end, fd)
        self.ends = []

    def run_with(self, use, escape=ESCAPE):
        async def run():
            keys = Keys(self.fd, escape, self.ends.append)
            keys.start()
            try:
                return await asyncio.wait_for(use(keys), PATIENCE)
            finally:
                keys.stop()

        return asyncio.run(run())

    @staticmethod
    async def take_all(keys):
        taken = []
        while data := await keys.take():
            taken.append(data)
        return b''.join(taken)

    def test_bytes_up_to_the_escape_key(self):
        os.write(self.source, b'typed' + KEY + b'after it')
        self.assertEqual(b'typed', self.run_with(self.take_all))
        self.assertEqual([True], self.ends)

    def test_all_bytes_up_to_the_end_without_an_escape_key(self):
        os.write(self.source, b'typed' + KEY + b'after it')
        os.close(self.source)
        self.assertEqual(b'typed' + KEY + b'after it', self.run_with(self.take_all, escape=None))
        self.assertEqual([False], self.ends)

    def test_the_escape_key_is_seen_while_nothing_is_taken(self):
        os.write(self.source, b'not taken')

        async def use(keys):
            while not keys.waiting:
                await asyncio.sleep(0)
            os.write(self.source, KEY)
            while not keys.ended:
                await asyncio.sleep(0)
            return keys.waiting

        self.assertTrue(self.run_with(use))
        self.assertEqual([True], self.ends)

    def test_dropped_bytes_are_not_taken(self):
        os.write(self.source, b'old')

        async def use(keys):
            while not keys.waiting:
                await asyncio.sleep(0)
            keys.drop()
            self.assertFalse(keys.waiting)
            os.write(self.source, b'new')
            return await keys.take()

        self.assertEqual(b'new', self.run_with(use))

    def test_reading_pauses_while_the_buffer_is_full(self):
        self.useFixture(fixtures.MockPatchObject(terminal, '_MAX_BUFFERED', 8))
        os.write(self.source, b'x' * 8)

        async def use(keys):
            while not keys.waiting:
                await asyncio.sleep(0)
            os.write(self.source, KEY)
            for _ in range(10):
                await asyncio.sleep(0)
            self.assertFalse(keys.ended)
            self.assertEqual(b'x' * 8, await keys.take())
            return await keys.take()

        self.assertEqual(b'', self.run_with(use))
        self.assertEqual([True], self.ends)

    def test_a_descriptor_that_has_nothing_yet(self):
        os.set_blocking(self.fd, False)

        async def use(keys):
            keys._read()  # as after a wake-up by mistake
            self.assertFalse(keys.ended)
            os.write(self.source, b'x')
            return await keys.take()

        self.assertEqual(b'x', self.run_with(use))


class ScreenTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.fd, self.sink = os.pipe()
        for fd in (self.fd, self.sink):
            self.addCleanup(end, fd)

    def test_all_is_written_and_a_pipe_is_not_reset(self):
        screen = Screen(self.sink)
        asyncio.run(screen.write(b'x' * 10000))
        self.assertTrue(screen.stop())
        os.close(self.sink)
        self.assertEqual(b'x' * 10000, os.read(self.fd, 20000))

    def test_a_reader_that_is_gone_is_an_error(self):
        os.close(self.fd)
        screen = Screen(self.sink)
        self.assertRaises(BrokenPipeError, asyncio.run, screen.write(b'x'))
        self.assertTrue(screen.stop())

    def test_a_blocked_write_does_not_keep_it_from_stopping(self):
        self.useFixture(fixtures.MockPatchObject(terminal, '_LAST_WRITE', 0.05))
        self.useFixture(fixtures.MockPatchObject(terminal, '_WRITE_SIZE', 10**6))  # more than a pipe holds
        screen = Screen(self.sink)

        async def use():
            writing = asyncio.create_task(screen.write(b'x' * 10**6))
            while not select.select([self.fd], [], [], 0)[0]:
                await asyncio.sleep(0)
            self.assertTrue(screen.busy)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

        asyncio.run(use())
        self.assertFalse(screen.stop())

    def test_a_terminal_is_reset_if_it_was_used(self):
        master, slave = new_terminal()
        for fd in (master, slave):
            self.addCleanup(end, fd)
        self.assertTrue(Screen(slave).stop())
        for kind, reset in (('dumb', b''), ('xterm', terminal._RESET)):
            self.useFixture(fixtures.EnvironmentVariable('TERM', kind))
            screen = Screen(slave)
            asyncio.run(screen.write(b'shown'))
            self.assertTrue(screen.stop())
            os.write(slave, b'.')
            wanted = b'shown' + reset + b'.'
            shown = b''
            while not shown.endswith(b'.') and select.select([master], [], [], PATIENCE)[0]:
                shown += os.read(master, 1000)
            self.assertEqual(wanted, shown)


class TerminalTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.master, self.slave = new_terminal()
        for fd in (self.master, self.slave):
            self.addCleanup(end, fd)
        self.lines = io.StringIO()
        self.terminal = Terminal(self.slave, self.lines)
        self.modes = termios.tcgetattr(self.slave)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def test_modes_are_restored(self):
        self.terminal.make_raw()
        self.assertTrue(self.is_raw())
        self.terminal.make_raw()  # repeated: the modes to restore are those of the first time
        self.terminal.restore()
        self.assertEqual(self.modes, termios.tcgetattr(self.slave))
        self.terminal.restore()

    def test_it_is_raw_again_after_it_was_stopped(self):
        self.terminal.resume()
        self.assertFalse(self.is_raw())
        self.terminal.make_raw()
        termios.tcsetattr(self.slave, termios.TCSANOW, self.modes)  # as a shell does
        self.terminal.resume()
        self.assertTrue(self.is_raw())

    def test_a_terminal_that_is_gone_is_no_error(self):
        self.terminal.make_raw()
        end(self.master)
        end(self.slave)
        self.terminal.restore()

    def test_line_ends_suit_the_mode(self):
        self.terminal.say('one')
        self.terminal.make_raw()
        self.terminal.say('two')
        self.assertEqual('one\ntwo\r\n', self.lines.getvalue())

    def test_nothing_is_said_or_changed_without_a_terminal(self):
        fd, other = os.pipe()
        self.addCleanup(end, fd)
        self.addCleanup(end, other)
        quiet = Terminal(fd, self.lines)
        self.assertFalse(quiet.interactive)
        for method in (quiet.make_raw, quiet.resume, quiet.restore):
            method()
        quiet.say('nobody reads this')
        self.assertEqual('', self.lines.getvalue())
