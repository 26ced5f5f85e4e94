# SPDX-License-Identifier: Apache-2.0
"""State of a cell, read from SQLite databases of several revisions, or not read at all."""

import pathlib
import threading

import fixtures
import testtools
from oslo_db import exception as db_exc

from consoled import exception
from consoled.db import managers, migration
from consoled.db.engine import Database
from consoled.upgradecheck import cell


class InspectTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.db = Database(f'sqlite:///{directory}/cell.db')
        self.addCleanup(self.db.dispose)

    def test_an_empty_database(self):
        found = cell.inspect_database(self.db)
        self.assertEqual(
            (None, None, None, None), (found.revision, found.managers, found.usage, found.last_expiry)
        )
        self.assertIn(migration.head(), found.pending)

    def test_tables_that_an_old_schema_lacks_are_not_queried(self):
        migration.upgrade(self.db, '0002')
        found = cell.inspect_database(self.db)
        self.assertEqual(('0002', None, None), (found.revision, found.managers, found.usage))
        migration.upgrade(self.db, '0003')
        found = cell.inspect_database(self.db)
        self.assertEqual(('0003', None, []), (found.revision, found.managers, found.usage))

    def test_the_schema_of_this_release(self):
        migration.upgrade(self.db)
        managers.record_heartbeat(self.db, 'm1', '1.2.3', '1.0')
        found = cell.inspect_database(self.db)
        self.assertEqual((migration.head(), []), (found.revision, found.pending))
        self.assertEqual(['m1'], [manager.name for manager in found.managers])
        self.assertIsNotNone(found.now.tzinfo)


class UnknownTest(testtools.TestCase):
    def inspect(self, query):
        self.useFixture(fixtures.MockPatchObject(cell, '_query', query))
        return cell.inspect_database(None)

    def test_errors_become_a_sentence_without_their_text(self):
        for error, expected in (
            (exception.DatabaseUnavailable(), 'does not answer'),
            (db_exc.DBNonExistentDatabase('secret'), 'does not exist'),
            (db_exc.DBError(Exception('secret')), 'DBError'),
        ):

            def query(db, error=error):
                raise error

            sentence = self.inspect(query)
            self.assertIn(expected, sentence)
            self.assertNotIn('secret', sentence)

    def test_a_server_that_went_silent(self):
        self.useFixture(fixtures.MockPatchObject(cell, '_TIMEOUT', 0.05))
        release = threading.Event()
        self.addCleanup(release.set)
        self.assertIn('has not answered within', self.inspect(lambda db: release.wait(20)))

    def test_other_errors_are_not_hidden(self):
        self.assertRaises(ZeroDivisionError, self.inspect, lambda db: 1 / 0)
