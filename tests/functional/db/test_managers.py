# SPDX-License-Identifier: Apache-2.0
"""Heartbeats of a manager, on each database, even if its schema has no list of managers yet."""

import logging

import fixtures
import testtools

from consoled import version
from consoled.db import managers, migration
from consoled.db.engine import Database
from consoled.manager import periodic
from consoled.rpc import versions
from consoled.testing import fixtures as cell_fixtures
from tests.functional import base
from tests.functional.db import base as db_base
from tests.unit.db.test_managers import ManagersTests

BEFORE = '0003'  # the revision without the list of managers


class _Heartbeats(ManagersTests):
    def heartbeat(self, db=None):
        conf = self.useFixture(cell_fixtures.Conf(host='m1')).conf
        return periodic.Heartbeat(conf, db or self.db)

    def test_a_heartbeat_is_recorded_until_the_manager_ends(self):
        heartbeat = self.heartbeat()
        managers.record_heartbeat(self.db, 'long-gone', '0.1.0', '1.0')
        self.make_old('long-gone', 2 * 86400)
        heartbeat.send()
        (found,) = managers.list_alive(self.db, within=10 * 86400)
        self.assertEqual(
            ('m1', version.VERSION, versions.RPC_VERSION), (found.name, found.version, found.rpc_version)
        )
        heartbeat.end()
        self.assertEqual([], self.names())
        heartbeat.send()  # by a loop that was running meanwhile
        self.assertEqual([], self.names())


class MariaDBHeartbeatsTest(_Heartbeats, db_base.MariaDBTestCase):
    pass


class PostgreSQLHeartbeatsTest(_Heartbeats, db_base.PostgreSQLTestCase):
    pass


class SQLiteHeartbeatsTest(_Heartbeats, db_base.SQLiteTestCase):
    pass


class OldSchemaTest(testtools.TestCase):
    def check(self, engine):
        db = Database(base.database_url(self, engine), pool_size=4)
        self.addCleanup(db.dispose)
        migration.upgrade(db, BEFORE)
        self.assertFalse(managers.has_table(db))
        log = self.useFixture(fixtures.FakeLogger(level=logging.INFO))
        conf = self.useFixture(cell_fixtures.Conf(host='m1')).conf
        early, heartbeat = (periodic.Heartbeat(conf, db) for _ in range(2))
        early.send()
        early.end()
        heartbeat.send()
        self.assertEqual('', log.output)
        migration.upgrade(db)
        heartbeat.send()
        self.assertEqual(['m1'], [manager.name for manager in managers.list_alive(db)])

    def test_on_mariadb(self):
        self.check('mariadb')

    def test_on_postgresql(self):
        self.check('postgresql')

    def test_on_sqlite(self):
        self.check('sqlite')
