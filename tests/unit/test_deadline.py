# SPDX-License-Identifier: Apache-2.0
"""Calls with a deadline."""

import threading

import fixtures
import testtools

from consoled import deadline

PATIENCE = 30  # seconds; only ever used up by a failure


class CallTest(testtools.TestCase):
    def test_the_result_and_the_error_of_the_function(self):
        self.assertEqual('x', deadline.call(lambda: 'x', PATIENCE))
        self.assertRaises(ZeroDivisionError, deadline.call, lambda: 1 / 0, PATIENCE)

    def test_a_call_that_hangs(self):
        release, ended = threading.Event(), threading.Event()

        def hang():
            release.wait(PATIENCE)
            ended.set()

        for timeout in (0.01, 0, -1):
            self.assertRaises(deadline.DeadlineExceeded, deadline.call, hang, timeout)
        self.assertFalse(ended.is_set())
        release.set()
        self.assertTrue(ended.wait(PATIENCE))  # it goes on

    def test_the_functions_own_timeout_is_not_the_deadline(self):
        def time_out():
            raise TimeoutError('its own')

        error = self.assertRaises(TimeoutError, deadline.call, time_out, PATIENCE)
        self.assertNotIsInstance(error, deadline.DeadlineExceeded)

    def test_even_an_exit_is_passed_on(self):
        def leave():
            raise SystemExit(3)

        self.assertRaises(SystemExit, deadline.call, leave, PATIENCE)

    def test_it_runs_in_a_daemon_thread_of_that_name(self):
        thread = deadline.call(threading.current_thread, PATIENCE, thread_name='agent')
        self.assertEqual(('agent', True), (thread.name, thread.daemon))

    def test_a_system_without_threads_left(self):
        def no_thread(self):
            raise RuntimeError("can't start new thread")

        called = []
        self.useFixture(fixtures.MonkeyPatch('threading.Thread.start', no_thread))
        self.assertRaises(deadline.NoThread, deadline.call, lambda: called.append(1), PATIENCE)
        self.assertEqual([], called)
