# SPDX-License-Identifier: Apache-2.0
"""Limits per process and per client network, and that nothing is remembered of a released permit."""

import collections
import itertools

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.limits import ConcurrencyLimit, FailureRateLimit, client_network

# some networks in several spellings
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
steps = st.lists(st.tuples(st.sampled_from(['acquire', 'exempt', 'release']), addresses), max_size=60)


class ClientNetworkTest(testtools.TestCase):
    def test_an_ipv4_address_and_an_ipv6_64_are_one_client(self):
        self.assertEqual(client_network('192.0.2.1'), client_network('::ffff:192.0.2.1'))
        self.assertNotEqual(client_network('192.0.2.1'), client_network('192.0.2.2'))
        self.assertEqual(client_network('2001:db8::1'), client_network('2001:db8::ffff:ffff:ffff:ffff'))
        self.assertNotEqual(client_network('2001:db8::1'), client_network('2001:db8:0:1::1'))

    def test_unknown_addresses_share_a_network(self):
        self.assertEqual({''}, {client_network(None), client_network(''), client_network('garbage')})


class ConcurrencyLimitTest(testtools.TestCase):
    def test_the_total_limit(self):
        limiter = ConcurrencyLimit(2, 10)
        self.assertTrue(limiter.acquire('192.0.2.1'))
        self.assertFalse(limiter.full)
        self.assertTrue(limiter.acquire('192.0.2.2'))
        self.assertTrue(limiter.full)
        self.assertFalse(limiter.acquire('192.0.2.3'))
        self.assertFalse(limiter.acquire('192.0.2.3', exempt=True))
        limiter.release('192.0.2.1')
        self.assertTrue(limiter.acquire('192.0.2.3'))

    def test_the_limit_of_an_address(self):
        limiter = ConcurrencyLimit(10, 1)
        self.assertTrue(limiter.acquire('192.0.2.1'))
        self.assertFalse(limiter.acquire('::ffff:192.0.2.1'))
        self.assertTrue(limiter.acquire('192.0.2.1', exempt=True))
        self.assertTrue(limiter.acquire('192.0.2.2'))
        self.assertEqual(3, limiter.count)

    @given(st.integers(0, 6), st.integers(0, 3), steps)
    def test_it_agrees_with_a_model(self, limit, per_address, steps):
        limiter = ConcurrencyLimit(limit, per_address)
        model = collections.Counter()
        for step, address in steps:
            bucket = client_network(address)
            if step == 'release':
                if not model[bucket]:
                    continue  # only acquired permits are released
                limiter.release(address)
                model[bucket] -= 1
            else:
                exempt = step == 'exempt'
                allowed = model.total() < limit and (exempt or model[bucket] < per_address)
                self.assertEqual(allowed, limiter.acquire(address, exempt=exempt))
                model[bucket] += allowed
            self.assertEqual(model.total(), limiter.count)
            self.assertTrue(0 <= limiter.count <= limit)
            self.assertEqual(model.total() >= limit, limiter.full)
            # only networks that hold permits are remembered
            self.assertEqual(+model, limiter._held)
            self.assertEqual(len(+model), len(limiter._held))


class FailureRateLimitTest(testtools.TestCase):
    def test_a_burst_and_then_one_at_a_time(self):
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

    def test_retry_after_counts_nothing(self):
        rate = FailureRateLimit(1)
        for _ in range(100):
            self.assertEqual(0, rate.retry_after('192.0.2.1', 1.0))

    def test_ipv6_addresses_of_one_network_share_the_limit(self):
        rate = FailureRateLimit(2)
        for number in range(2):
            rate.record_failure(f'2001:db8::{number}', 1.0)
        self.assertTrue(rate.retry_after('2001:db8::99', 1.0))
        self.assertFalse(rate.retry_after('2001:db8:0:1::99', 1.0))

    def test_failures_of_concurrent_attempts_count_too(self):
        """Many may start before the first of them fails; the wait is longer afterwards."""
        rate = FailureRateLimit(2)
        for _ in range(10):
            rate.record_failure('192.0.2.1', 1.0)
        self.assertEqual((10 - 1) * 30, rate.retry_after('192.0.2.1', 1.0))

    def test_the_oldest_failure_is_forgotten(self):
        rate = FailureRateLimit(1, max_networks=2)
        for number, address in enumerate(['192.0.2.1', '192.0.2.2', '192.0.2.1', '192.0.2.3']):
            rate.record_failure(address, float(number))
        waits = [rate.retry_after(f'192.0.2.{last}', 4.0) > 0 for last in (1, 2, 3)]
        self.assertEqual([True, False, True], waits)

    @given(st.integers(1, 20), st.lists(st.tuples(addresses, st.floats(0, 100)), max_size=40))
    def test_addresses_are_bounded(self, limit, failures):
        rate = FailureRateLimit(3, max_networks=limit)
        now = 0.0
        for address, later in failures:
            now += later
            rate.record_failure(address, now)
            self.assertTrue(len(rate._buckets) <= limit)

    @given(st.integers(1, 30), st.floats(0, 1e6), st.lists(st.floats(0, 40), min_size=1, max_size=60))
    def test_no_window_has_more_than_the_burst_and_what_has_leaked(self, per_minute, now, pauses):
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

    @given(st.integers(1, 100), st.floats(0, 1e6), st.lists(st.floats(0, 5), min_size=1, max_size=60))
    def test_the_wait_is_exact(self, per_minute, now, pauses):
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

    @given(st.integers(1, 100), st.integers(1, 100))
    def test_a_client_that_waits_may_try_again(self, per_minute, failures):
        """As with Retry-After: whole seconds, rounded up."""
        rate = FailureRateLimit(per_minute)
        for _ in range(failures):
            rate.record_failure('192.0.2.1', 0.0)
        wait = rate.retry_after('192.0.2.1', 0.0)
        self.assertFalse(rate.retry_after('192.0.2.1', float(int(wait) + 1)))
