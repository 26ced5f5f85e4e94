# SPDX-License-Identifier: Apache-2.0
"""The schema is what the migrations make, on each database."""

import sqlalchemy as sa
import testtools
from alembic.runtime import migration as alembic_migration
from oslo_db import exception as db_exc

from alembic import autogenerate
from consoled.db import migration, models
from consoled.db.session import Database
from tests.functional import base


class _Migrations:
    engine: str

    def setUp(self):
        super().setUp()
        self.url = base.database_url(self, self.engine)
        self.db = Database(self.url, pool_size=2)
        self.addCleanup(self.db.dispose)

    def differences(self):
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
        """Killed after the first table: MariaDB has committed it, the others roll it back."""
        with self.db.transactional_engine.begin() as conn:
            models.instances.create(conn)
        migration.upgrade(self.db)
        self.assertEqual([], self.differences())

    def test_the_version_table_is_our_own(self):
        migration.upgrade(self.db)
        with self.db.transactional_engine.connect() as conn:
            tables = set(sa.inspect(conn).get_table_names())
        self.assertEqual({'consoled_alembic_version', *models.metadata.tables}, tables)

    def test_foreign_keys_are_enforced(self):
        migration.upgrade(self.db)
        orphan = sa.insert(models.console_connection).values(
            instance_uuid=base.new_uuid(),
            host='h',
            port=1,
            console_type='serial',
            options='{}',
            created_at=sa.func.current_timestamp(),
            updated_at=sa.func.current_timestamp(),
        )
        for run in (self.db.single, self.db.transaction):
            self.assertRaises(db_exc.DBReferenceError, run, lambda conn: conn.execute(orphan))
        with self.db.transactional_engine.connect() as conn:
            self.assertEqual(
                0, conn.execute(sa.select(sa.func.count()).select_from(models.console_connection)).scalar()
            )


class MariaDBMigrationsTest(_Migrations, testtools.TestCase):
    engine = 'mariadb'

    def test_text_is_compared_byte_by_byte_in_innodb(self):
        migration.upgrade(self.db)
        with self.db.transactional_engine.connect() as conn:
            rows = conn.exec_driver_sql(
                'SELECT engine, table_collation FROM information_schema.tables'
                ' WHERE table_schema = DATABASE()'
                " AND table_name != 'consoled_alembic_version'"
            ).all()
        self.assertEqual({('InnoDB', 'utf8mb4_bin')}, {tuple(row) for row in rows})


class PostgreSQLMigrationsTest(_Migrations, testtools.TestCase):
    engine = 'postgresql'


class SQLiteMigrationsTest(_Migrations, testtools.TestCase):
    engine = 'sqlite'
