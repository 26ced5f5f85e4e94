# SPDX-License-Identifier: Apache-2.0
"""``consoled-manage db`` on an SQLite file."""

import json
import pathlib
import re

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

    def test_an_unknown_revision_is_refused(self):
        code, _, err = self.run_manage('db', 'upgrade', '--revision', 'nonsense')
        self.assertEqual(1, code)
        self.assertTrue(err.startswith('consoled-manage: migration_refused: '), err)
