# SPDX-License-Identifier: Apache-2.0
"""Claims of slots: who gets one, who does not, and why."""

import testtools
from hypothesis import given, settings
from hypothesis import strategies as st

from consoled import exception
from consoled.db import claims, models, revocation, sessions, tokens
from tests.unit.db import base

_S = models.console_session.c
_T = models.console_auth_token.c


class ClaimsTests:
    def slots(self):
        return sorted(slot for (slot,) in self.rows(_S.slot, where=[_S.slot.is_not(None)]))

    def test_a_session_has_the_values_of_request_and_token(self):
        request = self.request(self.store(), self.proxy(), client_address='192.0.2.77')
        session = self.claim(request, console=1)
        self.assertEqual(
            (request.session_id, request.proxy_id, 'user-1', 'project-1', '192.0.2.77', True, None, None),
            (
                session.id,
                session.proxy_id,
                session.user_id,
                session.project_id,
                session.client_address,
                session.limited,
                session.ends_at,
                session.cut_reason,
            ),
        )
        self.assertEqual((self.instance, 10000), (session.console.instance_uuid, session.console.port))
        self.assertTrue(-1 < self.ago(session.connected_at) < 60)

    def test_a_session_ends_with_its_token_if_ends_with_token_is_set(self):
        token_hash = self.store(ttl=100)
        session = self.claim(self.request(token_hash, self.proxy()), ends_with_token=True)
        self.assertTrue(40 < -self.ago(session.ends_at) <= 100)
        valid = tokens.validate(self.db, token_hash, single_use=False)
        self.assertEqual(valid.grant.expires, session.ends_at)

    def test_sessions_without_a_limit_have_no_slot(self):
        token_hash, proxy_id = self.store(), self.proxy()
        found = [self.open(token_hash, proxy_id) for _ in range(3)]
        self.assertEqual([False] * 3, [session.limited for session in found])
        self.assertEqual([], self.slots())

    # slots

    def test_invariant_3_a_console_has_as_many_sessions_as_its_limit(self):
        token_hash, proxy_id = self.store(), self.proxy()
        found = [self.open(token_hash, proxy_id, limit=3) for _ in range(3)]
        self.assertEqual([0, 1, 2], self.slots())
        for number, session in enumerate(found):
            self.age(_S.connected_at, 3600 * (3 - number), _S.id == session.id)
        connected = {session.id: session.connected_at for session in sessions.list_live(self.db, {}, limit=9)}
        revocation.revoke(self.db, {'session_id': found[1].id}, 'test')
        taken = self.assertRaises(claims.SlotsTaken, self.open, self.store(), proxy_id, 3)
        self.assertEqual([session.id for session in found], [holder.id for holder in taken.holders])
        self.assertEqual([False, True, False], [holder.cut for holder in taken.holders])
        self.assertEqual(connected, {holder.id: holder.connected_at for holder in taken.holders})

    def test_a_slot_is_free_again_when_its_session_is_closed(self):
        token_hash, proxy_id = self.store(), self.proxy()
        found = [self.open(token_hash, proxy_id, limit=3) for _ in range(3)]
        sessions.close(self.db, found[1].id)
        self.open(token_hash, proxy_id, limit=3)
        self.assertEqual([0, 1, 2], self.slots())

    def test_other_consoles_have_slots_of_their_own(self):
        proxy_id = self.proxy()
        for port in (10000, 10001):
            self.open(self.store(port), proxy_id, limit=1)
        self.instance = base.new_uuid()
        self.open(self.store(10000), proxy_id, limit=1)
        self.assertEqual([0, 0, 0], self.slots())

    def test_invariant_4_a_dead_proxy_holds_no_slot(self):
        token_hash, dead, alive = self.store(), self.proxy(), self.proxy()
        lost, kept = self.open(token_hash, dead, limit=2), self.open(token_hash, alive, limit=2)
        self.end_lease(dead)
        new = self.open(token_hash, alive, limit=2)
        self.assertEqual({kept.id, new.id}, {each for (each,) in self.rows(_S.id)})
        self.assertNotIn(lost.id, {each for (each,) in self.rows(_S.id)})

    def test_a_limit_that_was_lowered_holds_for_new_sessions(self):
        token_hash, proxy_id = self.store(), self.proxy()
        for _ in range(2):
            self.open(token_hash, proxy_id, limit=2)
        taken = self.assertRaises(claims.SlotsTaken, self.open, token_hash, proxy_id, 1)
        self.assertEqual(2, len(taken.holders))

    # proxies and tokens that have ended

    def test_a_proxy_without_a_lease(self):
        token_hash = self.store()
        ended = self.proxy()
        request = self.request(token_hash, ended)
        self.end_lease(ended)
        for each in (request, self.request(token_hash, base.new_uuid())):
            self.assertRaises(exception.ProxyUnknown, self.claim, each)
        self.assertEqual(0, self.count(models.console_session))

    def test_a_token_that_ends_after_it_was_looked_up(self):
        proxy_id = self.proxy()
        expired, revoked = (self.request(self.store(port), proxy_id) for port in (10000, 10001))
        self.age(_T.expires, 1, _T.id == expired.token_id)
        self.execute(models.console_auth_token.delete().where(_T.id == revoked.token_id))
        for request in (expired, revoked):
            self.assertRaises(exception.InvalidToken, self.claim, request, console=1)
        self.assertEqual(0, self.count(models.console_session))

    # single use

    def test_a_single_use_token_opens_one_session(self):
        token_hash, proxy_id = self.store(), self.proxy()
        first, second = (self.request(token_hash, proxy_id) for _ in range(2))
        self.claim(first, single_use=True)
        self.assertRaises(exception.InvalidToken, self.claim, second, single_use=True)
        self.assertEqual(1, self.count(models.console_session))
        self.assertTrue(self.request(token_hash, proxy_id).spent)

    def test_a_claim_that_fails_does_not_spend_the_token(self):
        proxy_id = self.proxy()
        self.open(self.store(), proxy_id, limit=1)
        token_hash = self.store()
        request = self.request(token_hash, proxy_id)
        self.assertRaises(claims.SlotsTaken, self.claim, request, single_use=True, console=1)
        ended = self.request(token_hash, base.new_uuid())
        self.assertRaises(exception.ProxyUnknown, self.claim, ended, single_use=True)
        self.assertFalse(self.request(token_hash, proxy_id).spent)

    # repeated requests

    def test_invariant_6_a_repeated_request_gets_its_session_again(self):
        request = self.request(self.store(), self.proxy())
        first = self.claim(request, console=1, single_use=True)
        again = self.claim(request, console=1, single_use=True)
        self.assertEqual(first.obj_to_primitive(), again.obj_to_primitive())
        self.assertEqual(1, self.count(models.console_session))

    def test_the_id_of_another_session_is_refused(self):
        proxy_id = self.proxy()
        session = self.open(self.store(), proxy_id)
        for request in (
            self.request(self.store(10001), proxy_id, session.id),  # another token
            self.request(self.store(), self.proxy(), session.id),  # another proxy
        ):
            self.assertRaises(exception.InvalidArgument, self.claim, request)

    # limits per token, instance and project

    def test_limits_per_token_instance_and_project(self):
        proxy_id = self.proxy()
        self.open(self.store(), proxy_id)
        for scope, token_hash in (
            ('token', f'{1:064x}'),
            ('instance', self.store(10001)),
            ('project', self.store_elsewhere()),
        ):
            self.claim(self.request(token_hash, proxy_id), **{scope: 20})
            error = self.assertRaises(
                exception.TooManySessions, self.claim, self.request(token_hash, proxy_id), **{scope: 1}
            )
            self.assertIn(scope, str(error))
        self.assertEqual(4, self.count(models.console_session))  # a refused one is rolled back

    def store_elsewhere(self):
        instance, self.instance = self.instance, base.new_uuid()
        try:
            return self.store()
        finally:
            self.instance = instance

    def test_sessions_of_dead_proxies_are_not_counted(self):
        token_hash, dead = self.store(), self.proxy()
        self.open(token_hash, dead)
        self.end_lease(dead)
        self.claim(self.request(token_hash, self.proxy()), token=1, instance=1, project=1)

    def test_users_without_a_project_share_no_limit(self):
        proxy_id = self.proxy()
        for _ in range(2):
            token_hash = self.store(project_id=None)
            self.claim(self.request(token_hash, proxy_id), project=1)


