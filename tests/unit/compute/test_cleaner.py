# SPDX-License-Identifier: Apache-2.0
"""The periodic deletion of expired tokens."""

import random
import time
from unittest import mock

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.compute import cleaner
from consoled.testing import fixtures
from consoled.testing.fixtures import wait_until


class Manager:
    def __init__(self):
        self.asked = []
        self.failure = None

    def clean_expired_console_auths_for_host(self, context, compute_host):
        self.asked.append((time.monotonic(), compute_host))
        if self.failure is not None:
            raise self.failure


class CleanerTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(fixtures_library.FakeLogger())
        self.manager = Manager()

    def cleaner(self, **options):
        conf = self.useFixture(fixtures.Conf(host='node-1', **options)).conf
        made = cleaner.Cleaner(conf, self.manager)
        self.addCleanup(made.stop, 5)
        return made

    def test_again_and_again_whatever_goes_wrong(self):
        self.manager.failure = exception.ManagerUnreachable(reason='x')
        cleaner = self.cleaner(compute__clean_interval=1)
        started = time.monotonic()
        cleaner.start()
        wait_until(lambda: len(self.manager.asked) == 1)
        self.manager.failure = RuntimeError('a fault')
        wait_until(lambda: len(self.manager.asked) == 3)
        (first, host), (second, _), (third, _) = self.manager.asked
        self.assertEqual('node-1', host)
        self.assertLess(first - started, 1.5)
        for earlier, later in ((first, second), (second, third)):
            self.assertGreater(later - earlier, 0.85)
        self.assertIn('could not be deleted', self.logged.output)

    def test_hosts_that_start_together_do_not_meet(self):
        delays = []
        made = self.cleaner()
        with mock.patch.object(made._stopped, 'wait', side_effect=lambda delay: delays.append(delay) or True):
            for _ in range(1000):
                made._run()
        tenths = [0] * 10
        for delay in delays:
            tenths[int(delay // 60)] += 1
        self.assertTrue(all(50 < count < 150 for count in tenths), tenths)

    def test_the_period_is_jittered(self):
        made, waits = self.cleaner(), []
        with mock.patch.object(
            made._stopped, 'wait', side_effect=lambda delay: waits.append(delay) or len(waits) > 100
        ):
            random.seed(1)
            made._run()
        periods = waits[1:]
        self.assertTrue(all(540 <= period <= 660 for period in periods))
        self.assertGreater(max(periods) - min(periods), 60)

    def test_one_that_was_never_started_can_be_stopped(self):
        self.cleaner().stop(0)
