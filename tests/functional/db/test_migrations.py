# SPDX-License-Identifier: Apache-2.0
"""The tests of migrations on the real databases."""

import testtools

from consoled.db import migration
from tests.functional import base
from tests.unit.db.test_migration import MigrationTests


class MariaDBMigrationTest(MigrationTests, testtools.TestCase):
    def new_url(self):
        return base.database_url(self, 'mariadb')

    def test_text_is_compared_byte_by_byte_in_innodb(self):
        migration.upgrade(self.db)
        with self.db.transactional_engine.connect() as conn:
            rows = conn.exec_driver_sql(
                'SELECT engine, table_collation FROM information_schema.tables'
                ' WHERE table_schema = DATABASE()'
                " AND table_name != 'consoled_alembic_version'"
            ).all()
        self.assertEqual({('InnoDB', 'utf8mb4_bin')}, {tuple(row) for row in rows})


class PostgreSQLMigrationTest(MigrationTests, testtools.TestCase):
    def new_url(self):
        return base.database_url(self, 'postgresql')
