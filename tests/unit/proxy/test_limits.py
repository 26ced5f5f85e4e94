# SPDX-License-Identifier: Apache-2.0
"""What peers can make grow has a limit, and what is given back is forgotten."""

import collections
import itertools

import testtools
from hypothesis import given, settings
from hypothesis import strategies as st

from consoled.proxy.limits import ConcurrencyLimit, FailureRateLimit, client_network

unhurried = settings(deadline=None)

# several spellings of a few networks
addresses = st.sampled_from(
    [
        None,
        '',
        'garbage',
        '192.0.2.1',
        '192.0.2.2',
        '::ffff:192.0.2.1',
        '2001:db8::1',
        '2001:db8::2',
        '2001:db8:0:0:ffff::',
        '2001:db8:0:1::1',
    ]
)
steps = st.lists(st.tuples(st.sampled_from(['take', 'exempt', 'give_back']), addresses), max_size=60)


class ClientNetworkTest(testtools.TestCase):
    def test_an_ipv4_user_is_an_address_and_an_ipv6_user_a_64(self):
        self.assertEqual(client_network('192.0.2.1'), client_network('::ffff:192.0.2.1'))
        self.assertNotEqual(client_network('192.0.2.1'), client_network('192.0.2.2'))
        self.assertEqual(client_network('2001:db8::1'), client_network('2001:db8::ffff:ffff:ffff:ffff'))
        self.assertNotEqual(client_network('2001:db8::1'), client_network('2001:db8:0:1::1'))

    def test_all_who_are_unknown_are_one(self):
        self.assertEqual({''}, {client_network(None), client_network(''), client_network('garbage')})


class ConcurrencyLimitTest(testtools.TestCase):
    def test_the_limit_in_all(self):
        counter = ConcurrencyLimit(2, 10)
        self.assertTrue(counter.acquire('192.0.2.1'))
        self.assertFalse(counter.full)
        self.assertTrue(counter.acquire('192.0.2.2'))
        self.assertTrue(counter.full)
        self.assertFalse(counter.acquire('192.0.2.3'))
        self.assertFalse(counter.acquire('192.0.2.3', exempt=True))
        counter.release('192.0.2.1')
        self.assertTrue(counter.acquire('192.0.2.3'))

    def test_the_limit_of_an_address(self):
        counter = ConcurrencyLimit(10, 1)
        self.assertTrue(counter.acquire('192.0.2.1'))
        self.assertFalse(counter.acquire('::ffff:192.0.2.1'))
        self.assertTrue(counter.acquire('192.0.2.1', exempt=True))
        self.assertTrue(counter.acquire('192.0.2.2'))
        self.assertEqual(3, counter.count)

    @unhurried
    @given(st.integers(0, 6), st.integers(0, 3), steps)
    def test_it_counts_what_a_list_of_places_has(self, limit, per_address, steps):
        counter = ConcurrencyLimit(limit, per_address)
        model = collections.Counter()
        for step, address in steps:
            bucket = client_network(address)
            if step == 'give_back':
                if not model[bucket]:
                    continue  # nobody gives back what was not taken
                counter.release(address)
                model[bucket] -= 1
            else:
                exempt = step == 'exempt'
                allowed = model.total() < limit and (exempt or model[bucket] < per_address)
                self.assertEqual(allowed, counter.acquire(address, exempt=exempt))
                model[bucket] += allowed
            self.assertEqual(model.total(), counter.count)
            self.assertTrue(0 <= counter.count <= limit)
            self.assertEqual(model.total() >= limit, counter.full)
            # only those are remembered who hold something
            self.assertEqual(+model, counter._held)
            self.assertEqual(len(+model), len(counter._held))


