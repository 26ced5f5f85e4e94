# SPDX-License-Identifier: Apache-2.0
"""The database of the tools: from the configuration, or the reason why not, without a password."""

import io
import sys
from unittest import mock

from consoled.cli import errors
from consoled.cli.database_app import DatabaseApp
from tests.unit.cli.base import CliCase


class DatabaseAppTest(CliCase):
    def app(self, text):
        app = DatabaseApp(io.StringIO(), io.StringIO(), io.StringIO())
        self.addCleanup(app.resources.close)
        app.options = app.parser.parse_args(['--config-file', self.config(text)])
        return app

    def assert_refused(self, text, *reasons):
        error = self.assertRaises(errors.Failed, getattr, self.app(text), 'db')
        self.assertEqual((errors.USAGE, 'configuration_error'), (error.exit_code, error.code))
        for reason in ('[database] connection', *reasons):
            self.assertIn(reason, str(error))
        self.assertNotIn('hidden', str(error))

    def test_the_database_is_created_once(self):
        app = self.app(f'[database]\nconnection = sqlite:///{self.config("")}.db\n')
        db = app.db
        self.assertIs(db, app.db)
        db.ping()

    def test_what_cannot_be_used(self):
        self.assert_refused('[DEFAULT]\n', 'is not set')
        for url in ('u hidden', 'bogus://u:hidden@h/x'):
            self.assert_refused(f'[database]\nconnection = {url}\n', 'not the URL of a database')
        for url in ('sqlite://', 'sqlite:///:memory:'):
            self.assert_refused(f'[database]\nconnection = {url}\n', 'SQLite needs a file')

    def test_a_missing_driver(self):
        with mock.patch.dict(sys.modules, {'psycopg': None}):
            self.assert_refused('[database]\nconnection = postgresql+psycopg://u:hidden@h/x\n', 'psycopg')
