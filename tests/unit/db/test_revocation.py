# SPDX-License-Identifier: Apache-2.0
"""Revocation and forgotten instances: what is deleted, what is marked to be cut."""

from consoled.db import models, revocation, sessions
from tests.unit.db import base

_S = models.console_session.c


class RevocationTests:
    def test_all_instances_of_a_compute_host_are_forgotten(self):
        for compute_host in ('node-1', 'node-1', 'node-2'):
            self.instance = base.new_uuid()
            token_hash = self.store(compute_host=compute_host)
        seen = []
        self.assertEqual(2, revocation.count_instances(self.db, 'node-1'))
        self.assertEqual(2, revocation.forget_compute_host(self.db, 'node-1', 'gone', seen.append))
        self.assertEqual([1, 1], seen)
        self.assertEqual(1, self.count(models.instances))
        self.assertTrue(self.is_valid(token_hash))

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
                revocation.Revoked(1, [session.id]), revocation.revoke(self.db, filters, 'test'), filters
            )
            self.assertEqual((False, True), (self.is_valid(mine), self.is_valid(other)))
            self.assertEqual(('test', None), (self.cut_reason(session.id), self.cut_reason(kept.id)))
            for each in (session, kept):
                sessions.close(self.db, each.id)

    def test_all_filters_must_match(self):
        token_hash = self.store()
        filters = {'user_id': 'user-1', 'project_id': 'project-2'}
        self.assertEqual(revocation.Revoked(0, []), revocation.revoke(self.db, filters, 'test'))
        self.assertTrue(self.is_valid(token_hash))

    def test_revoking_a_session_takes_the_token_that_opened_it(self):
        opened, other = self.store(), self.store(10001)
        proxy_id = self.proxy()
        session, kept = self.open(opened, proxy_id), self.open(other, proxy_id)
        revoked = revocation.revoke(self.db, {'session_id': session.id}, 'test')
        self.assertEqual(revocation.Revoked(1, [session.id]), revoked)
        self.assertEqual((False, True), (self.is_valid(opened), self.is_valid(other)))
        self.assertIsNone(self.cut_reason(kept.id))
        # its token is gone, but the session can be found again
        self.assertEqual(
            revocation.Revoked(0, []), revocation.revoke(self.db, {'session_id': session.id}, 'x')
        )

    def test_the_first_reason_stays(self):
        session = self.open(self.store(), self.proxy())
        revocation.revoke(self.db, {'instance_uuid': self.instance}, 'first')
        self.assertEqual([], revocation.revoke(self.db, {'instance_uuid': self.instance}, 'second').sessions)
        self.assertEqual('first', self.cut_reason(session.id))

    def test_invariant_11_a_forgotten_instance_leaves_nothing_but_sessions_to_cut(self):
        session = self.open(self.store(), self.proxy())
        self.assertEqual([session.id], revocation.forget_instance(self.db, self.instance, 'test'))
        for table in (models.instances, models.console_connection, models.console_auth_token):
            self.assertEqual(0, self.count(table))
        self.assertEqual(1, self.count(models.console_session, _S.cut_reason == 'test'))
        self.assertEqual([], revocation.forget_instance(self.db, self.instance, 'test'))

    def test_an_instance_is_forgotten_on_the_named_host_only(self):
        """It has moved: its old host deletes it after its new one has defined it."""
        token_hash = self.store(compute_host='node-2')
        session = self.open(token_hash, self.proxy())
        self.assertEqual([], revocation.forget_instance(self.db, self.instance, 'test', base.COMPUTE_HOST))
        self.assertTrue(self.is_valid(token_hash))
        self.assertEqual([session.id], revocation.forget_instance(self.db, self.instance, 'test', 'node-2'))
        self.assertEqual(0, self.count(models.instances))


class SQLiteRevocationTest(RevocationTests, base.DatabaseTestCase):
    pass
