# SPDX-License-Identifier: Apache-2.0
"""Connections to a libvirtd that is unreachable, hangs, or ends connections; with a fake module libvirt."""

import threading
from unittest import mock

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.compute.drivers import libvirt_connection
from consoled.compute.drivers.libvirt_connection import ConnectionPool
from consoled.testing.fixtures import wait_until
from tests.unit.compute.drivers.fake_libvirt import FakeConnection, FakeLibrary, LibvirtError

EVENTS = (0, 19)
TIMEOUT = 0.2  # seconds


class ConnectionPoolTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures_library.MonkeyPatch(f'{libvirt_connection.__name__}._FIRST_PAUSE', 0.01))
        self.logged = self.useFixture(fixtures_library.FakeLogger())
        self.library = FakeLibrary()
        self.events, self.connects = [], []
        self.pool = ConnectionPool(
            self.library,
            'fake:///',
            EVENTS,
            lambda *event: self.events.append(event),
            lambda: self.connects.append(True),
        )
        self.addCleanup(self.pool.close)

    def call(self):
        """Make a call on a connection, as the driver does."""
        with self.pool.connection(TIMEOUT) as conn:
            return conn.getLibVersion()

    def reachable(self):
        try:
            self.call()
        except (exception.HypervisorUnreachable, LibvirtError):
            return False
        return True

    def assert_unreachable(self):
        self.assertRaises(exception.HypervisorUnreachable, self.call)

    def hang(self):
        self.library.hangs = threading.Event()
        self.addCleanup(self.library.hangs.set)

    def test_the_first_call_connects(self):
        self.assertEqual([], self.library.opened)
        self.call()
        self.call()
        self.assertEqual(2, len(self.library.opened))  # one for events, one for calls

    def test_start_connects_without_waiting(self):
        self.hang()
        self.assertFalse(self.pool.start())
        self.library.hangs.set()
        wait_until(lambda: self.connects)
        self.assertTrue(self.pool.start())
        self.assertEqual(1, len(self.library.opened))

    def test_without_libvirtd_calls_fail_at_once_until_it_is_back(self):
        self.library.refuses = True
        for _ in range(3):
            self.assert_unreachable()
        self.assertIn('Could not connect to libvirt at [compute] libvirt_uri = fake:///', self.logged.output)
        self.library.refuses = False
        wait_until(self.reachable)

    def test_a_connection_that_is_lost_is_replaced(self):
        self.call()
        first, _ = self.library.opened
        first.alive = False
        first.close_callback(first, 1, None)
        wait_until(lambda: len(self.connects) == 2)
        self.assertEqual(({}, None), (first.registered, first.close_callback))
        self.assertTrue(self.reachable())
        self.assertEqual(4, len(self.library.opened))
        self.assertEqual([True, True, False, False], [conn.closed for conn in self.library.opened])
        self.assertIn('Lost connection to libvirt (reason 1)', self.logged.output)

    def test_a_call_finds_a_dead_connection(self):
        self.call()
        for connection in self.library.opened:
            connection.alive = False
        self.library.failure = LibvirtError()
        self.assertRaises(LibvirtError, self.call)
        self.library.failure = None
        wait_until(lambda: len(self.connects) == 2)
        wait_until(self.reachable)

    def test_a_failed_call_alone_does_not_reconnect(self):
        self.call()
        self.library.failure = LibvirtError(1)
        self.assertRaises(LibvirtError, self.call)
        self.library.failure = None
        self.call()
        self.assertEqual(2, len(self.library.opened))

    def test_a_connection_without_events_is_not_used(self):
        self.library.failure = LibvirtError(1)
        self.assert_unreachable()
        self.library.failure = None
        wait_until(self.reachable)

    def test_a_fault_while_connecting_does_not_end_the_thread(self):
        with mock.patch.object(FakeConnection, 'setKeepAlive', side_effect=RuntimeError('a fault')):
            self.assert_unreachable()
        self.assertIn('RuntimeError: a fault', self.logged.output)
        wait_until(self.reachable)

    def test_a_hypervisor_without_keep_alive(self):
        with mock.patch.object(FakeConnection, 'setKeepAlive', side_effect=LibvirtError(3)):
            self.call()

    def test_the_events_are_registered(self):
        self.call()
        connection = self.library.opened[0]
        self.assertEqual(set(EVENTS), set(connection.registered))
        connection.registered[19]('an event')
        self.assertEqual([('an event',)], self.events)

    def test_an_attempt_to_connect_that_hangs_holds_one_thread_only(self):
        self.hang()
        for _ in range(3):
            self.assert_unreachable()
        self.assertEqual(1, len(self.library.opened))

    def test_close(self):
        self.call()
        self.pool.close()
        self.assert_unreachable()
        wait_until(lambda: all(connection.closed for connection in self.library.opened))
        self.assertEqual({}, self.library.opened[0].registered)
        self.pool.close()

    def test_a_connection_that_is_in_use_is_closed_after_its_call(self):
        with self.pool.connection(TIMEOUT) as conn:
            self.pool.close()
            self.assertFalse(conn.closed)
        self.assertTrue(conn.closed)

    def test_no_two_threads_use_the_same_connection(self):
        """libvirt's client crashes if several wait at the moment when keep-alive gives up."""
        self.call()
        self.hang()
        threads = [threading.Thread(target=self.reachable) for _ in range(5)]
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(connection.users for connection in self.library.opened) == 5)
        self.library.hangs.set()
        for thread in threads:
            thread.join()
        self.assertEqual(1, self.library.most_users)
        self.assertTrue(self.reachable())
        self.assertEqual(6, len(self.library.opened))  # idle connections are reused
