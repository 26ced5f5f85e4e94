# SPDX-License-Identifier: Apache-2.0
"""The list of managers, on each database: signs of life, and a schema that has no such list yet."""

import concurrent.futures
import logging

import fixtures
import sqlalchemy as sa
import testtools

from consoled import version
from consoled.db import clock, managers, migration, models
from consoled.db.session import Database
from consoled.manager import periodic
from consoled.rpc import versions
from consoled.testing import fixtures as cell_fixtures
from tests.functional import base

BEFORE = '0003'  # the revision that has no list of managers


class _Managers:
    engine: str

    def setUp(self):
        super().setUp()
        self.db = Database(base.database_url(self, self.engine), pool_size=4)
        self.addCleanup(self.db.dispose)
        migration.upgrade(self.db)

    def names(self, **kwargs):
        return [manager.name for manager in managers.list_alive(self.db, **kwargs)]

    def age(self, name, seconds):
        """Put the last sign of life of a manager so long into the past."""
        table = models.console_manager
        statement = sa.update(table).where(table.c.name == name).values(seen_at=clock.utc_after(-seconds))
        self.db.transaction(lambda conn: conn.execute(statement))

    def test_a_manager_is_there_from_its_first_sign_of_life(self):
        self.assertEqual([], self.names())
        managers.record_heartbeat(self.db, 'b', '0.1.0', '1.0')
        managers.record_heartbeat(self.db, 'a', '0.2.0', '1.1')
        found = managers.list_alive(self.db)
        self.assertEqual(
            [('a', '0.2.0', '1.1'), ('b', '0.1.0', '1.0')],
            [(each.name, each.version, each.rpc_version) for each in found],
        )
        for each in found:
            self.assertTrue(0 <= each.age < 60, each.age)

    def test_a_later_sign_renews_it_with_its_release(self):
        managers.record_heartbeat(self.db, 'a', '0.1.0', '1.0')
        self.age('a', 1000)
        self.assertEqual([], self.names())
        managers.record_heartbeat(self.db, 'a', '0.2.0', '1.1')
        (found,) = managers.list_alive(self.db)
        self.assertEqual(('0.2.0', '1.1'), (found.version, found.rpc_version))

    def test_a_silent_one_is_not_seen_any_more(self):
        for name in ('lost', 'late'):
            managers.record_heartbeat(self.db, name, '0.1.0', '1.0')
        self.age('lost', managers.ALIVE_WITHIN + 1)
        self.age('late', managers.ALIVE_WITHIN - 60)
        self.assertEqual(['late'], self.names())
        self.assertEqual(['late', 'lost'], self.names(within=1000))

    def test_one_that_stops_is_gone(self):
        for name in ('a', 'A'):
            managers.record_heartbeat(self.db, name, '0.1.0', '1.0')
        managers.remove(self.db, 'a')
        managers.remove(self.db, 'a')
        self.assertEqual(['A'], self.names())

    def test_those_who_are_long_gone_are_forgotten(self):
        for name in ('lost', 'alive'):
            managers.record_heartbeat(self.db, name, '0.1.0', '1.0')
        self.age('lost', 100)
        self.assertEqual(0, managers.delete_silent(self.db, silent_for=200))
        self.assertEqual(1, managers.delete_silent(self.db, silent_for=50))
        self.assertEqual(['alive'], self.names(within=1000))

    def test_two_of_one_name_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            signs = [pool.submit(managers.record_heartbeat, self.db, 'a', f'0.{n}', '1.0') for n in range(8)]
            for sign in signs:
                sign.result()
        self.assertEqual(['a'], self.names())

    def test_signs_of_life(self):
        sign = self.sign()
        managers.record_heartbeat(self.db, 'long-gone', '0.1.0', '1.0')
        self.age('long-gone', 2 * 86400)
        sign.send()
        (found,) = managers.list_alive(self.db, within=10 * 86400)
        self.assertEqual(
            ('m1', version.VERSION, versions.RPC_VERSION), (found.name, found.version, found.rpc_version)
        )
        sign.end()
        self.assertEqual([], self.names())
        sign.send()  # of a loop that was at it meanwhile
        self.assertEqual([], self.names())

    def sign(self):
        conf = self.useFixture(cell_fixtures.Conf(host='m1')).conf
        return periodic.Heartbeat(conf, self.db)

    def test_a_schema_without_the_list(self):
        self.db = Database(base.database_url(self, self.engine), pool_size=4)
        self.addCleanup(self.db.dispose)
        migration.upgrade(self.db, BEFORE)
        self.assertFalse(managers.has_table(self.db))
        log = self.useFixture(fixtures.FakeLogger(level=logging.INFO))
        early, sign = self.sign(), self.sign()
        early.send()
        early.end()
        sign.send()
        self.assertEqual('', log.output)
        migration.upgrade(self.db)
        sign.send()
        self.assertEqual(['m1'], self.names())

    def test_what_a_revision_lacks(self):
        self.assertEqual([], migration.pending(migration.current(self.db)))
        self.assertEqual('0001', migration.pending(None)[0])
        self.assertEqual(migration.pending(None)[3:], migration.pending(BEFORE))
        self.assertIsNone(migration.pending('9999'))


class MariaDBManagersTest(_Managers, testtools.TestCase):
    engine = 'mariadb'


class PostgreSQLManagersTest(_Managers, testtools.TestCase):
    engine = 'postgresql'


class SQLiteManagersTest(_Managers, testtools.TestCase):
    engine = 'sqlite'
