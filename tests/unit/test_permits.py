# SPDX-License-Identifier: Apache-2.0
"""Permits for work that may hang."""

import threading
import time

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.permits import NoPermit, Permits
from consoled.testing.fixtures import wait_until

LONG = 60.0  # seconds; nothing here waits for so long


class PermitsTest(testtools.TestCase):
    few = 2

    def taken(self, permits, *parties):
        """Take a permit; return how to give it back. A party may hold ``few``."""
        moment = permits.acquire(dict.fromkeys(parties, self.few))
        return lambda: permits.release(parties, moment)

    def refused(self, permits, *parties, **limits):
        """Return the party that a refusal names."""
        parties = dict.fromkeys(parties, self.few)
        return self.assertRaises(NoPermit, permits.acquire, parties, **limits).party

    @given(total=st.integers(1, 20), each=st.integers(1, 20))
    def test_a_party_holds_its_few_and_all_hold_the_total(self, total, each):
        permits, self.few = Permits(total), each
        few = min(total, each)
        held = [self.taken(permits, 'a') for _ in range(few)]
        self.assertEqual('a' if each <= total else None, self.refused(permits, 'a'))
        held += [self.taken(permits, number) for number in range(total - few)]
        self.assertIsNone(self.refused(permits, 'b'))
        for release in held:
            release()
        self.assertEqual({}, permits._held_since)  # parties that hold nothing take no memory
        for number in range(total):
            self.taken(permits, number)
        self.assertIsNone(self.refused(permits, 'b'))

    @given(st.lists(st.sampled_from(['a', 'b', 'c']), max_size=12))
    def test_what_is_given_back_can_be_taken_again(self, parties):
        permits, self.few = Permits(12), 12
        for _ in range(2):
            for release in [self.taken(permits, party) for party in parties]:
                release()
        self.assertEqual(12, permits._free)

    def test_a_permit_counts_for_each_of_its_parties(self):
        permits = Permits(10)
        release = self.taken(permits, 'console-1', 'project')
        self.taken(permits, 'console-2', 'project')
        self.assertEqual('project', self.refused(permits, 'console-3', 'project'))
        self.taken(permits, 'console-3')
        release()
        self.taken(permits, 'console-3', 'project')

    def waiting(self, permits, party, **limits):
        """Ask for a permit in another thread; return the list that gets the outcome."""
        outcome = []

        def ask():
            try:
                outcome.append(permits.acquire({party: self.few}, **limits))
            except NoPermit as exc:
                outcome.append(exc.party)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        return outcome

    def test_a_permit_is_waited_for(self):
        permits = Permits(1)
        release = self.taken(permits, 'a')
        outcome = self.waiting(permits, 'b', timeout=LONG)
        self.assertEqual([], outcome)
        release()
        wait_until(lambda: outcome, what='the permit')
        permits.release(['b'], outcome[0])

    def test_nobody_waits_for_a_party_that_is_stuck(self):
        permits, self.few = Permits(10), 1
        self.taken(permits, 'a')
        outcome = self.waiting(permits, 'a', timeout=LONG, stalled_after=0.01)
        wait_until(lambda: outcome, what='the refusal')
        self.assertEqual(['a'], outcome)
        self.assertEqual('a', self.refused(permits, 'a', timeout=LONG, stalled_after=0.0))

    def test_a_party_one_of_whose_permits_is_stuck_is_waited_for(self):
        permits = Permits(10)
        permits._held_since['a'] = [time.monotonic() - LONG]
        release = self.taken(permits, 'a')
        outcome = self.waiting(permits, 'a', timeout=LONG, stalled_after=LONG / 2)
        self.assertEqual([], outcome)
        release()
        wait_until(lambda: outcome, what='the permit')

    def test_each_party_has_a_limit_of_its_own(self):
        permits = Permits(10)
        permits.acquire({'host': 2, 'guest': 1})
        self.assertEqual('guest', self.assertRaises(NoPermit, permits.acquire, {'host': 2, 'guest': 1}).party)
        permits.acquire({'host': 2, 'another guest': 1})
        self.assertEqual('host', self.assertRaises(NoPermit, permits.acquire, {'host': 2, 'third': 1}).party)
