# SPDX-License-Identifier: Apache-2.0
"""What systemd is told."""

import pathlib
import socket

import fixtures
import testtools

from consoled import notify


class NotifyTest(testtools.TestCase):
    def listening(self, address):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(address)
        sock.setblocking(False)
        return sock

    def test_ready_and_alive_are_told(self):
        for address, name in (
            (str(pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'notify')), None),
            (f'\0consoled-test-{id(self)}', f'@consoled-test-{id(self)}'),
        ):
            sock = self.listening(address)
            environ = {'NOTIFY_SOCKET': name or address, 'WATCHDOG_USEC': '30000000', 'WATCHDOG_PID': '1'}
            told = notify.Notifier.from_environ(environ)
            self.assertEqual({}, environ)
            self.assertEqual(10.0, told.interval)
            told.ready()
            told.alive()
            self.assertEqual([b'READY=1', b'WATCHDOG=1'], [sock.recv(100), sock.recv(100)])

    def test_without_systemd_nothing_happens(self):
        told = notify.Notifier.from_environ({})
        told.ready()
        told.alive()
        self.assertIsNone(told.interval)

    def test_nobody_listens(self):
        notify.Notifier('/nonexistent/notify').ready()

    def test_a_watchdog_that_makes_no_sense_is_none(self):
        for text in ('', '0', '-1', 'x'):
            self.assertIsNone(notify.Notifier.from_environ({'WATCHDOG_USEC': text}).interval)
