# SPDX-License-Identifier: Apache-2.0
"""Processes of the daemon: what they acquire, they release."""

import fixtures as fixtures_library
import testtools

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
