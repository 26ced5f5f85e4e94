# SPDX-License-Identifier: Apache-2.0
"""What time and operators take back, on each database, below the bus."""

import sqlalchemy as sa
import testtools

from consoled import objects
from consoled.db import claims, cleanup, consoles, migration, models, proxies, sessions, tokens
from consoled.db.session import Database
from tests.functional import base


class DatabaseTestCase(testtools.TestCase):
    engine: str

    def setUp(self):
        super().setUp()
        self.db = Database(base.database_url(self, self.engine), pool_size=20)
        self.addCleanup(self.db.dispose)
        migration.upgrade(self.db)
        self.instance = base.new_uuid()
        self.number = 0

    def count(self, table, *where):
        statement = sa.select(sa.func.count()).select_from(table).where(*where)
        return self.db.single(lambda conn: conn.execute(statement).scalar())

    def change(self, statement):
        return self.db.transaction(lambda conn: conn.execute(statement).rowcount)

    def store(self, port=10000, ttl=600, **changes):
        """Store a grant; its hash."""
        self.number += 1
        token_hash = f'{self.number:064x}'
        tokens.store(self.db, token_hash, base.a_grant(self.instance, port, **changes), ttl, None)
        return token_hash

    def proxy(self):
        proxy_id = base.new_uuid()
        proxies.register(self.db, proxy_id, proxy_id, 600)
        return proxy_id

    def open(self, token_hash, proxy_id, limit=0):
        opening = sessions.find_for_open(self.db, token_hash, base.new_uuid(), proxy_id, None)
        limits = claims.Limits(console=limit)
        return claims.claim(self.db, opening, limits, single_use=False, ends_with_token=False)

    def make_old(self, table, column):
        self.change(sa.update(table).values({column: sa.text("'2020-01-01 00:00:00'")}))


class _Cleanup:
    def test_expired_tokens_go_in_batches(self):
        self.store()
        row = self.db.single(lambda conn: conn.execute(sa.select(models.console_auth_token)).mappings().one())
        many = [{**row, 'id': None, 'token_hash': f'x{n:063x}'} for n in range(2500)]
        for each in many:
            del each['id']
        self.db.transaction(lambda conn: conn.execute(sa.insert(models.console_auth_token), many))
        self.make_old(models.console_auth_token, 'expires')
        alive = self.store()
        batches = []
        self.assertEqual(2501, cleanup.count_expired(self.db))
        self.assertEqual(2501, cleanup.delete_expired(self.db, progress=batches.append))
        self.assertEqual([1000, 1000, 501], batches)
        self.assertIsNotNone(tokens.validate(self.db, alive, single_use=False))
        self.assertEqual(0, cleanup.delete_expired(self.db))

    def test_the_sweep_leaves_hosts_their_time(self):
        self.store(ttl=1)
        self.change(sa.update(models.console_auth_token).values(expires=consoles.clock.utc_after(-1800)))
        self.assertEqual(0, cleanup.delete_expired(self.db, older_than=3600))
        self.assertEqual(1, cleanup.delete_expired(self.db, older_than=900))

    def test_proxies_that_are_dead_for_long(self):
        token_hash = self.store()
        alive, dead = self.proxy(), self.proxy()
        self.open(token_hash, dead)
        self.open(token_hash, alive)
        old = sa.update(models.console_proxy).where(models.console_proxy.c.id == dead)
        self.change(old.values(lease_expires=consoles.clock.utc_after(-100)))
        self.assertEqual(0, cleanup.delete_dead_proxies(self.db, ended_for=200))
        self.assertEqual(1, cleanup.delete_dead_proxies(self.db, ended_for=50))
        self.assertEqual(1, self.count(models.console_proxy))
        self.assertEqual(1, self.count(models.console_session))

    def retire(self):
        return cleanup.retire_instances(self.db, unused_for=0)

    def test_invariant_11_instances_that_were_only_authorized_go_by_themselves(self):
        self.store()
        self.assertEqual(0, self.retire())
        self.assertEqual(1, self.count(models.instances))  # it has a token
        cleanup.revoke(self.db, {'instance_uuid': self.instance}, 'test')
        self.assertEqual(0, self.retire())  # marked
        self.assertEqual(1, self.retire())  # deleted
        self.assertEqual(0, self.count(models.instances))
        self.assertEqual(0, self.count(models.console_connection))

    def test_an_authorize_takes_the_mark_away(self):
        self.store()
        cleanup.revoke(self.db, {'instance_uuid': self.instance}, 'test')
        self.assertEqual(0, self.retire())
        token_hash = self.store()
        self.assertEqual(1, self.count(models.instances, models.instances.c.retired_at.is_(None)))
        self.assertEqual([0, 0], [self.retire(), self.retire()])
        self.assertIsNotNone(tokens.validate(self.db, token_hash, single_use=False))

    def test_defined_and_used_instances_stay(self):
        consoles.define(self.db, self.instance, base.COMPUTE_HOST, [base.a_console(self.instance, 10000)])
        self.assertEqual([0, 0], [self.retire(), self.retire()])
        self.instance = base.new_uuid()
        session = self.open(self.store(), self.proxy())
        self.change(sa.delete(models.console_auth_token))
        self.assertEqual([0, 0], [self.retire(), self.retire()])
        sessions.close(self.db, session.id)
        self.assertEqual([0, 1], [self.retire(), self.retire()])

    def test_a_compute_host_that_is_gone_for_good(self):
        for compute_host in ('node-1', 'node-1', 'node-2'):
            self.instance = base.new_uuid()
            token_hash = self.store(compute_host=compute_host)
        seen = []
        self.assertEqual(2, cleanup.forget_compute_host(self.db, 'node-1', 'gone', seen.append))
        self.assertEqual([1, 1], seen)
        self.assertEqual(1, self.count(models.instances))
        self.assertIsNotNone(tokens.validate(self.db, token_hash, single_use=False))

    def test_a_type_of_object_is_what_comes_back(self):
        valid = tokens.validate(self.db, self.store(), single_use=True)
        self.assertIsInstance(valid.grant, objects.ConsoleAuthToken)


class MariaDBCleanupTest(_Cleanup, DatabaseTestCase):
    engine = 'mariadb'


class PostgreSQLCleanupTest(_Cleanup, DatabaseTestCase):
    engine = 'postgresql'


class SQLiteCleanupTest(_Cleanup, DatabaseTestCase):
    engine = 'sqlite'
