# SPDX-License-Identifier: Apache-2.0
"""The tests of migrations on the real databases."""

import pathlib
import shutil

import fixtures
import testtools

from consoled.db import migration
from tests.functional import base
from tests.unit.db import interruption
from tests.unit.db.test_migration import MigrationTests

# A migration after the last one; ``upgrade`` is what a test fills in.
SCRIPT = """
import sqlalchemy as sa

from alembic import op

revision = '9999'
down_revision = '{head}'


def upgrade() -> None:
    {upgrade}
"""


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

    def test_an_upgrade_that_was_interrupted_on_mysql_can_be_run_again(self):
        """MySQL has no IF NOT EXISTS for an index."""

        def new_database():
            db = self.new_database()
            interruption.like_mysql(db)
            return db

        self.useFixture(fixtures.FakeLogger())
        self.assertEqual([], interruption.failures(new_database))

    def with_migration(self, upgrade):
        """Return a fixture: the migrations, and one more with this body, in a directory of the test's own."""
        self.useFixture(fixtures.FakeLogger())
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'alembic')
        shutil.copytree(migration._SCRIPT_DIRECTORIES[-1], directory)
        script = SCRIPT.format(head=migration.head(), upgrade=upgrade)
        directory.joinpath('versions', '9999_another.py').write_text(script)
        return fixtures.MockPatchObject(migration, '_SCRIPT_DIRECTORIES', (directory,))

    def test_a_migration_that_cannot_be_run_again_is_found(self):
        for upgrade in (
            "op.add_column('console_proxy', sa.Column('added', sa.String(32)))",
            "op.create_index('ix_added', 'console_proxy', ['lease_expires'])",
            "op.create_table('added', sa.Column('id', sa.Integer, primary_key=True))",
            "op.drop_index('ix_console_session_project', 'console_session')",
        ):
            start = migration.head()
            with self.subTest(upgrade=upgrade), self.with_migration(upgrade):
                (statement, wrong), *_ = interruption.failures(self.new_database, start)
                self.assertRegex(statement.strip(), '^(ALTER|CREATE|DROP) ')
                self.assertRegex(wrong, 'added|ix_console_session_project')

    def test_a_migration_that_looks_before_it_changes_is_right(self):
        upgrade = (
            "columns = sa.inspect(op.get_bind()).get_columns('console_proxy')\n"
            "    if not any(column['name'] == 'added' for column in columns):\n"
            "        op.add_column('console_proxy', sa.Column('added', sa.String(32)))"
        )
        start = migration.head()
        with self.with_migration(upgrade):
            self.assertEqual([], interruption.failures(self.new_database, start))


class PostgreSQLMigrationTest(MigrationTests, testtools.TestCase):
    def new_url(self):
        return base.database_url(self, 'postgresql')
