# SPDX-License-Identifier: Apache-2.0
"""Operations in bounded time, and lines in the log that stay few."""

import threading
import time

import fixtures
import testtools

from consoled.legacy import thread_pool
from consoled.legacy.bounds import Attempt, Exhausted, Servers
from consoled.legacy.thread_pool import ThreadPool, Unavailable
from consoled.legacy.throttled_log import ThrottledLog
from consoled.testing.fixtures import wait_until

BOUND = 5.0  # seconds: generous


class WorkersTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.attempt = Attempt()
        self.workers = ThreadPool(self.attempt)
        self.release = threading.Event()
        self.addCleanup(self.release.set)

    def answered(self, result):
        self.attempt.received(1)
        return result

    def test_a_result_and_errors(self):
        self.assertEqual(7, self.workers.run(lambda: 7, BOUND))
        error = self.assertRaises(Unavailable, self.workers.run, lambda: {}['canary'], BOUND)
        self.assertEqual('KeyError', str(error))

    def test_what_is_stuck_is_given_up_and_then_refused_at_once(self):
        started = time.monotonic()
        for _ in range(thread_pool.THREADS):
            self.assertRaises(Unavailable, self.workers.run, self.release.wait, 0.1)
        for _ in range(20):
            self.assertRaises(Unavailable, self.workers.run, lambda: 1, 60.0)
        self.assertLess(time.monotonic() - started, BOUND)
        self.release.set()
        wait_until(self.works, what='free threads')

    def works(self):
        try:
            return self.workers.run(lambda: True, BOUND)
        except Unavailable:
            return False

    def test_so_many_wait_and_no_more(self):
        self.useFixture(fixtures.MockPatchObject(thread_pool, 'MAX_AT_ONCE', 6))
        self.workers = ThreadPool(self.attempt)
        outcomes = []

        def run():
            try:
                outcomes.append(self.workers.run(self.release.wait, 30.0))
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

    def test_a_step_is_repeated_once_after_a_stale_connection(self):
        calls = []

        def call():
            calls.append(1)
            if len(calls) == 1:
                self.attempt.stale = True
                return None
            return self.answered('x')

        self.assertEqual(('x', False), self.workers.run(lambda: self.workers.step(call), BOUND))
        self.assertEqual(2, len(calls))

    def test_a_step_that_nobody_answers(self):
        self.assertRaises(Unavailable, self.workers.run, lambda: self.workers.step(lambda: None), BOUND)


class ServersTest(testtools.TestCase):
    def test_a_server_that_failed_is_left_alone_for_a_while(self):
        servers = Servers(0.5, 60)
        self.assertFalse(servers.skipped('a'))
        servers.failed('a', OSError(), used_before=False)
        servers.attempt.begin_step()
        self.assertTrue(servers.skipped('a'))
        self.assertTrue(servers.attempt.away)
        self.assertFalse(servers.skipped('b'))
        past = Servers(0.5, 0)
        past.failed('a', OSError(), used_before=False)
        self.assertFalse(past.skipped('a'))

    def test_a_connection_that_was_closed_is_not_held_against_it_but_silence_is(self):
        servers = Servers(0.5, 60)
        servers.failed('a', 'closed', used_before=True)
        self.assertFalse(servers.skipped('a'))
        self.assertTrue(servers.attempt.stale)
        servers.failed('a', TimeoutError(), used_before=True)
        self.assertTrue(servers.skipped('a'))

    def test_time_and_bytes_end(self):
        attempt = Attempt()
        attempt.begin(time.monotonic() + 60)
        self.assertEqual(0.5, attempt.seconds(0.5))
        self.assertRaises(OSError, attempt.received, 2**30)
        attempt.begin(time.monotonic() - 1)
        self.assertRaises(Exhausted, attempt.seconds, 0.5)


class SeldomTest(testtools.TestCase):
    def test_one_line_a_minute_of_each_kind_with_a_count(self):
        now = [1000.0]
        throttled_log = ThrottledLog(lambda: now[0])
        logged = self.useFixture(fixtures.FakeLogger('consoled.legacy'))
        for _ in range(5):
            throttled_log.warn('one', 'reason')
        throttled_log.warn('two', 'reason')
        now[0] += 61
        throttled_log.warn('one', 'again')
        self.assertEqual(
            [
                'one: reason (times since the last such line: 1)',
                'two: reason (times since the last such line: 1)',
                'one: again (times since the last such line: 5)',
            ],
            logged.output.splitlines(),
        )
