# SPDX-License-Identifier: Apache-2.0
"""Rows that revocations, cleaning and the sweep delete, and rows that they keep."""

import sqlalchemy as sa

from consoled.db import cleanup, models, revocation, sessions
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

    def test_defined_and_used_instances_are_not_retired(self):
        self.define(10000)
        self.assertEqual([0, 0], [self.retire(), self.retire()])
        self.instance = base.new_uuid()
        session = self.open(self.store(), self.proxy())
        self.execute(sa.delete(models.console_auth_token))
        self.assertEqual([0, 0], [self.retire(), self.retire()])
        sessions.close(self.db, session.id)
        self.assertEqual([0, 1], [self.retire(), self.retire()])

    # revoke

    # forget_instance

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

    def test_invariant_11_instances_that_no_agent_defined_are_retired_in_two_steps(self):
        self.store()
        self.assertEqual(0, self.retire())
        self.assertEqual(1, self.count(models.instances))  # it has a token
        revocation.revoke(self.db, {'instance_uuid': self.instance}, 'test')
        self.assertEqual(0, self.retire())  # marked
        self.assertEqual(1, self.retire())  # deleted
        self.assertEqual(0, self.count(models.instances))
        self.assertEqual(0, self.count(models.console_connection))

    def test_an_authorize_removes_the_mark(self):
        self.store()
        revocation.revoke(self.db, {'instance_uuid': self.instance}, 'test')
        self.assertEqual(0, self.retire())
        token_hash = self.store()
        self.assertEqual(1, self.count(models.instances, models.instances.c.retired_at.is_(None)))
        self.assertEqual([0, 0], [self.retire(), self.retire()])
        self.assertTrue(self.is_valid(token_hash))


class SQLiteCleanupTest(CleanupTests, base.DatabaseTestCase):
    pass
