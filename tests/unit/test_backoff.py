# SPDX-License-Identifier: Apache-2.0
"""Pauses with jitter stay within their bounds."""

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import backoff

INTERVALS = st.floats(0.001, 1e6)


class BackoffTest(testtools.TestCase):
    @given(interval=INTERVALS)
    def test_an_interval_varies_by_a_tenth(self, interval):
        self.assertTrue(0.899 * interval <= backoff.jittered(interval) <= 1.101 * interval)

    @given(interval=INTERVALS)
    def test_full_jitter_is_any_part_of_the_interval(self, interval):
        self.assertTrue(0 <= backoff.anywhere(interval) <= interval)

    @given(failures=st.integers(1, 10000), first=st.floats(0.01, 10), longest=st.floats(0.01, 1000))
    def test_a_pause_is_never_longer_than_the_longest(self, failures, first, longest):
        pause = backoff.after(failures, first, longest)
        self.assertTrue(0 < pause <= longest)
        self.assertTrue(pause >= min(first, longest) / 2)

    def test_it_doubles_with_each_failure(self):
        for failures, longest in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (500, 10)):
            self.assertEqual(longest, backoff.doubled(failures, 1, 10))
            pause = backoff.after(failures, 1, 10)
            self.assertTrue(longest / 2 <= pause <= longest, (failures, pause))

    def test_peers_do_not_stay_in_step(self):
        for pauses in (
            {backoff.jittered(60) for _ in range(100)},
            {backoff.anywhere(60) for _ in range(100)},
            {backoff.after(3, 1, 60) for _ in range(100)},
        ):
            self.assertTrue(len(pauses) > 90)
