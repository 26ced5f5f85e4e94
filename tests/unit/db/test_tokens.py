# SPDX-License-Identifier: Apache-2.0
"""Tokens: storing, looking up, and the choice of the next free console."""

import random

import fixtures

from consoled import exception
from consoled.db import models, sessions, tokens
from tests.unit.db import base

_I = models.instances.c
_C = models.console_connection.c
_T = models.console_auth_token.c
HASH = 'f' * 64


class StoreTests:
    def put(self, token_hash=HASH, ttl=600, **changes):
        grant = base.a_grant(self.instance, changes.pop('port', 10000), **changes)
        return tokens.store(self.db, token_hash, grant, ttl, 'req-1')

    def test_a_token_for_an_unknown_instance_inserts_its_console(self):
        stored = self.put(options={'mode': 'view'})
        self.assertEqual([], stored.cut)
        self.assertTrue(500 < -self.ago(stored.expires) <= 600)
        ((uuid, host, defined),) = self.rows(_I.uuid, _I.compute_host, _I.defined)
        self.assertEqual((self.instance, base.COMPUTE_HOST, False), (uuid, host, bool(defined)))
        console = self.rows(_C.port, _C.console_type, _C.options)
        self.assertEqual([(10000, 'serial', '{"mode":"view"}')], console)
        columns = (_T.token_hash, _T.user_id, _T.project_id, _T.request_id, _T.compute_host, _T.source)
        self.assertEqual(
            [(HASH, 'user-1', 'project-1', 'req-1', base.COMPUTE_HOST, None)], self.rows(*columns)
        )

    def test_a_token_for_a_known_console_is_one_statement(self):
        self.define(10000)
        calls = []
        self.useFixture(fixtures.MockPatchObject(tokens, '_store_unknown', calls.append))
        self.assertEqual([], self.put().cut)
        self.assertEqual([], calls)

    def test_invariant_6_a_repetition_stores_nothing_new(self):
        for known in (False, True):
            first, again = self.put(), self.put(ttl=100)
            self.assertEqual(first.expires, again.expires, known)
            self.assertEqual(1, self.count(models.console_auth_token))
            self.execute(models.console_auth_token.delete())
            self.define(10000)

    def test_a_token_corrects_what_is_known_of_the_console(self):
        """Its options have changed, so it is another console; with another base URL it is the same."""
        self.define(10000)
        old = self.store()
        session = self.open(old, self.proxy())
        self.put('1' * 64, access_url_base='https://elsewhere.example/')
        self.assertTrue(self.is_valid(old))
        stored = self.put('2' * 64, options={'mode': 'view'})
        self.assertEqual([session.id], stored.cut)
        self.assertEqual((False, True), (self.is_valid(old), self.is_valid('2' * 64)))
        self.assertEqual([('{"mode":"view"}', base.BASE_URL)], self.rows(_C.options, _C.access_url_base))

    def test_a_token_without_a_base_url(self):
        for token_hash in ('1' * 64, '2' * 64):
            self.put(token_hash, access_url_base=None)
            grant = tokens.validate(self.db, token_hash, single_use=False).grant
            self.assertIsNone(grant.access_url_base)

    def test_an_instance_on_another_compute_host_has_moved(self):
        self.define(10000, 10001)
        old = self.store(10001)
        session = self.open(old, self.proxy())
        stored = self.put(compute_host='node-2')
        self.assertEqual([session.id], stored.cut)
        self.assertFalse(self.is_valid(old))
        self.assertEqual([('node-2',)], self.rows(_I.compute_host))
        self.assertEqual([10000], self.ports())

    def test_the_mark_of_a_retired_instance_is_removed(self):
        self.store()
        self.age(_I.retired_at, 10)
        self.put()
        self.assertEqual([(None,)], self.rows(_I.retired_at))

    def test_a_deleted_token_is_deleted_once_more_without_harm(self):
        self.put()
        for _ in range(2):
            tokens.delete(self.db, HASH)
        self.assertFalse(self.is_valid(HASH))
        self.assertEqual([10000], self.ports())

    # validate

    def test_a_valid_token_has_the_console_and_no_secret(self):
        self.define(10000, mode='view')
        stored = self.put(options={'mode': 'view'})
        valid = tokens.validate(self.db, HASH, single_use=False)
        expected = base.a_grant(
            self.instance,
            10000,
            options={'mode': 'view'},
            token=None,
            access_url=None,
            expires=stored.expires,
        )
        self.assertEqual(expected.obj_to_primitive(), valid.grant.obj_to_primitive())
        self.assertIsNone(valid.source)

    def test_invariant_2_a_token_expires_by_the_databases_clock(self):
        self.put()
        self.age(_T.expires, -5)
        self.assertTrue(self.is_valid(HASH))
        self.age(_T.expires, 0)
        self.assertFalse(self.is_valid(HASH))
        self.assertFalse(self.is_valid('0' * 64))

    def test_a_used_token_is_valid_unless_it_is_for_a_single_use(self):
        self.put()
        self.claim(self.request(HASH, self.proxy()), single_use=True)
        self.assertIsNotNone(tokens.validate(self.db, HASH, single_use=False))
        self.assertIsNone(tokens.validate(self.db, HASH, single_use=True))


