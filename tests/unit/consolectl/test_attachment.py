# SPDX-License-Identifier: Apache-2.0
"""Attachment in a terminal: keys, escape, reconnection, stalls."""

import fcntl
import os
import select
import signal
import socket
import struct
import termios
import threading
import time

import fixtures

from consoled import exception
from consoled.cli import errors
from consoled.consolectl import relay, terminal
from consoled.consolectl.terminal import Escape
from tests.unit.consolectl.attach_base import ESCAPE, PATIENCE, AttachCase, echo
from tests.unit.consolectl.terminals import new_terminal


class TerminalTest(AttachCase):
    """Attaches in a pseudo terminal; the user types in a thread."""

    def setUp(self):
        super().setUp()
        self.master, self.slave = new_terminal()
        for end in (self.master, self.slave):
            self.addCleanup(self.close, end)
        self.modes = termios.tcgetattr(self.slave)
        self.screen = b''
        self.seen = 0

    def expect(self, text):
        deadline = time.monotonic() + PATIENCE
        while (index := self.screen.find(text, self.seen)) < 0:
            if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f'{text!r} is not shown: {self.screen!r}')
            self.screen += os.read(self.master, 65536)
        self.seen = index + len(text)

    def attach_here(self, authorize, *script, **how):
        """Attach; return the exit code or the error.

        :param script: what the user does: wait for output (str), type (bytes)
        """
        failures = []

        def user():
            try:
                for step in script:
                    if isinstance(step, str):
                        self.expect(step.encode())
                    else:
                        os.write(self.master, step)
            except Exception as exc:
                failures.append(exc)
                os.close(self.master)

        notices = open(os.dup(self.slave), 'w')  # noqa: SIM115
        attachment = self.attachment(authorize, self.slave, self.slave, notices=notices, **how)
        thread = threading.Thread(target=user)
        thread.start()
        try:
            result = attachment.run()
        except errors.Failed as exc:
            result = exc
        thread.join()
        self.assertEqual([], failures)
        self.assertEqual(self.modes, termios.tcgetattr(self.slave))
        return result

    def test_the_escape_key_detaches(self):
        proxy = self.serve()
        for escape, key in (('^]', b'\x1d'), ('^]', b'\x1b[93;5u'), ('^x', b'\x18')):
            script = (f'Connected to the serial console of guest-1. Ctrl-{escape[1].upper()} detaches.\r\n',)
            done = self.attach_here(
                lambda: self.grant(proxy.port),
                *script,
                b'hello\x03',
                'hello\x03',
                key,
                escape=Escape.from_caret(escape),
            )
            self.assertEqual(0, done)

    def test_the_user_reads_which_serial_port_it_is_if_the_authorized_one_is_taken(self):
        def handle(connection):
            connection.send('{"serial_port": 2}')
            echo(connection)

        proxy = self.serve(handle, subprotocols=['consoled.serial'])
        said = 'This is serial port 2: another user has taken the one that was authorized.\r\n'
        self.assertEqual(0, self.attach_here(lambda: self.grant(proxy.port), said, b'\x1d'))

    def test_enter_reconnects_with_a_new_token(self):
        ends = [1012, 1001, 1011, None]
        grants = []

        def handle(connection):
            code = ends.pop(0)
            connection.send(b'welcome')
            if code is None:
                echo(connection)
            connection.close(code or 1000)

        proxy = self.serve(handle)

        def authorize():
            if len(grants) == 1:
                grants.append(None)
                raise exception.ManagerUnreachable(reason='no answer in time')
            grants.append(self.grant(proxy.port))
            return grants[-1]

        again = ('Press Enter to reconnect, Ctrl-] to detach.\r\n', b'nonsense\r')
        done = self.attach_here(
            authorize,
            *('welcome', '\r\nconsolectl: proxy_restart: ', *again, 'consolectl: manager_unreachable: '),
            *(*again, 'welcome', '\r\nconsolectl: connection_lost: '),
            *(*again, 'welcome', '\r\nconsolectl: console_ended: '),
            *(*again, 'welcome', b'hello', 'hello', ESCAPE),
        )
        self.assertEqual((0, 5), (done, len(grants)))

    def test_detach_instead_of_reconnecting(self):
        for key, code, wanted in ((ESCAPE, 1012, 3), (b'\x03', 1011, 1)):
            proxy = self.serve(lambda connection, code=code: connection.close(code))
            done = self.attach_here(lambda proxy=proxy: self.grant(proxy.port), 'Press Enter', key)
            self.assertEqual(wanted, done)

    def test_some_ends_allow_no_reconnection(self):
        for code, name in ((4403, 'revoked'), (4409, 'taken_over'), (1000, 'closed')):
            proxy = self.serve(lambda connection, code=code: connection.close(code))
            self.assertEqual(name, self.attach_here(lambda proxy=proxy: self.grant(proxy.port)).code)

    def test_a_failed_first_connection_ends_it(self):
        error = self.attach_here(lambda: self.grant(1))
        self.assertEqual('proxy_unreachable', error.code)
        self.assertNotIn(b'\x1b', self.screen)

    def test_detach_while_authorize_does_not_return(self):
        proxy = self.serve(lambda connection: connection.close(1012))
        over = threading.Event()
        self.addCleanup(over.set)
        asked = []

        def authorize():
            asked.append(1)
            if len(asked) == 2:
                os.write(self.master, ESCAPE)
                over.wait(PATIENCE)
            return self.grant(proxy.port)

        started = time.monotonic()
        self.assertEqual(3, self.attach_here(authorize, 'Press Enter', b'\r', 'Connecting'))
        self.assertLess(time.monotonic() - started, PATIENCE / 2)

    def test_the_size_of_the_terminal_is_told_if_it_has_one(self):
        for rows, columns, told in ((24, 80, True), (0, 0, False), (24, 0, False), (0, 80, False)):
            proxy = self.serve()
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
            before = len(self.screen)
            self.attach_here(lambda: self.grant(proxy.port), 'detaches', b'typed', 'typed', ESCAPE)  # noqa: B023
            shown = self.screen[before:]
            self.assertEqual(told, b'stty rows %d cols %d' % (rows, columns) in shown, shown)
            self.assertEqual(told, b'stty' in shown, shown)

    def test_detach_while_the_guest_accepts_no_input(self):
        over = threading.Event()
        self.useFixture(fixtures.MockPatchObject(relay, '_SEND_TIMEOUT', 0.1))
        self.useFixture(fixtures.MockPatchObject(relay, '_CLOSE_TIMEOUT', 0.1))

        def stall(connection):
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            over.wait(PATIENCE)

        proxy = self.serve(stall, max_queue=1)
        self.addCleanup(over.set)
        script = ('detaches', *[b'x' * 1000] * 4000, ESCAPE)
        started = time.monotonic()
        self.assertEqual(0, self.attach_here(lambda: self.grant(proxy.port), *script))
        self.assertLess(time.monotonic() - started, PATIENCE / 2)

    def test_input_beyond_the_buffer_is_not_lost(self):
        self.useFixture(fixtures.MockPatchObject(terminal, '_MAX_BUFFERED', 1000))
        got = []

        def collect(connection):
            for message in connection:
                got.append(message)
                if b''.join(got).endswith(b'end'):
                    connection.send(b'thanks')

        proxy = self.serve(collect)
        script = ('detaches', *[b'x' * 1000] * 100, b'end', 'thanks', ESCAPE)
        self.assertEqual(0, self.attach_here(lambda: self.grant(proxy.port), *script))
        self.assertEqual(b'x' * 100_000 + b'end', b''.join(got))

    def test_the_terminal_hangs_up(self):
        proxy = self.serve()

        def authorize():
            threading.Timer(0.1, os.close, [self.master]).start()
            return self.grant(proxy.port)

        attachment = self.attachment(authorize, self.slave, self.slave)
        self.assertEqual(129, attachment.run())

    def test_the_terminal_hangs_up_before_it_is_made_raw(self):
        proxy = self.serve()

        def authorize():
            os.close(self.master)
            return self.grant(proxy.port)

        self.assertEqual(129, self.attachment(authorize, self.slave, self.slave).run())


class SignalsTest(AttachCase):
    def attach_and_signal(self, number):
        """Send a signal to this process while a token is requested; return the exit code."""
        proxy = self.serve()

        def authorize():
            os.kill(os.getpid(), number)
            return self.grant(proxy.port)

        return self.attach(authorize, b'x')

    def test_a_signal_detaches(self):
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
            # a background job of a shell script inherits some of them ignored
            self.addCleanup(signal.signal, number, signal.signal(number, signal.SIG_DFL))
            self.assertEqual((128 + number, b''), self.attach_and_signal(number))

    def test_an_ignored_signal_stays_ignored(self):
        for number in (signal.SIGHUP, signal.SIGQUIT):
            self.addCleanup(signal.signal, number, signal.signal(number, signal.SIG_IGN))
            code, _ = self.attach_and_signal(number)
            self.assertEqual(0, code)