class FailureRateLimitTest(testtools.TestCase):
    def test_so_many_at_once_and_then_one_by_one(self):
        rate = FailureRateLimit(6)
        for _ in range(6):
            self.assertEqual(0, rate.retry_after('192.0.2.1', 100.0))
            rate.record_failure('192.0.2.1', 100.0)
        self.assertEqual(10, rate.retry_after('192.0.2.1', 100.0))
        self.assertAlmostEqual(1, rate.retry_after('192.0.2.1', 109.0))
        self.assertEqual(0, rate.retry_after('192.0.2.1', 110.0))
        rate.record_failure('192.0.2.1', 110.0)
        self.assertEqual(10, rate.retry_after('192.0.2.1', 110.0))
        self.assertEqual(0, rate.retry_after('192.0.2.1', 1000.0))

    def test_asking_is_free(self):
        rate = FailureRateLimit(1)
        for _ in range(100):
            self.assertEqual(0, rate.retry_after('192.0.2.1', 1.0))

    def test_an_ipv6_user_has_one_allowance_for_all_addresses(self):
        rate = FailureRateLimit(2)
        for number in range(2):
            rate.record_failure(f'2001:db8::{number}', 1.0)
        self.assertTrue(rate.retry_after('2001:db8::99', 1.0))
        self.assertFalse(rate.retry_after('2001:db8:0:1::99', 1.0))

    def test_failures_that_were_under_way_count_too(self):
        """Many may pass before the first of them fails; they are waited for afterwards."""
        rate = FailureRateLimit(2)
        for _ in range(10):
            rate.record_failure('192.0.2.1', 1.0)
        self.assertEqual((10 - 1) * 30, rate.retry_after('192.0.2.1', 1.0))

    def test_the_one_who_failed_longest_ago_is_forgotten(self):
        rate = FailureRateLimit(1, max_networks=2)
        for number, address in enumerate(['192.0.2.1', '192.0.2.2', '192.0.2.1', '192.0.2.3']):
            rate.record_failure(address, float(number))
        waits = [rate.retry_after(f'192.0.2.{last}', 4.0) > 0 for last in (1, 2, 3)]
        self.assertEqual([True, False, True], waits)

    @unhurried
    @given(st.integers(1, 20), st.lists(st.tuples(addresses, st.floats(0, 100)), max_size=40))
    def test_addresses_are_bounded(self, limit, failures):
        rate = FailureRateLimit(3, max_networks=limit)
        now = 0.0
        for address, later in failures:
            now += later
            rate.record_failure(address, now)
            self.assertTrue(len(rate._buckets) <= limit)

    @unhurried
    @given(st.integers(1, 30), st.floats(0, 1e6), st.lists(st.floats(0, 40), min_size=1, max_size=60))
    def test_no_window_has_more_than_the_burst_and_what_leaked_in_it(self, per_minute, now, pauses):
        rate = FailureRateLimit(per_minute)
        failed = []
        for pause in pauses:
            now += pause
            if not rate.retry_after('192.0.2.1', now):
                rate.record_failure('192.0.2.1', now)
                failed.append(now)
        for first, last in itertools.combinations_with_replacement(range(len(failed)), 2):
            leaked = (failed[last] - failed[first]) * per_minute / 60
            self.assertTrue(last - first + 1 <= per_minute + leaked + 1e-6, (first, last, failed))

    @unhurried
    @given(st.integers(1, 100), st.floats(0, 1e6), st.lists(st.floats(0, 5), min_size=1, max_size=60))
    def test_it_says_the_truth_about_the_wait(self, per_minute, now, pauses):
        rate = FailureRateLimit(per_minute)
        for pause in pauses:
            now += pause
            rate.record_failure('192.0.2.1', now)
        wait = rate.retry_after('192.0.2.1', now)
        self.assertTrue(rate.retry_after('192.0.2.1', now + wait) < 1e-6)
        for part in (0.25, 0.5, 0.75):
            self.assertAlmostEqual(
                wait * (1 - part), rate.retry_after('192.0.2.1', now + wait * part), places=5
            )

    @unhurried
    @given(st.integers(1, 100), st.integers(1, 100))
    def test_one_who_waits_as_told_is_let_through(self, per_minute, failures):
        """As Retry-After has it: whole seconds, rounded up."""
        rate = FailureRateLimit(per_minute)
        for _ in range(failures):
            rate.record_failure('192.0.2.1', 0.0)
        wait = rate.retry_after('192.0.2.1', 0.0)
        self.assertFalse(rate.retry_after('192.0.2.1', float(int(wait) + 1)))
