# SPDX-License-Identifier: Apache-2.0
"""Limits per process and per client network, and that nothing is remembered of a released permit."""

import collections
import itertools

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.limits import ConcurrencyLimit, RateLimit, client_networks, client_site

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
        '2001:db8:0:100::1',
        '2001:db8:1::1',
    ]
)
steps = st.lists(st.tuples(st.sampled_from(['acquire', 'exempt', 'release']), addresses), max_size=60)


def narrowest(address):
    return client_networks(address)[0][0]


class ClientNetworksTest(testtools.TestCase):
    def test_an_ipv4_address_and_an_ipv6_64_are_one_client(self):
        self.assertEqual(narrowest('192.0.2.1'), narrowest('::ffff:192.0.2.1'))
        self.assertNotEqual(narrowest('192.0.2.1'), narrowest('192.0.2.2'))
        self.assertEqual(narrowest('2001:db8::1'), narrowest('2001:db8::ffff:ffff:ffff:ffff'))
        self.assertNotEqual(narrowest('2001:db8::1'), narrowest('2001:db8:0:1::1'))

    def test_an_ipv6_address_is_counted_in_wider_networks_too(self):
        self.assertEqual(
            (
                ('2001:db8:1:203::/64', 1),
                ('2001:db8:1:200::/56', 4),
                ('2001:db8:1::/48', 16),
                ('2001:db8::/32', 64),
            ),
            client_networks('2001:db8:1:203::9'),
        )

    def test_unknown_addresses_share_a_network(self):
        self.assertEqual({''}, {narrowest(None), narrowest(''), narrowest('garbage')})
        self.assertEqual({''}, {client_site(None), client_site(''), client_site('garbage')})

    def test_an_ipv4_address_behind_nat64_is_that_address(self):
        self.assertEqual(client_networks('192.0.2.1'), client_networks('64:ff9b::192.0.2.1'))

    def test_the_site_of_a_customer(self):
        self.assertEqual('192.0.2.1', client_site('::ffff:192.0.2.1'))
        self.assertEqual(client_site('2001:db8:1:2::3'), client_site('2001:db8:1:ffff::'))
        self.assertNotEqual(client_site('2001:db8:1::'), client_site('2001:db8:2::'))


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

    def test_a_network_that_takes_all_its_addresses_leaves_room_for_others(self):
        limiter = ConcurrencyLimit(1000, 2)
        taken = sum(limiter.acquire(f'2001:db8:1:{number << 8:x}::1') for number in range(256))
        self.assertEqual(2 * 16, taken)
        self.assertTrue(limiter.acquire('2001:db8:2::1'))

    @given(st.integers(0, 6), st.integers(0, 3), steps)
    def test_it_agrees_with_a_model(self, limit, per_address, steps):
        limiter = ConcurrencyLimit(limit, per_address)
        model, total = collections.Counter(), 0
        for step, address in steps:
            networks = client_networks(address)
            if step == 'release':
                if not model[networks[0][0]]:
                    continue  # only acquired permits are released
                limiter.release(address)
                total -= 1
                model.subtract(network for network, _ in networks)
            else:
                exempt = step == 'exempt'
                room = all(model[network] < per_address * share for network, share in networks)
                allowed = total < limit and (exempt or room)
                self.assertEqual(allowed, limiter.acquire(address, exempt=exempt))
                total += allowed
                if allowed:
                    model.update(network for network, _ in networks)
            self.assertEqual(total, limiter.count)
            self.assertTrue(0 <= limiter.count <= limit)
            self.assertEqual(total >= limit, limiter.full)
            # only networks that hold permits are remembered
            self.assertEqual(+model, limiter._held)
            self.assertEqual(len(+model), len(limiter._held))


class Rate:
    """A RateLimit whose keys are those of addresses."""

    def __init__(self, per_minute):
        self.limit = RateLimit(per_minute)

    def retry_after(self, address, now):
        return self.limit.retry_after(client_networks(address), now)

    def record_failure(self, address, now):
        self.limit.record(client_networks(address), now)


class RateLimitTest(testtools.TestCase):
    def test_a_burst_and_then_one_at_a_time(self):
        rate = Rate(6)
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
        rate = Rate(1)
        for _ in range(100):
            self.assertEqual(0, rate.retry_after('192.0.2.1', 1.0))

    def test_ipv6_addresses_of_one_network_share_the_limit(self):
        rate = Rate(2)
        for number in range(2):
            rate.record_failure(f'2001:db8::{number}', 1.0)
        self.assertTrue(rate.retry_after('2001:db8::99', 1.0))
        self.assertFalse(rate.retry_after('2001:db8:0:1::99', 1.0))

    def test_failures_of_concurrent_attempts_count_too(self):
        """Many may start before the first of them fails; the wait is longer afterwards."""
        rate = Rate(2)
        for _ in range(10):
            rate.record_failure('192.0.2.1', 1.0)
        self.assertEqual((10 - 1) * 30, rate.retry_after('192.0.2.1', 1.0))

    def test_events_of_others_neither_reset_nor_fill_a_bucket(self):
        """With one entry for each address, 10,000 addresses push out those of all others."""
        rate = Rate(20)
        for _ in range(20):
            rate.record_failure('192.0.2.1', 1.0)
        for number in range(10001):
            rate.record_failure(f'2001:db8:1:{number:x}::1', 1.0)
        self.assertTrue(rate.retry_after('192.0.2.1', 1.0))
        limited = sum(rate.retry_after(f'198.51.100.{number}', 1.0) > 0 for number in range(256))
        self.assertEqual(0, limited)

    def test_an_attacker_with_many_networks_is_limited_in_the_wider_ones(self):
        rate = Rate(20)
        allowed = 0
        for number in range(0, 65536, 16):
            address = f'2001:db8:1:{number:x}::1'
            if not rate.retry_after(address, 1.0):
                rate.record_failure(address, 1.0)
                allowed += 1
        self.assertEqual(20 * 16, allowed)
        self.assertFalse(rate.retry_after('2001:db8:2::1', 1.0))

    @given(st.lists(st.tuples(addresses, st.floats(0, 100)), max_size=40))
    def test_the_memory_is_fixed(self, failures):
        rate, now = Rate(3), 0.0
        size = len(rate.limit._levels), len(rate.limit._updated)
        for address, later in failures:
            now += later
            rate.record_failure(address, now)
        self.assertEqual(size, (len(rate.limit._levels), len(rate.limit._updated)))

    def test_which_keys_collide_differs_by_process(self):
        first, second = RateLimit(1), RateLimit(1)
        self.assertNotEqual(first._cells('192.0.2.1'), second._cells('192.0.2.1'))

    def test_take_counts_what_is_within_the_limit(self):
        rate = RateLimit(2)
        keys = client_networks('192.0.2.1')
        self.assertEqual([True, True, False, False], [rate.take(keys, 1.0) for _ in range(4)])
        self.assertEqual([True, False], [rate.take(keys, 31.0) for _ in range(2)])

    @given(st.integers(1, 30), st.floats(0, 1e6), st.lists(st.floats(0, 40), min_size=1, max_size=60))
    def test_no_window_has_more_than_the_burst_and_what_has_leaked(self, per_minute, now, pauses):
        rate = Rate(per_minute)
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
        rate = Rate(per_minute)
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
        rate = Rate(per_minute)
        for _ in range(failures):
            rate.record_failure('192.0.2.1', 0.0)
        wait = rate.retry_after('192.0.2.1', 0.0)
        self.assertFalse(rate.retry_after('192.0.2.1', float(int(wait) + 1)))
