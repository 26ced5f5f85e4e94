# SPDX-License-Identifier: Apache-2.0
"""Processes of the daemon: what they acquire, they release."""

import fixtures as fixtures_library
import sqlalchemy as sa
import testtools

from consoled.db import migration
from consoled.db.engine import Database
from consoled.manager import service
from consoled.systemd import Notifier
from consoled.testing import fixtures


class DaemonProcessTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.alarms = []
        self.useFixture(fixtures_library.MonkeyPatch('signal.alarm', self.alarms.append))
        self.useFixture(fixtures_library.MonkeyPatch('setproctitle.setproctitle', lambda title: None))
        path = self.useFixture(fixtures_library.TempDir()).join('cell.db')
        self.conf = self.useFixture(
            fixtures.Conf(
                transport_url='fake:/',
                database__connection=f'sqlite:///{path}',
                graceful_shutdown_timeout=7,
            )
        ).conf

    def test_a_process_that_was_never_started_is_stopped_without_a_time_limit(self):
        for process in (
            service.ManagerWorker(self.conf, Notifier()),
            service.Housekeeper(self.conf, None),
        ):
            process.reset()
            process.stop()
        self.assertEqual([], self.alarms)

    def test_a_process_releases_what_it_has_acquired_within_the_time_limit(self):
        released = []

        class Process(service._DaemonProcess):
            title = 'test'

            def run(self):
                self._resources.callback(released.append, 'run')

        process = Process(self.conf)
        process.start()
        self.assertEqual([], released)
        process.stop()
        process.wait()
        self.assertEqual((['run'], [7]), (released, self.alarms))

    def test_another_programs_database_is_refused_before_anything_starts(self):
        database = Database.from_conf(self.conf)
        self.addCleanup(database.dispose)
        migration.upgrade(database)
        self.assertIsNone(service.prepare(self.conf))
        with database.transactional_engine.begin() as conn:
            conn.execute(sa.text(f'DROP TABLE {migration.VERSION_TABLE}'))
            conn.execute(sa.text('CREATE TABLE console_auth_tokens (id INTEGER)'))
        error = self.assertRaises(ValueError, service.prepare, self.conf)
        self.assertIn('[database] connection is the database of another program', str(error))

    def test_a_database_that_does_not_answer_yet_is_waited_for(self):
        self.conf.set_override('connection', 'mysql+pymysql://u:p@127.0.0.1:1/consoled', 'database')
        self.assertIsNone(service.prepare(self.conf))
