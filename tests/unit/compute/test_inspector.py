# SPDX-License-Identifier: Apache-2.0
"""The state of an instance, and what happens to one that has none now."""

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.compute.inspector import GONE, Inspector
from consoled.compute.port_conflicts import PortConflicts
from consoled.compute.workqueue import WorkQueue
from tests.functional import base
from tests.unit.compute.reconciler_base import FaultyDriver, build_guest

RESYNC_DELAY = 30.0


class InspectorTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(fixtures_library.FakeLogger())
        self.driver = FaultyDriver()
        self.queue = WorkQueue(lambda: 0.0)
        self.inspector = Inspector(self.driver, PortConflicts(self.driver), self.queue, RESYNC_DELAY)
        self.guest = build_guest(10000, 10001)
        self.driver.put(self.guest)

    def inspect(self, guest=None):
        return self.inspector.inspect((guest or self.guest).uuid)

    def delay(self):
        """Seconds until the instance is inspected again; None: it is not."""
        moment, _ = self.queue._delayed.get(self.guest.uuid, (None, None))
        return moment

    def test_consoles(self):
        self.assertEqual([10000, 10001], [console.port for console in self.inspect()])
        self.assertIsNone(self.delay())

    def test_an_instance_that_is_not_here_is_gone(self):
        self.assertIs(GONE, self.inspector.inspect(base.new_uuid()))

    def test_a_shared_address_is_left_out_and_its_other_instance_is_inspected_again(self):
        self.inspect()
        other = build_guest(10001, 10002)
        self.driver.put(other)
        self.assertEqual([10002], [console.port for console in self.inspect(other)])
        self.assertEqual({self.guest.uuid: False}, self.queue.get_instances_nowait())
        self.assertEqual([10000], [console.port for console in self.inspect()])
        self.driver.remove(other.uuid)
        self.assertIs(GONE, self.inspect(other))
        self.assertEqual({self.guest.uuid: False}, self.queue.get_instances_nowait())
        self.assertEqual([10000, 10001], [console.port for console in self.inspect()])

    def test_an_instance_between_two_hosts_is_inspected_later(self):
        self.driver.faults[self.guest.uuid] = exception.InstanceNotReady(
            instance_uuid=self.guest.uuid, reason='x'
        )
        self.assertIsNone(self.inspect())
        self.assertEqual(RESYNC_DELAY, self.delay())

    def test_failures_are_retried_with_backoff(self):
        for error in (exception.HypervisorUnreachable(), RuntimeError('a fault')):
            self.driver.faults = {self.guest.uuid: error}
            for _ in range(10):
                self.assertIsNone(self.inspect())
            self.assertGreater(self.delay(), 7)
            self.driver.faults = {}
            self.assertIsNotNone(self.inspect())
            self.driver.faults = {self.guest.uuid: error}
            self.inspect()
            self.assertLessEqual(self.delay(), 0.5)
        self.assertIn('a fault', self.logged.output)
