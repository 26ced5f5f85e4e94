# SPDX-License-Identifier: Apache-2.0
"""The periodic deletion of expired tokens, without waiting for the periods."""

import random
from unittest import mock

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.compute import cleaner
from consoled.testing import fixtures


class RecordingManager:
    def __init__(self):
        self.hosts = []
        self.failures = []

    def clean_expired_console_auths_for_host(self, context, compute_host):
        self.hosts.append(compute_host)
        if self.failures:
            raise self.failures.pop(0)


class CleanerTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(fixtures_library.FakeLogger())
        self.manager = RecordingManager()

    def cleaner(self, **options):
        conf = self.useFixture(fixtures.Conf(host='node-1', **options)).conf
        made = cleaner.Cleaner(conf, self.manager)
        self.addCleanup(made.stop, 5)
        return made

    def run_for(self, cleaner, rounds):
        """Run the thread's loop in this one; return the seconds that it would have waited."""
        waits = []

        def wait(seconds):
            waits.append(seconds)
            return len(waits) > rounds

        with mock.patch.object(cleaner._stopped, 'wait', wait):
            cleaner._run()
        return waits

    def test_the_cleaner_continues_after_any_failure(self):
        self.manager.failures = [exception.ManagerUnreachable(reason='x'), RuntimeError('a fault')]
        self.run_for(self.cleaner(), 3)
        self.assertEqual(['node-1'] * 3, self.manager.hosts)
        self.assertEqual(2, self.logged.output.count('Could not delete the expired tokens'))
        self.assertEqual(1, self.logged.output.count('Traceback'))

    def test_hosts_that_start_together_do_not_clean_together(self):
        cleaner = self.cleaner()
        tenths = [0] * 10
        for _ in range(1000):
            (delay,) = self.run_for(cleaner, 0)
            tenths[int(delay // 60)] += 1
        self.assertTrue(all(50 < count < 150 for count in tenths), tenths)

    def test_the_period_is_jittered(self):
        random.seed(1)
        periods = self.run_for(self.cleaner(), 100)[1:]
        self.assertTrue(all(540 <= period <= 660 for period in periods))
        self.assertGreater(max(periods) - min(periods), 60)

    def test_stop_ends_the_thread(self):
        cleaner = self.cleaner()
        cleaner.start()
        cleaner.stop(30)
        self.assertFalse(cleaner._thread.is_alive())
        self.assertEqual([], self.manager.hosts)

    def test_a_cleaner_that_was_never_started_can_be_stopped(self):
        self.cleaner().stop(0)
