# SPDX-License-Identifier: Apache-2.0
"""Rows that revocations, cleaning and the sweep delete, and rows that they keep."""

import sqlalchemy as sa

from consoled.db import cleanup, models, sessions
from tests.unit.db import base

_S = models.console_session.c


class CleanupTests:
    def test_expired_tokens_are_deleted_in_batches(self):
        self.store()
        row = self.db.single(lambda conn: conn.execute(sa.select(models.console_auth_token)).mappings().one())
        copied = {name: value for name, value in row.items() if name != 'id'}
        many = [{**copied, 'token_hash': f'x{n:063x}'} for n in range(2500)]
        self.db.transaction(lambda conn: conn.execute(sa.insert(models.console_auth_token), many))
        self.age(models.console_auth_token.c.expires, 10**6)
        alive = self.store()
        batches = []
        self.assertEqual(2501, cleanup.count_expired(self.db))
        self.assertEqual(2501, cleanup.delete_expired(self.db, progress=batches.append))
        self.assertEqual([1000, 1000, 501], batches)
        self.assertTrue(self.is_valid(alive))
        self.assertEqual(0, cleanup.delete_expired(self.db))

    def test_tokens_that_expired_lately_are_left_to_their_hosts(self):
        self.store(ttl=1)
        self.age(models.console_auth_token.c.expires, 1800)
        self.assertEqual(0, cleanup.delete_expired(self.db, older_than=3600))
        self.assertEqual(1, cleanup.delete_expired(self.db, older_than=900))

    def test_proxies_whose_lease_ended_long_ago_go_with_their_sessions(self):
        token_hash = self.store()
        alive, dead = self.proxy(), self.proxy()
        self.open(token_hash, dead)
        self.open(token_hash, alive)
        self.age(models.console_proxy.c.lease_expires, 100, models.console_proxy.c.id == dead)
        self.assertEqual(0, cleanup.delete_dead_proxies(self.db, ended_for=200))
        self.assertEqual(1, cleanup.delete_dead_proxies(self.db, ended_for=50))
        self.assertEqual(1, self.count(models.console_proxy))
        self.assertEqual(1, self.count(models.console_session))

    def retire(self):
        return cleanup.retire_instances(self.db, unused_for=0)

    def test_invariant_11_instances_that_no_agent_defined_are_retired_in_two_steps(self):
        self.store()
        self.assertEqual(0, self.retire())
        self.assertEqual(1, self.count(models.instances))  # it has a token
        cleanup.revoke(self.db, {'instance_uuid': self.instance}, 'test')
        self.assertEqual(0, self.retire())  # marked
        self.assertEqual(1, self.retire())  # deleted
        self.assertEqual(0, self.count(models.instances))
        self.assertEqual(0, self.count(models.console_connection))

    def test_an_authorize_removes_the_mark(self):
        self.store()
        cleanup.revoke(self.db, {'instance_uuid': self.instance}, 'test')
        self.assertEqual(0, self.retire())
        token_hash = self.store()
        self.assertEqual(1, self.count(models.instances, models.instances.c.retired_at.is_(None)))
        self.assertEqual([0, 0], [self.retire(), self.retire()])
        self.assertTrue(self.is_valid(token_hash))

    def test_defined_and_used_instances_are_not_retired(self):
        self.define(10000)
        self.assertEqual([0, 0], [self.retire(), self.retire()])
        self.instance = base.new_uuid()
        session = self.open(self.store(), self.proxy())
        self.execute(sa.delete(models.console_auth_token))
        self.assertEqual([0, 0], [self.retire(), self.retire()])
        sessions.close(self.db, session.id)
        self.assertEqual([0, 1], [self.retire(), self.retire()])

    def test_all_instances_of_a_compute_host_are_forgotten(self):
        for compute_host in ('node-1', 'node-1', 'node-2'):
            self.instance = base.new_uuid()
            token_hash = self.store(compute_host=compute_host)
        seen = []
        self.assertEqual(2, cleanup.count_instances(self.db, 'node-1'))
        self.assertEqual(2, cleanup.forget_compute_host(self.db, 'node-1', 'gone', seen.append))
        self.assertEqual([1, 1], seen)
        self.assertEqual(1, self.count(models.instances))
        self.assertTrue(self.is_valid(token_hash))

    # revoke

    def test_revoke_deletes_the_matching_tokens_and_cuts_the_matching_sessions(self):
        proxy_id = self.proxy()
        for filters in (
            {'instance_uuid': self.instance},
            {'project_id': 'project-1'},
            {'user_id': 'user-1'},
            {'compute_host': base.COMPUTE_HOST},
            {'user_id': 'user-1', 'instance_uuid': self.instance},
        ):
            mine = self.store()
            session = self.open(mine, proxy_id)
            others = {'user_id': 'user-2', 'project_id': 'project-2', 'compute_host': 'node-2'}
            instance, self.instance = self.instance, base.new_uuid()
            other = self.store(**others)
            kept = self.open(other, proxy_id)
            self.instance = instance
            self.assertEqual(
                cleanup.Revoked(1, [session.id]), cleanup.revoke(self.db, filters, 'test'), filters
            )
            self.assertEqual((False, True), (self.is_valid(mine), self.is_valid(other)))
            self.assertEqual(('test', None), (self.cut_reason(session.id), self.cut_reason(kept.id)))
            for each in (session, kept):
                sessions.close(self.db, each.id)

    def test_all_filters_must_match(self):
        token_hash = self.store()
        filters = {'user_id': 'user-1', 'project_id': 'project-2'}
        self.assertEqual(cleanup.Revoked(0, []), cleanup.revoke(self.db, filters, 'test'))
        self.assertTrue(self.is_valid(token_hash))

    def test_revoking_a_session_takes_the_token_that_opened_it(self):
        opened, other = self.store(), self.store(10001)
        proxy_id = self.proxy()
        session, kept = self.open(opened, proxy_id), self.open(other, proxy_id)
        revoked = cleanup.revoke(self.db, {'session_id': session.id}, 'test')
        self.assertEqual(cleanup.Revoked(1, [session.id]), revoked)
        self.assertEqual((False, True), (self.is_valid(opened), self.is_valid(other)))
        self.assertIsNone(self.cut_reason(kept.id))
        # its token is gone, but the session can be found again
        self.assertEqual(cleanup.Revoked(0, []), cleanup.revoke(self.db, {'session_id': session.id}, 'x'))

    def test_the_first_reason_stays(self):
        session = self.open(self.store(), self.proxy())
        cleanup.revoke(self.db, {'instance_uuid': self.instance}, 'first')
        self.assertEqual([], cleanup.revoke(self.db, {'instance_uuid': self.instance}, 'second').sessions)
        self.assertEqual('first', self.cut_reason(session.id))

    # forget_instance

    def test_invariant_11_a_forgotten_instance_leaves_nothing_but_sessions_to_cut(self):
        session = self.open(self.store(), self.proxy())
        self.assertEqual([session.id], cleanup.forget_instance(self.db, self.instance, 'test'))
        for table in (models.instances, models.console_connection, models.console_auth_token):
            self.assertEqual(0, self.count(table))
        self.assertEqual(1, self.count(models.console_session, _S.cut_reason == 'test'))
        self.assertEqual([], cleanup.forget_instance(self.db, self.instance, 'test'))

    def test_an_instance_is_forgotten_on_the_named_host_only(self):
        """It has moved: its old host deletes it after its new one has defined it."""
        token_hash = self.store(compute_host='node-2')
        session = self.open(token_hash, self.proxy())
        self.assertEqual([], cleanup.forget_instance(self.db, self.instance, 'test', base.COMPUTE_HOST))
        self.assertTrue(self.is_valid(token_hash))
        self.assertEqual([session.id], cleanup.forget_instance(self.db, self.instance, 'test', 'node-2'))
        self.assertEqual(0, self.count(models.instances))

    def test_a_host_deletes_its_own_expired_tokens(self):
        self.store()
        self.instance = base.new_uuid()
        self.store(compute_host='node-2')
        self.age(models.console_auth_token.c.expires, 1)
        self.instance = base.new_uuid()
        alive = self.store()
        self.assertEqual(1, cleanup.delete_expired_of_host(self.db, base.COMPUTE_HOST))
        self.assertTrue(self.is_valid(alive))
        self.assertEqual(2, self.count(models.console_auth_token))


class SQLiteCleanupTest(CleanupTests, base.DatabaseTestCase):
    pass
