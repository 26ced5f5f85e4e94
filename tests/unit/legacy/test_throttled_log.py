# SPDX-License-Identifier: Apache-2.0
"""Warnings of one kind are logged once a minute, with their number."""

import itertools
import logging

import fixtures
import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.legacy import throttled_log
from consoled.legacy.throttled_log import ThrottledLog


class ThrottledLogTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(fixtures.FakeLogger('consoled.legacy', level=logging.WARNING))

    def test_one_line_a_minute_of_each_kind_with_a_count(self):
        now = [1000.0]
        throttled = ThrottledLog(lambda: now[0])
        for _ in range(5):
            throttled.warn('one', 'reason')
        throttled.warn('two', 'reason')
        now[0] += 61
        throttled.warn('one', 'again')
        self.assertEqual(
            [
                'one: reason (times since the last such line: 1)',
                'two: reason (times since the last such line: 1)',
                'one: again (times since the last such line: 5)',
            ],
            self.logged.output.splitlines(),
        )

    def test_the_first_warning_is_logged_even_when_the_machine_has_just_started(self):
        ThrottledLog(lambda: 0.0).warn('one', 'reason')
        self.assertIn('one: reason', self.logged.output)


class ThrottlePropertiesTest(testtools.TestCase):
    @given(st.lists(st.tuples(st.sampled_from('abc'), st.floats(0, 50)), max_size=40))
    def test_lines_are_apart_and_count_every_warning_once(self, warnings):
        now = [0.0]
        throttled = ThrottledLog(lambda: now[0])
        lines = []
        with fixtures.MockPatchObject(
            throttled_log.LOG, 'warning', lambda text, facts: lines.append((now[0], dict(facts)))
        ):
            for kind, pause in warnings:
                now[0] += pause
                throttled.warn(kind, 'reason')
        for kind in 'abc':
            times = [at for at, facts in lines if facts['kind'] == kind]
            for earlier, later in itertools.pairwise(times):
                self.assertTrue(later - earlier >= throttled_log.INTERVAL, times)
            counted = sum(facts['count'] for _, facts in lines if facts['kind'] == kind)
            warned = [each for each, _ in warnings].count(kind)
            self.assertEqual(warned, counted + throttled._pending.get(kind, 0))
