# SPDX-License-Identifier: Apache-2.0
"""What an account of Nova's database may do is found out by trying, on each database."""

import fixtures
import sqlalchemy as sa
import testtools

from consoled.db.engine import Database
from consoled.nova import checks
from tests.functional import base
from tests.unit.nova.base import METADATA

PASSWORD = 'canary-of-reader'
TABLES = ('console_auth_tokens', 'instances')


class _Accounts:
    """``create`` and ``drop`` make and delete the account ``{user}``."""

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.FakeLogger())  # oslo.db logs what it does not know
        url = sa.make_url(base.database_url(self, self.kind))
        self.owner = sa.create_engine(url, poolclass=sa.NullPool, isolation_level='AUTOCOMMIT')
        METADATA.create_all(self.owner)
        self.user = f'reader_{url.database[-8:]}'
        self.execute(self.create)
        self.addCleanup(self.execute, *self.drop)
        reader = url.set(username=self.user, password=PASSWORD)
        self.nova = Database(reader.render_as_string(hide_password=False), pool_size=1, retry_time=0)
        self.addCleanup(self.nova.dispose)

    def execute(self, *statements):
        with self.owner.connect() as conn:
            for statement in statements:
                conn.exec_driver_sql(statement.format(user=self.user, password=PASSWORD).replace('%', '%%'))

    def grant(self, rights, *tables):
        self.execute(*(f'GRANT {rights} ON {table} TO {self.grantee}' for table in tables or TABLES))

    def findings(self):
        return checks.check_database(self.nova), checks.check_account(self.nova)

    def test_select_is_enough_and_all_that_is_wanted(self):
        self.grant('SELECT')
        database, account = self.findings()
        self.assertEqual((checks.Level.SUCCESS, checks.Level.SUCCESS), (database.level, account.level))

    def test_columns_that_cannot_be_read_are_named(self):
        self.grant('SELECT', 'console_auth_tokens')
        self.grant('SELECT (id, uuid, host, deleted)', 'instances')
        database, _ = self.findings()
        self.assertEqual(checks.Level.FAILURE, database.level)
        self.assertIn('Cannot be read: instances.project_id, instances.launched_at.', database.text)

    def test_each_right_to_write_is_found_and_none_is_used(self):
        self.execute("INSERT INTO instances (id, uuid, deleted) VALUES (1, 'a', 0)")
        self.grant('SELECT')
        for verb in ('INSERT', 'UPDATE', 'DELETE'):
            self.grant(verb, 'instances')
            _, account = self.findings()
            self.assertEqual(checks.Level.WARNING, account.level)
            self.assertIn(f'{verb} instances', account.text)
            self.assertNotIn('console_auth_tokens,', account.text)
        with self.owner.connect() as conn:
            rows = conn.exec_driver_sql('SELECT uuid, host FROM instances').all()
        self.assertEqual([('a', None)], [tuple(row) for row in rows])

    def test_clocks_of_one_server_agree(self):
        found = checks.check_clock(self.nova, self.nova)
        self.assertEqual(checks.Level.SUCCESS, found.level)


class MariaDBTest(_Accounts, testtools.TestCase):
    kind = 'mariadb'
    create = "CREATE USER {user}@'%' IDENTIFIED BY '{password}'"
    drop = ("DROP USER {user}@'%'",)
    grantee = "{user}@'%'"

    def setUp(self):
        super().setUp()
        # An account without any right cannot even choose the database.
        self.execute('CREATE TABLE other (id INTEGER)', f'GRANT SELECT ON other TO {self.grantee}')


class PostgreSQLTest(_Accounts, testtools.TestCase):
    kind = 'postgresql'
    create = "CREATE ROLE {user} LOGIN PASSWORD '{password}'"
    drop = ('DROP OWNED BY {user}', 'DROP ROLE {user}')
    grantee = '{user}'
