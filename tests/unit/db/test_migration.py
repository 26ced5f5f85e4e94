# SPDX-License-Identifier: Apache-2.0
"""Migrations: their result equals the models, and an upgrade can be repeated."""

import logging
from unittest import mock

import fixtures
import sqlalchemy as sa
import testtools
from alembic.runtime import migration as alembic_migration
from oslo_db import exception as db_exc

from alembic import autogenerate
from consoled import exception
from consoled.db import migration, models
from consoled.db.engine import Database
from tests.unit.db import base, interruption


class MigrationTests:
    """``new_url`` returns the URL of an empty database of the test's own."""

    def setUp(self):
        super().setUp()
        self.db = self.new_database()

    def new_database(self):
        db = Database(self.new_url(), pool_size=2)
        self.addCleanup(db.dispose)
        return db

    def differences(self):
        """Return the differences between the database and the models."""
        with self.db.transactional_engine.connect() as conn:
            context = alembic_migration.MigrationContext.configure(
                conn,
                opts={
                    'version_table': migration.VERSION_TABLE,
                    'compare_type': True,
                    'compare_server_default': False,
                },
            )
            return autogenerate.compare_metadata(context, models.metadata)

    def test_models_equal_migrations(self):
        self.assertNotEqual([], self.differences())  # the comparison sees something
        migration.upgrade(self.db)
        self.assertEqual([], self.differences())

    def test_upgrading_twice_is_harmless(self):
        self.assertIsNone(migration.current(self.db))
        migration.upgrade(self.db)
        with self.db.transactional_engine.begin() as conn:
            conn.execute(
                sa.insert(models.instances).values(
                    uuid=base.new_uuid(), compute_host='c', created_at=sa.func.current_timestamp()
                )
            )
        migration.upgrade(self.db)
        self.assertEqual(migration.head(), migration.current(self.db))
        with self.db.transactional_engine.connect() as conn:
            self.assertEqual(
                1, conn.execute(sa.select(sa.func.count()).select_from(models.instances)).scalar()
            )

    def test_an_upgrade_that_was_interrupted_can_be_run_again(self):
        """Killed after any statement. MariaDB has committed those before, the others roll them back."""
        self.useFixture(fixtures.FakeLogger())  # oslo.db logs what it does not know
        self.assertEqual([], interruption.failures(self.new_database))

    def test_the_version_table_is_our_own(self):
        migration.upgrade(self.db)
        with self.db.transactional_engine.connect() as conn:
            tables = set(sa.inspect(conn).get_table_names())
        self.assertEqual({'consoled_alembic_version', *models.metadata.tables}, tables)

    def test_tables_of_another_program(self):
        self.assertEqual([], migration.foreign_tables(self.db))
        with self.db.transactional_engine.begin() as conn:
            for name in ('instances', 'services', 'alembic_version'):
                conn.execute(sa.text(f'CREATE TABLE {name} (id INTEGER)'))
        found = migration.foreign_tables(self.db)
        self.assertEqual(['alembic_version', 'services'], found)
        self.assertIn('it has the tables alembic_version, services, and', migration.describe_foreign(found))
        self.assertIn('d and 2 more,', migration.describe_foreign(tuple('abcdef')))

    def test_tables_beside_a_cell(self):
        """They were there before this was looked at, or are those of a newer release."""
        migration.upgrade(self.db)
        with self.db.transactional_engine.begin() as conn:
            conn.execute(sa.text('CREATE TABLE services (id INTEGER)'))
        self.assertEqual([], migration.foreign_tables(self.db))

    def test_revisions_that_a_database_lacks(self):
        self.assertIsNone(migration.current(self.db))
        everything = migration.pending(None)
        self.assertEqual(('0001', migration.head()), (everything[0], everything[-1]))
        for number, revision in enumerate(everything, 1):
            migration.upgrade(self.db, revision)
            self.assertEqual(revision, migration.current(self.db))
            self.assertEqual(everything[number:], migration.pending(revision))

    def test_a_database_that_is_behind_is_logged(self):
        logged = self.useFixture(fixtures.FakeLogger(level=logging.WARNING))
        migration.upgrade(self.db, '0001')
        migration.warn_if_behind(self.db)
        self.assertIn(f'at revision 0001, this release needs {migration.head()}', logged.output)

    def test_a_database_at_its_revision_is_not(self):
        logged = self.useFixture(fixtures.FakeLogger(level=logging.WARNING))
        migration.upgrade(self.db)
        migration.warn_if_behind(self.db)
        self.assertEqual('', logged.output)


class SQLiteMigrationTest(MigrationTests, testtools.TestCase):
    def new_url(self):
        return 'sqlite:///' + self.useFixture(fixtures.TempDir()).join('cell.sqlite')

    def test_a_database_that_does_not_answer_is_unavailable(self):
        db = mock.Mock()
        for method in (db.transactional_engine.connect, db.transactional_engine.begin):
            method.side_effect = db_exc.DBConnectionError()
        for call in (migration.current, migration.upgrade):
            self.assertRaises(exception.DatabaseUnavailable, call, db)
        logged = self.useFixture(fixtures.FakeLogger(level=logging.WARNING))
        migration.warn_if_behind(db)
        self.assertIn('Cannot check the database schema', logged.output)

    def test_an_answer_is_not_told_as_silence(self):
        """A duplicate column is an operational error, as a server that does not answer is."""
        duplicate = sa.exc.OperationalError('ALTER', {}, Exception(1060, "Duplicate column name 'x'"))
        db = mock.Mock()
        for method in (db.transactional_engine.connect, db.transactional_engine.begin):
            method.side_effect = duplicate
        for call in (migration.current, migration.upgrade):
            self.assertRaises(sa.exc.OperationalError, call, db)

    def test_whatever_the_database_answers_a_manager_only_warns(self):
        denied = sa.exc.OperationalError('SELECT', {}, Exception(1142, 'SELECT command denied'))
        for error in (denied, db_exc.DBError(denied), db_exc.DBNonExistentDatabase('x')):
            db = mock.Mock()
            db.transactional_engine.connect.side_effect = error
            logged = self.useFixture(fixtures.FakeLogger(level=logging.WARNING))
            migration.warn_if_behind(db)
            self.assertIn('Cannot check the database schema: ', logged.output)


class ScriptsTest(testtools.TestCase):
    def test_a_revision_of_a_newer_release_is_unknown(self):
        self.assertIsNone(migration.pending('9999'))

    def test_missing_migrations(self):
        self.useFixture(fixtures.MockPatchObject(migration, '_SCRIPT_DIRECTORIES', ()))
        self.assertRaises(FileNotFoundError, migration.head)
