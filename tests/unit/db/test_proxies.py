# SPDX-License-Identifier: Apache-2.0
"""Proxies and their leases."""

import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from consoled import exception
from consoled.db import clock, models, proxies
from tests.unit.db import base

_P = models.console_proxy.c
_S = models.console_session.c
LONG_AGO = 2 * proxies.OPEN_TAKES_AT_MOST


class ProxiesTests:
    def lease(self, proxy_id):
        """Return the seconds until a proxy's lease ends."""
        ((expires,),) = self.rows(_P.lease_expires, where=[_P.id == proxy_id])
        return -self.ago(clock.aware(expires))

    def test_registration_grants_a_lease_and_tells_the_time(self):
        proxy_id = base.new_uuid()
        now = proxies.register(self.db, proxy_id, 'name', 600)
        self.assertTrue(0 <= self.ago(now) < 60)
        self.assertTrue(500 < self.lease(proxy_id) <= 600)

    def test_a_repeated_registration_renews_the_lease_and_keeps_the_sessions(self):
        proxy_id = self.proxy(lease=60)
        session = self.open(self.store(), proxy_id)
        proxies.register(self.db, proxy_id, proxy_id, 600)
        self.assertTrue(500 < self.lease(proxy_id) <= 600)
        self.assertEqual([(session.id,)], self.rows(_S.id))

    def test_a_new_process_of_a_name_ends_the_sessions_of_the_earlier_one(self):
        other = self.proxy()
        kept = self.open(self.store(), other)
        for _ in range(2):
            proxy_id = base.new_uuid()
            proxies.register(self.db, proxy_id, 'name', 600)
            session = self.open(self.store(), proxy_id)
        self.assertEqual({(other,), (proxy_id,)}, set(self.rows(_P.id)))
        self.assertEqual({(kept.id,), (session.id,)}, set(self.rows(_S.id)))

    # renew

    def test_a_renewal_tells_the_time_and_the_sessions_to_cut(self):
        proxy_id = self.proxy(lease=60)
        cut, _ = self.open(self.store(), proxy_id), self.open(self.store(), proxy_id)
        other = self.open(self.store(), self.proxy())
        for session in (cut, other):
            self.execute(models.console_session.update().where(_S.id == session.id).values(cut_reason='why'))
        renewal = proxies.renew(self.db, proxy_id, 600)
        self.assertEqual({cut.id: 'why'}, renewal.cut)
        self.assertTrue(0 <= self.ago(renewal.now) < 60)
        self.assertTrue(500 < self.lease(proxy_id) <= 600)

    def test_an_unknown_proxy_cannot_renew(self):
        self.assertRaises(exception.ProxyUnknown, proxies.renew, self.db, base.new_uuid(), 600)

    def test_invariant_4_a_late_renewal_costs_the_limited_sessions(self):
        """Their slots may have been used since; the unlimited ones went on."""
        proxy_id = self.proxy()
        limited, unlimited = (
            self.open(self.store(), proxy_id, limit=1),
            self.open(self.store(10001), proxy_id),
        )
        self.end_lease(proxy_id)
        renewal = proxies.renew(self.db, proxy_id, 600)
        self.assertEqual({limited.id: 'lease_lost'}, renewal.cut)
        self.assertEqual([(unlimited.id,)], self.rows(_S.id))
        self.assertTrue(self.lease(proxy_id) > 500)
        self.assertEqual({}, proxies.renew(self.db, proxy_id, 600).cut)

    # reconcile

    def reconcile(self, proxy_id, *session_ids, age=0):
        as_of = clock.now(self.db) - datetime.timedelta(seconds=age)
        return proxies.reconcile(self.db, proxy_id, session_ids, as_of)

    def test_listed_sessions_stay_and_unlisted_ones_are_deleted(self):
        proxy_id, token_hash = self.proxy(), self.store()
        kept, lost = self.open(token_hash, proxy_id), self.open(token_hash, proxy_id)
        others = self.open(token_hash, self.proxy())
        self.age(_S.connected_at, LONG_AGO)
        self.assertEqual([], self.reconcile(proxy_id, kept.id))
        self.assertEqual({(kept.id,), (others.id,)}, set(self.rows(_S.id)))
        self.assertNotIn((lost.id,), self.rows(_S.id))

    def test_sessions_without_a_row_are_to_be_cut(self):
        proxy_id = self.proxy()
        others = self.open(self.store(), self.proxy())
        unknown = base.new_uuid()
        self.assertEqual(sorted([unknown, others.id]), self.reconcile(proxy_id, unknown, others.id))

    def test_a_session_that_may_still_be_opening_is_left_alone(self):
        proxy_id = self.proxy()
        self.open(self.store(), proxy_id)
        self.reconcile(proxy_id)
        self.assertEqual(1, self.count(models.console_session))
        self.age(_S.connected_at, proxies.OPEN_TAKES_AT_MOST - 10)
        self.reconcile(proxy_id)
        self.assertEqual(1, self.count(models.console_session))

    def test_a_list_that_was_made_before_the_session_says_nothing_of_it(self):
        """The message was under way for long."""
        proxy_id = self.proxy()
        self.open(self.store(), proxy_id)
        self.age(_S.connected_at, LONG_AGO)
        self.reconcile(proxy_id, age=LONG_AGO)
        self.assertEqual(1, self.count(models.console_session))

    def test_the_moment_of_the_list_may_be_given_in_any_zone(self):
        proxy_id = self.proxy()
        self.open(self.store(), proxy_id)
        self.age(_S.connected_at, LONG_AGO)
        zone = datetime.timezone(datetime.timedelta(hours=14))
        proxies.reconcile(self.db, proxy_id, [], clock.now(self.db).astimezone(zone))
        self.assertEqual(0, self.count(models.console_session))


class SQLiteProxiesTest(ProxiesTests, base.DatabaseTestCase):
    pass


class ReconcilePropertyTest(base.DatabaseTestCase):
    @settings(max_examples=20)
    @given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=5), st.integers(0, 2))
    def test_rows_are_kept_if_they_are_listed_or_may_still_be_opening(self, rows, unknown):
        """:param rows: of each session, whether the proxy lists it and whether it is old"""
        self.instance = base.new_uuid()
        token_hash, proxy_id = self.store(), self.proxy()
        listed, left = [base.new_uuid() for _ in range(unknown)], set()
        for is_listed, is_old in rows:
            session = self.open(token_hash, proxy_id)
            self.age(_S.connected_at, LONG_AGO if is_old else 0, _S.id == session.id)
            if is_listed:
                listed.append(session.id)
            if is_listed or not is_old:
                left.add((session.id,))
        lost = proxies.reconcile(self.db, proxy_id, listed, clock.now(self.db))
        self.assertEqual(sorted(listed[:unknown]), lost)
        self.assertEqual(left, set(self.rows(_S.id, where=[_S.proxy_id == proxy_id])))
