# SPDX-License-Identifier: Apache-2.0
"""``consoled-manage db`` on an SQLite file."""

import contextlib
import json
import pathlib
import re
import sqlite3

import sqlalchemy as sa

from consoled.db import migration
from tests.unit.manage.base import ManageCase


class SchemaTest(ManageCase):
    def test_the_database_must_be_configured(self):
        code, _, err = self.manage('--config-file', self.config('[DEFAULT]\n'), 'db', 'check')
        self.assertEqual(2, code)
        self.assertIn('[database] connection is not set', err)

    def test_upgrade_from_an_empty_database_to_head(self):
        for command in (('db', 'check'), ('purge',)):
            code, out, err = self.run_manage(*command)
            self.assertEqual((1, ''), (code, out))
            self.assertIn('consoled-manage: database_behind: ', err)
            self.assertIn('consoled-manage db upgrade', err)
        _, out, _ = self.run_manage('db', 'version', '-f', 'json')
        self.assertIsNone(json.loads(out)['current'])
        for _ in range(2):
            code, out, err = self.run_manage('db', 'upgrade')
            self.assertEqual((0, ''), (code, err))
        code, _, err = self.run_manage('db', 'check')
        self.assertEqual((0, ''), (code, err))
        _, out, _ = self.run_manage('db', 'version', '-f', 'json')
        self.assertEqual(json.loads(out)['head'], json.loads(out)['current'])

    def test_a_database_of_a_newer_release_is_not_told_to_upgrade(self):
        self.run_manage('db', 'upgrade')
        (url,) = re.findall('sqlite:.*', pathlib.Path(self.conf).read_text())
        engine = sa.create_engine(url)
        self.addCleanup(engine.dispose)
        with engine.begin() as conn:
            conn.execute(sa.text(f"UPDATE {migration.VERSION_TABLE} SET version_num = '9999'"))
        for command in (('db', 'check'), ('db', 'upgrade')):
            code, out, err = self.run_manage(*command)
            self.assertEqual((1, ''), (code, out))
            self.assertTrue(err.startswith('consoled-manage: database_ahead: '), err)
            self.assertIn('9999', err)
            self.assertNotIn('consoled-manage db upgrade', err)

    def change(self, statement):
        """Execute a statement in the database of the test."""
        (path,) = re.findall('sqlite:///(.*)', pathlib.Path(self.conf).read_text())
        with contextlib.closing(sqlite3.connect(path)) as conn, conn:
            conn.execute(statement)

    def test_another_programs_database_is_left_as_it_is(self):
        for statement in (
            'CREATE TABLE instances (id INTEGER, uuid TEXT)',
            'CREATE TABLE alembic_version (version_num TEXT)',
            'CREATE TABLE console_auth_tokens (id INTEGER)',
        ):
            self.change(statement)
        (path,) = re.findall('sqlite:///(.*)', pathlib.Path(self.conf).read_text())
        for command in (('db', 'upgrade'), ('db', 'check'), ('db', 'version'), ('purge',)):
            code, out, err = self.run_manage(*command)
            self.assertEqual((1, ''), (code, out))
            self.assertTrue(err.startswith('consoled-manage: database_foreign: '), err)
            self.assertIn('alembic_version, console_auth_tokens', err)
            self.assertEqual(1, err.count('\n'), err)
        with contextlib.closing(sqlite3.connect(path)) as conn:
            tables = {name for (name,) in conn.execute('SELECT name FROM sqlite_master')}
        self.assertEqual({'instances', 'alembic_version', 'console_auth_tokens'}, tables)

    def test_what_the_database_refuses_is_said(self):
        self.run_manage('db', 'upgrade', '--revision', '0001')
        self.change('CREATE TABLE ix_instances_host (x)')  # the name of an index of the next migration
        code, out, err = self.run_manage('db', 'upgrade')
        self.assertEqual((1, ''), (code, out))
        self.assertTrue(err.startswith('consoled-manage: database_error: '), err)
        self.assertIn('ix_instances_host', err)
        self.assertEqual(1, err.count('\n'), err)

    def test_a_file_that_is_no_database(self):
        (path,) = re.findall('sqlite:///(.*)', pathlib.Path(self.conf).read_text())
        pathlib.Path(path).write_text('a text, and no database' * 100)
        for command in (('db', 'check'), ('db', 'upgrade'), ('purge',)):
            code, _, err = self.run_manage(*command)
            self.assertEqual(1, code)
            self.assertIn('consoled-manage: database_error: ', err)
            self.assertIn('file is not a database', err)
            self.assertEqual(1, err.count('\n'), err)

    def test_a_purge_needs_the_schema_of_this_release(self):
        self.run_manage('db', 'upgrade', '--revision', '0001')
        code, _, err = self.run_manage('purge')
        self.assertEqual(1, code)
        self.assertTrue(err.startswith('consoled-manage: database_behind: '), err)

    def test_an_unknown_revision_is_refused(self):
        code, _, err = self.run_manage('db', 'upgrade', '--revision', 'nonsense')
        self.assertEqual(1, code)
        self.assertTrue(err.startswith('consoled-manage: migration_refused: '), err)
