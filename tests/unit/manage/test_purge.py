# SPDX-License-Identifier: Apache-2.0
"""``consoled-manage purge`` on an SQLite file."""

import datetime
import io
import json

from consoled.db import models
from consoled.manage.main import Manage
from tests.unit.cli.base import INSTANCE, Terminal
from tests.unit.manage.base import ManageCase


class PurgeTest(ManageCase):
    def test_an_empty_database(self):
        self.run_manage('db', 'upgrade')
        code, out, err = self.run_manage('purge', '--compute-host', 'c', '-f', 'json')
        self.assertEqual((0, ''), (code, err))
        self.assertEqual({'tokens': 0, 'proxies': 0, 'instances': 0}, json.loads(out))

    def fill(self):
        """Create an instance with a token that has expired."""
        self.run_manage('db', 'upgrade')
        app = Manage()
        self.addCleanup(app.resources.close)
        app.options = app.parser.parse_args(['--config-file', self.conf])
        past = datetime.datetime(2026, 1, 1)
        console = {'instance_uuid': INSTANCE, 'host': 'h', 'port': 1}
        made = {'created_at': past, 'compute_host': 'c'}
        rows = (
            (models.instances, {'uuid': INSTANCE, **made}),
            (
                models.console_connection,
                {'console_type': 'novnc', 'options': '{}', 'updated_at': past, 'created_at': past, **console},
            ),
            (models.console_auth_token, {'token_hash': '0' * 64, 'expires': past, **console, **made}),
        )
        for table, values in rows:
            app.db.single(lambda conn, t=table, v=values: conn.execute(t.insert().values(v)))

    def test_progress_is_shown_on_a_terminal(self):
        for stream, shown in ((io.StringIO(), False), (Terminal(), True)):
            self.fill()
            argv = ['--config-file', self.conf, 'purge', '--compute-host', 'c', '--yes', '-f', 'value']
            self.argv, self.stdout, self.stderr = argv, io.StringIO(), stream
            code, out, err = self.run_app(Manage(stdout=self.stdout, stderr=self.stderr))
            self.assertEqual((0, '1\n0\n1\n'), (code, out))
            self.assertEqual((shown, shown), ('tokens:' in err, 'instances:' in err), err)

    def test_a_compute_host_needs_confirmation(self):
        self.fill()
        for stdin, code, error in (('', 2, 'usage_error'), (Terminal('n\n'), 1, 'cancelled')):
            got, out, err = self.run_manage('purge', '--compute-host', 'c', stdin=stdin)
            self.assertEqual((code, ''), (got, out))
            self.assertIn(f'consoled-manage: {error}: ', err)
            self.assertIn('the instances of compute host c (1 in all)?', err)
        code, out, _ = self.run_manage('purge', '--compute-host', 'c', '-f', 'value', stdin=Terminal('y\n'))
        self.assertEqual((0, '1\n0\n1\n'), (code, out))

    def test_an_invalid_age_is_wrong_usage(self):
        for value in ('-1', 'x', '9' * 12):
            self.assertEqual(2, self.run_manage('purge', f'--older-than={value}')[0])
