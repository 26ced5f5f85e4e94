# SPDX-License-Identifier: Apache-2.0
"""Notifications to systemd."""

import pathlib
import socket

import fixtures
import testtools

from consoled import systemd


class NotifyTest(testtools.TestCase):
    def listening(self, address):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(address)
        sock.setblocking(False)
        return sock

    def test_ready_and_alive_are_sent(self):
        for address, name in (
            (str(pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'notify')), None),
            (f'\0consoled-test-{id(self)}', f'@consoled-test-{id(self)}'),
        ):
            sock = self.listening(address)
            environ = {'NOTIFY_SOCKET': name or address, 'WATCHDOG_USEC': '30000000', 'WATCHDOG_PID': '1'}
            notifier = systemd.Notifier.from_environ(environ)
            self.assertEqual({}, environ)
            self.assertEqual(10.0, notifier.interval)
            notifier.ready()
            notifier.alive()
            self.assertEqual([b'READY=1', b'WATCHDOG=1'], [sock.recv(100), sock.recv(100)])

    def test_without_systemd_nothing_happens(self):
        notifier = systemd.Notifier.from_environ({})
        notifier.ready()
        notifier.alive()
        self.assertIsNone(notifier.interval)

    def test_a_service_manager_that_does_not_listen_is_no_error(self):
        systemd.Notifier('/nonexistent/notify').ready()

    def test_an_invalid_watchdog_interval_means_none(self):
        for text in ('', '0', '-1', 'x'):
            self.assertIsNone(systemd.Notifier.from_environ({'WATCHDOG_USEC': text}).interval)
