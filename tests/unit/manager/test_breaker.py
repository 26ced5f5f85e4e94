# SPDX-License-Identifier: Apache-2.0
"""Peers that let calls wait in vain are left alone for a while."""

import contextlib

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.manager import breaker

SLOW = 0.5


class BreakerTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.now = 1000.0
        self.breaker = breaker.Breaker(
            'Compute host', exception.ComputeUnreachable, trials=1, clock=lambda: self.now
        )

    def call(self, party='node-1', error=None, seconds=0.0):
        with self.breaker.call(party, SLOW):
            self.now += seconds
            if error is not None:
                raise error

    def hang(self, party='node-1', error=None):
        error = error or exception.ComputeUnreachable()
        self.assertIs(error, self.assertRaises(type(error), self.call, party, error, 2.0))

    def assert_refused(self, party='node-1', error=exception.ComputeUnreachable):
        before = self.now
        self.assertRaises(error, self.call, party, seconds=1.0)
        self.assertEqual(before, self.now)  # the call was not made

    def test_a_party_that_let_a_call_wait_is_left_alone(self):
        self.call()
        self.hang()
        self.assert_refused()
        self.call('node-2')

    def test_the_refusal_is_what_the_last_call_failed_with(self):
        self.breaker._failure = exception.ConsoleInUse
        error = exception.ConsoleInUse(since='noon')
        self.hang(error=error)
        again = self.assertRaises(exception.ConsoleInUse, self.call)
        self.assertIsNot(error, again)
        self.assertEqual((str(error), error.kwargs), (str(again), again.kwargs))

    def test_a_quick_failure_is_an_answer(self):
        for error in (exception.ComputeUnreachable(), exception.ConsoleGone(), ZeroDivisionError()):
            self.assertRaises(type(error), self.call, error=error)
            self.call()

    def test_another_failure_is_an_answer(self):
        for _ in range(2):
            self.hang(error=exception.HypervisorUnreachable())

    def test_a_slow_success_is_an_answer(self):
        self.call(seconds=10)
        self.call()

    def test_after_the_pause_one_call_tries(self):
        self.hang()
        self.now += 2 * breaker._PAUSE
        with self.breaker.call('node-1', SLOW):
            self.assert_refused()
        self.call()

    def test_a_try_that_fails_begins_another_pause(self):
        self.hang()
        for _ in range(3):
            self.now += 2 * breaker._PAUSE
            self.hang()
            self.assert_refused()

    def test_tries_of_all_parties_are_limited(self):
        parties = [f'node-{number}' for number in range(3)]
        for _ in range(2):
            for party in parties:
                self.hang(party)
            self.now += 2 * breaker._PAUSE
        with contextlib.ExitStack() as trying:
            trying.enter_context(self.breaker.call(parties[0], SLOW))
            self.assert_refused(parties[1])
            self.call('node-9')
        for party in parties:
            self.call(party)

    def test_the_first_try_of_a_party_does_not_count_as_one(self):
        self.hang('node-1')
        self.now += 2 * breaker._PAUSE
        self.hang('node-1')
        self.hang('node-2')
        self.now += 2 * breaker._PAUSE
        with self.breaker.call('node-1', SLOW):
            self.call('node-2')
        self.assertEqual(1, self.breaker._free_trials)

    def test_a_check_tells_whether_a_call_would_be_made(self):
        self.breaker.check('node-1')
        self.hang()
        self.assertRaises(exception.ComputeUnreachable, self.breaker.check, 'node-1')
        self.now += 2 * breaker._PAUSE
        self.breaker.check('node-1')
        with self.breaker.call('node-1', SLOW):
            self.assertRaises(exception.ComputeUnreachable, self.breaker.check, 'node-1')

    def test_parties_that_answer_take_no_memory_and_the_others_little(self):
        self.useFixture(fixtures_library.MonkeyPatch(f'{breaker.__name__}._MAX_PARTIES', 10))
        for number in range(100):
            self.call(f'node-{number}')
            self.hang(f'node-{number}')
        self.assertEqual(10, len(self.breaker._open))
        self.now += 2 * breaker._PAUSE
        for number in range(100):
            self.call(f'node-{number}')
        self.assertEqual({}, self.breaker._open)

    def test_one_line_in_the_log_for_each_time(self):
        log = self.useFixture(fixtures_library.FakeLogger('consoled'))
        self.hang()
        self.assertIn('Compute host node-1', log.output)
        self.assert_refused()
        self.now += 2 * breaker._PAUSE
        self.hang()
        self.assertEqual(1, log.output.count('node-1'))
