# SPDX-License-Identifier: Apache-2.0
"""Console addresses that two instances share."""

import dataclasses

import fixtures as fixtures_library
import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import exception
from consoled.compute.port_conflicts import PortConflicts
from tests.functional import base
from tests.unit.compute.reconciler_base import ADDRESS, FaultyDriver, build_guest


class PortConflictsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(fixtures_library.FakeLogger())
        self.driver = FaultyDriver()
        self.conflicts = PortConflicts(self.driver)
        self.a, self.b, self.c = (base.new_uuid() for _ in range(3))

    def record(self, instance, *ports):
        """Give an instance these ports, and record them."""
        if ports:
            self.driver.put(build_guest(*ports, uuid=instance))
        else:
            self.driver.remove(instance)
        return self.conflicts.record(instance, self.consoles(instance))

    def consoles(self, instance):
        try:
            return self.driver.list_consoles(instance)
        except exception.InstanceNotFound:
            return []

    def is_shared(self, instance, port, host=ADDRESS):
        return self.conflicts.is_shared(instance, host, port)

    def test_an_address_of_two_instances_is_shared(self):
        self.record(self.a, 10000, 10001)
        self.record(self.b, 10001, 10002)
        self.assertFalse(self.is_shared(self.a, 10000))
        self.assertTrue(self.is_shared(self.a, 10001))
        self.assertTrue(self.is_shared(self.b, 10001))
        self.assertFalse(self.is_shared(self.a, 10001, host='192.0.2.99'))
        self.assertIn('have the same console address', self.logged.output)

    def test_exclude_shared(self):
        self.record(self.a, 10000, 10001)
        self.record(self.b, 10001)
        found = self.conflicts.exclude_shared(self.consoles(self.a))
        self.assertEqual([10000], [console.port for console in found])
        self.assertEqual([], self.conflicts.exclude_shared(self.consoles(self.b)))

    def test_record_returns_the_instances_that_are_affected(self):
        self.assertEqual(set(), self.record(self.a, 10000))
        self.assertEqual({self.a}, self.record(self.b, 10000))
        self.assertEqual(set(), self.record(self.b, 10000))
        self.assertEqual(set(), self.record(self.c, 10001))
        self.assertEqual({self.a}, self.record(self.b))
        self.assertFalse(self.is_shared(self.a, 10000))

    def test_instances_that_are_not_retained_are_forgotten(self):
        self.record(self.a, 10000)
        self.record(self.b, 10000)
        self.conflicts.retain([self.a])
        self.assertFalse(self.is_shared(self.a, 10000))
        self.assertTrue(self.is_shared(self.b, 10000))

    def test_only_the_present_state_counts(self):
        """The record only says which instance to inspect: the hypervisor has the answer."""
        self.record(self.a, 10000)
        guest = build_guest(10000, uuid=self.b)
        self.driver.put(guest)
        self.record(self.b, 10000)
        self.driver.put(dataclasses.replace(guest, running=False))
        self.assertFalse(self.is_shared(self.a, 10000))
        self.driver.remove(self.b)
        self.assertFalse(self.is_shared(self.a, 10000))

    def test_an_instance_between_two_hosts_shares_nothing(self):
        self.record(self.a, 10000)
        self.record(self.b, 10000)
        self.driver.faults[self.b] = exception.InstanceNotReady(instance_uuid=self.b, reason='x')
        self.assertFalse(self.is_shared(self.a, 10000))

    def test_without_the_hypervisor_nothing_is_concluded(self):
        self.record(self.a, 10000)
        self.record(self.b, 10000)
        self.driver.faults[self.b] = exception.HypervisorUnreachable()
        self.assertRaises(exception.HypervisorUnreachable, self.is_shared, self.a, 10000)
        self.assertRaises(
            exception.HypervisorUnreachable, self.conflicts.exclude_shared, self.consoles(self.a)
        )

    @given(st.dictionaries(st.sampled_from('abcd'), st.sets(st.integers(1, 5)), max_size=4))
    def test_shared_is_what_two_instances_have(self, ports):
        driver = FaultyDriver()
        conflicts = PortConflicts(driver)
        uuids = {name: base.new_uuid() for name in ports}
        for name, own in ports.items():
            driver.put(build_guest(*own, uuid=uuids[name]))
            conflicts.record(uuids[name], driver.list_consoles(uuids[name]))
        for name, own in ports.items():
            others = set().union(*(found for other, found in ports.items() if other != name))
            for port in own:
                self.assertEqual(port in others, conflicts.is_shared(uuids[name], ADDRESS, port))
