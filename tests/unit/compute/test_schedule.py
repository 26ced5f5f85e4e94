# SPDX-License-Identifier: Apache-2.0
"""When all instances are compared: soon after a change, then at moments that hosts do not share."""

from unittest import mock

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.compute.schedule import ComparisonSchedule
from consoled.testing import fixtures


class ComparisonScheduleTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.config = self.useFixture(fixtures.Conf(compute__sync_interval=600))
        self.schedule = ComparisonSchedule(self.config.conf, 30.0)

    def bounds(self, *, resync):
        """The shortest and the longest delay that could be drawn."""
        drawn = []
        with mock.patch(
            'consoled.backoff.random.uniform', lambda low, high: drawn.append((low, high)) or 1.0
        ):
            interval = self.schedule.next_delay(resync=resync)
        ((low, high),) = drawn
        return round(low * interval), round(high * interval)

    def test_soon_then_anywhere_then_every_interval(self):
        for _ in range(2):  # again when the hypervisor or the managers are back
            self.assertEqual((27, 33), self.bounds(resync=False))
            self.assertEqual((0, 600), self.bounds(resync=True))
            self.assertEqual((540, 660), self.bounds(resync=True))
            self.assertEqual((540, 660), self.bounds(resync=True))

    def test_a_short_interval_is_kept_after_a_change(self):
        self.config.set(compute__sync_interval=10)
        self.assertEqual((9, 11), self.bounds(resync=False))

    @given(st.lists(st.booleans()))
    def test_a_delay_is_never_longer_than_a_jittered_interval(self, comparisons):
        schedule = ComparisonSchedule(self.config.conf, 30.0)
        for resync in comparisons:
            self.assertTrue(0 <= schedule.next_delay(resync=resync) <= 660)
