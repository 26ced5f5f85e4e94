# SPDX-License-Identifier: Apache-2.0
"""Deadlines, limits of received bytes, and servers that are skipped after a failure."""

import binascii
import socket
import threading
import time

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.legacy import bounded_io
from consoled.legacy.bounded_io import BoundedSocket, Operation, OutOfTime, RawValue, ServerHealth


def begun(health, seconds=60.0):
    health.operation.begin(time.monotonic() + seconds)
    return health


class OperationTest(testtools.TestCase):
    def test_a_step_may_take_until_the_deadline_and_its_limit_at_most(self):
        operation = Operation()
        operation.begin(time.monotonic() + 60)
        self.assertEqual(0.5, operation.timeout(0.5))
        self.assertTrue(50 < operation.timeout(100) <= 60)
        operation.begin(time.monotonic() - 1)
        self.assertRaises(OutOfTime, operation.timeout, 0.5)

    @given(st.lists(st.integers(1, bounded_io.MAX_RECEIVED), max_size=20))
    def test_a_request_may_receive_so_many_bytes(self, counts):
        operation = Operation()
        total = 0
        for count in counts:
            total += count
            if total > bounded_io.MAX_RECEIVED:
                self.assertRaises(OSError, operation.count_received, count)
                break
            operation.count_received(count)
        operation.begin_request()
        operation.count_received(bounded_io.MAX_RECEIVED)

    def test_each_request_begins_anew(self):
        operation = Operation()
        operation.count_received(1)
        operation.failed_over = operation.stale = True
        before = operation.request
        operation.begin_request()
        self.assertEqual([False] * 3, [operation.answered, operation.failed_over, operation.stale])
        self.assertIsNot(before, operation.request)

    def test_threads_do_not_see_each_others_operations(self):
        operation = Operation()
        operation.begin(time.monotonic() + 60)
        seen = []

        def look():
            try:
                seen.append(operation.timeout(1.0))
            except OutOfTime:
                seen.append('none')

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        self.assertEqual(['none'], seen)


class ServerHealthTest(testtools.TestCase):
    def test_a_server_that_failed_is_skipped_for_a_while(self):
        health = ServerHealth(0.5, 60)
        self.assertFalse(health.is_skipped('a'))
        self.assertFalse(health.operation.failed_over)
        health.report_failure('a', OSError(), used_before=False)
        self.assertTrue(health.operation.failed_over)
        health.operation.begin_request()
        self.assertTrue(health.is_skipped('a'))
        self.assertTrue(health.operation.failed_over)
        self.assertFalse(health.is_skipped('b'))

    def test_a_failed_server_is_used_again_after_dead_retry(self):
        health = ServerHealth(0.5, 0)
        health.report_failure('a', OSError(), used_before=False)
        self.assertFalse(health.is_skipped('a'))

    def test_a_stale_connection_is_not_held_against_a_server_but_silence_is(self):
        health = ServerHealth(0.5, 60)
        health.report_failure('a', 'closed', used_before=True)
        self.assertFalse(health.is_skipped('a'))
        self.assertTrue(health.operation.stale)
        health.report_failure('a', TimeoutError(), used_before=True)
        self.assertTrue(health.is_skipped('a'))


class BoundedSocketTest(testtools.TestCase):
    def connected(self, health):
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return BoundedSocket(ours, health), theirs

    def test_bytes_in_both_directions(self):
        health = begun(ServerHealth(5.0, 60))
        bounded, theirs = self.connected(health)
        bounded.sendall(b'get')
        self.assertEqual(b'get', theirs.recv(10))
        self.assertFalse(health.operation.answered)
        theirs.sendall(b'value')
        self.assertEqual(b'value', bounded.recv(2**30))
        self.assertTrue(health.operation.answered)

    def test_a_closed_connection_is_no_answer(self):
        health = begun(ServerHealth(5.0, 60))
        bounded, theirs = self.connected(health)
        theirs.close()
        self.assertEqual(b'', bounded.recv(10))
        self.assertFalse(health.operation.answered)

    def test_it_knows_whether_an_earlier_request_has_opened_it(self):
        health = begun(ServerHealth(5.0, 60))
        bounded, _ = self.connected(health)
        self.assertFalse(bounded.used_before)
        health.operation.begin_request()
        self.assertTrue(bounded.used_before)

    def test_silence_and_a_deadline_that_is_over_are_time_outs_of_the_server(self):
        health = begun(ServerHealth(0.01, 60))
        bounded, _ = self.connected(health)
        self.assertRaises(TimeoutError, bounded.recv, 10)
        begun(health, -1)
        for call in (lambda: bounded.recv(10), lambda: bounded.sendall(b'x')):
            error = self.assertRaises(TimeoutError, call)
            self.assertNotIsInstance(error, OutOfTime)

    def test_too_many_bytes_end_the_request(self):
        health = begun(ServerHealth(5.0, 60))
        bounded, theirs = self.connected(health)
        health.operation._remaining_bytes = 3
        theirs.sendall(b'value')
        self.assertRaises(OSError, bounded.recv, 10)

    def assertNotIsInstance(self, value, cls):  # noqa: N802 - like the library's
        self.assertFalse(isinstance(value, cls), value)


class ServerHashTest(testtools.TestCase):
    @given(st.binary(max_size=40))
    def test_the_hash_is_that_of_the_old_library(self, key):
        """``cmemcache_hash`` of python-memcached 1.59."""
        expected = (((binascii.crc32(key) & 0xFFFFFFFF) >> 16) & 0x7FFF) or 1
        self.assertEqual(expected, bounded_io.server_hash(key))

    def test_the_hash_is_never_zero(self):
        self.assertEqual(1, bounded_io.server_hash(b''))


class RawValueTest(testtools.TestCase):
    def test_no_repr_shows_the_value(self):
        self.assertNotIn('canary', repr([RawValue(b'canary')]))