class SQLiteClaimsTest(ClaimsTests, base.DatabaseTestCase):
    pass


class LimitsPropertyTest(base.DatabaseTestCase):
    @settings(max_examples=25)
    @given(st.integers(1, 3), st.lists(st.sampled_from(['open', 'close', 'die']), max_size=10))
    def test_invariant_3_any_sequence_of_opens_and_ends(self, limit, steps):
        """A model beside the database: an open succeeds if and only if fewer than the limit are live."""
        self.instance = base.new_uuid()
        token_hash, proxy_id, live = self.store(), self.proxy(), []
        for step in steps:
            if step == 'open':
                try:
                    live.append(self.open(token_hash, proxy_id, limit=limit).id)
                except claims.SlotsTaken as taken:
                    self.assertEqual(set(live), {holder.id for holder in taken.holders})
                    self.assertEqual(limit, len(live))
                else:
                    self.assertTrue(len(live) <= limit, live)
            elif step == 'close' and live:
                sessions.close(self.db, live.pop(0))
            elif step == 'die':
                self.end_lease(proxy_id)
                proxy_id, live = self.proxy(), []


class LimitsTest(testtools.TestCase):
    def test_zero_means_no_limit(self):
        self.assertEqual(claims.Limits(console=0), claims.Limits(0, 0, 0, 0))