class NextFreeTests:
    def next_free(self, user='user-1', unlimited=False, **changes):
        self._tokens += 1
        grant = base.a_grant(self.instance, None, user_id=user, **changes)
        token_hash = f'{self._tokens:064x}'
        completed, stored = tokens.store_next_free(self.db, token_hash, grant, 600, None, unlimited=unlimited)
        self.assertTrue(self.is_valid(token_hash))
        self.assertTrue(self.ago(stored.expires) < 0)
        return completed

    def test_the_first_free_console_by_port(self):
        self.define(10002, 10000, 10001)
        self.assertEqual(10000, self.next_free().port)
        self.assertEqual(10000, self.next_free().port)  # the user's own token does not reserve it

    def test_the_grant_is_completed(self):
        self.define(10000, mode='view')
        found = self.next_free(access_url_base=None, compute_host='as-the-caller-thinks')
        self.assertEqual(
            (base.ADDRESS, 10000, base.COMPUTE_HOST, {'mode': 'view'}, base.BASE_URL),
            (found.host, found.port, found.compute_host, found.options, found.access_url_base),
        )
        other = self.next_free(access_url_base='https://elsewhere.example/')
        self.assertEqual('https://elsewhere.example/', other.access_url_base)

    def test_consoles_with_a_session_are_not_free(self):
        self.define(10000, 10001)
        self.open(self.store(10000), self.proxy())
        self.assertEqual(10001, self.next_free().port)
        session = self.open(self.store(10001), self.proxy())
        self.assertRaises(exception.ConsolePortsExhausted, self.next_free)
        sessions.close(self.db, session.id)
        self.assertEqual(10001, self.next_free().port)

    def test_a_console_without_a_limit_may_have_sessions(self):
        self.define(10000, 10001)
        proxy_id = self.proxy()
        self.open(self.store(10000), proxy_id)
        self.assertEqual(10001, self.next_free(unlimited=True).port)
        self.open(self.store(10001), proxy_id)
        self.assertEqual(10000, self.next_free(unlimited=True).port)

    def test_a_console_for_which_another_user_has_a_token_comes_last(self):
        self.define(10000, 10001)
        self.assertEqual(10000, self.next_free('alice').port)
        self.assertEqual(10001, self.next_free('bob').port)
        self.assertEqual(10000, self.next_free('carol').port)
        self.assertEqual(10000, self.next_free('alice').port)

    def test_expired_tokens_of_others_do_not_count(self):
        self.define(10000, 10001)
        self.next_free('alice')
        self.age(_T.expires, 1)
        self.assertEqual(10000, self.next_free('bob').port)

    def test_the_same_user_in_another_project_is_another_user(self):
        self.define(10000, 10001)
        self.assertEqual(10000, self.next_free().port)
        self.assertEqual(10001, self.next_free(project_id='project-2').port)

    def test_unknown_instances_and_types(self):
        self.assertRaises(exception.InstanceNotFound, self.next_free)
        self.define(10000)
        self.assertRaises(exception.ConsolePortsExhausted, self.next_free, console_type='novnc')

    def collide(self):
        """Let another user store a token for each console that is chosen first, as if at the same moment."""
        store, pauses = tokens.store, []
        chosen = []

        def both(db, token_hash, grant, ttl, request_id):
            chosen.append(grant.port)
            if len(chosen) <= self.collisions:
                other = grant.copy()
                other.user_id = 'other'
                store(db, f'{len(chosen):x}'.rjust(64, 'e'), other, ttl, None)
            return store(db, token_hash, grant, ttl, request_id)

        self.useFixture(fixtures.MockPatchObject(tokens, 'store', both))
        self.useFixture(fixtures.MockPatchObject(tokens.time, 'sleep', pauses.append))
        return chosen, pauses

    def test_a_collision_leads_to_another_choice(self):
        self.define(*range(10000, 10004))
        self.collisions = 1
        chosen, pauses = self.collide()
        found = self.next_free()
        self.assertEqual([10000, found.port], chosen)
        self.assertNotEqual(10000, found.port)
        self.assertEqual(1, len(pauses))
        # the token of the first choice is gone
        self.assertEqual(1, self.count(models.console_auth_token, _T.user_id == 'user-1'))

    def test_with_no_other_choice_two_users_share_a_console(self):
        self.define(10000)
        self.collisions = 1
        chosen, _ = self.collide()
        self.assertEqual(10000, self.next_free().port)
        self.assertEqual([10000, 10000], chosen)

    def test_the_search_for_another_console_ends(self):
        self.define(*range(10000, 10020))
        self.collisions = 100
        chosen, pauses = self.collide()
        self.useFixture(fixtures.MockPatchObject(random, 'choice', lambda rows: rows[0]))
        self.next_free()
        self.assertEqual((9, 8), (len(chosen), len(pauses)))


class SQLiteStoreTest(StoreTests, base.DatabaseTestCase):
    pass


class SQLiteNextFreeTest(NextFreeTests, base.DatabaseTestCase):
    pass
