# SPDX-License-Identifier: Apache-2.0
"""Operations on memcached in a few threads, each bounded in time for its caller."""

import threading
import time

import fixtures
import testtools

from consoled.legacy import thread_pool
from consoled.legacy.bounded_io import Operation
from consoled.legacy.thread_pool import ThreadPool, Unavailable
from consoled.testing.fixtures import wait_until

BOUND = 5.0  # seconds: generous


class ThreadPoolTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.state = Operation()
        self.pool = ThreadPool(self.state)
        self.release = threading.Event()
        self.addCleanup(self.release.set)

    def answered(self, result):
        self.state.count_received(1)
        return result

    def test_a_result_and_errors(self):
        self.assertEqual(7, self.pool.run(lambda: 7, BOUND))
        error = self.assertRaises(Unavailable, self.pool.run, lambda: {}['canary'], BOUND)
        self.assertEqual('KeyError', str(error))

    def test_hanging_operations_are_abandoned_and_then_others_are_refused_at_once(self):
        started = time.monotonic()
        for _ in range(thread_pool.THREADS):
            self.assertRaises(Unavailable, self.pool.run, self.release.wait, 0.1)
        for _ in range(20):
            self.assertRaises(Unavailable, self.pool.run, lambda: 1, 60.0)
        self.assertLess(time.monotonic() - started, BOUND)
        self.release.set()
        wait_until(self.works, what='free threads')

    def works(self):
        try:
            return self.pool.run(lambda: True, BOUND)
        except Unavailable:
            return False

    def test_the_number_of_waiting_operations_is_limited(self):
        self.useFixture(fixtures.MockPatchObject(thread_pool, 'MAX_OPERATIONS', 6))
        self.pool = ThreadPool(self.state)
        outcomes = []

        def run():
            try:
                outcomes.append(self.pool.run(self.release.wait, 30.0))
            except Unavailable:
                outcomes.append('refused')

        threads = [threading.Thread(target=run) for _ in range(10)]
        for thread in threads:
            thread.start()
        wait_until(lambda: outcomes.count('refused') == 4, what='refusals')
        self.release.set()
        for thread in threads:
            thread.join()
        self.assertEqual(6, outcomes.count(True))

    def test_a_system_without_threads_refuses_and_keeps_no_permit(self):
        self.useFixture(fixtures.MockPatchObject(thread_pool, 'MAX_OPERATIONS', 1))
        self.pool = ThreadPool(self.state)
        with fixtures.MockPatchObject(self.pool._pool, 'submit', side_effect=RuntimeError):
            for _ in range(3):
                error = self.assertRaises(Unavailable, self.pool.run, lambda: 1, BOUND)
                self.assertEqual('no thread', str(error))
        self.assertEqual(1, self.pool.run(lambda: 1, BOUND))

    def test_a_request_is_repeated_once_after_a_stale_connection(self):
        calls = []

        def call():
            calls.append(1)
            if len(calls) == 1:
                self.state.stale = True
                return None
            return self.answered('x')

        self.assertEqual(('x', False), self.pool.run(lambda: self.pool.request(call), BOUND))
        self.assertEqual(2, len(calls))

    def test_a_request_is_not_repeated_twice(self):
        calls = []

        def call():
            calls.append(1)
            self.answered(None)
            self.state.stale = True

        self.pool.run(lambda: self.pool.request(call), BOUND)
        self.assertEqual(2, len(calls))

    def test_a_request_tells_that_another_server_stood_in(self):
        def call():
            self.state.failed_over = True
            return self.answered('x')

        self.assertEqual(('x', True), self.pool.run(lambda: self.pool.request(call), BOUND))

    def test_a_request_that_no_server_answers_is_unavailable(self):
        self.assertRaises(Unavailable, self.pool.run, lambda: self.pool.request(lambda: None), BOUND)

    def test_the_threads_know_the_deadline(self):
        remaining = self.pool.run(lambda: self.state.timeout(60.0), BOUND)
        self.assertTrue(0 < remaining <= BOUND, remaining)
