# SPDX-License-Identifier: Apache-2.0
"""A hypervisor that hangs: callers get an answer in time, and the number of threads is bounded."""

import threading
import time
import uuid
from unittest import mock

import testtools

from consoled import exception
from consoled.compute.drivers import demo
from consoled.compute.drivers.deadline_driver import DeadlineDriver, HypervisorCalls
from consoled.testing import fixtures

TIMEOUT = 0.2  # seconds
SLACK = 5.0


class HypervisorCallsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.conf = self.useFixture(
            fixtures.Conf(compute__hypervisor_timeout=TIMEOUT, compute__hypervisor_threads=2)
        ).conf
        self.calls = HypervisorCalls(self.conf)
        self.hanging = threading.Event()
        self.addCleanup(self.hanging.set)

    def threads(self):
        return sum(thread.name == 'hypervisor-call' for thread in threading.enumerate())

    def assert_unreachable(self):
        started = time.monotonic()
        self.assertRaises(exception.HypervisorUnreachable, self.calls.run, self.hanging.wait)
        self.assertLess(time.monotonic() - started, TIMEOUT + SLACK)

    def test_results_and_errors_are_those_of_the_call(self):
        self.assertEqual(5, self.calls.run(lambda: 5))
        for error in (ValueError('x'), TimeoutError('its own'), exception.ConsoleGone()):

            def fail(error=error):
                raise error

            self.assertIs(error, self.assertRaises(type(error), self.calls.run, fail))

    def test_a_call_that_hangs_is_abandoned(self):
        self.assert_unreachable()

    def test_the_number_of_hanging_calls_is_bounded(self):
        before = self.threads()
        for _ in range(5):
            self.assert_unreachable()
        self.assertEqual(before + 2, self.threads())
        self.hanging.set()
        fixtures.wait_until(lambda: self.threads() == before, what='the end of the calls')
        self.assertEqual(7, self.calls.run(lambda: 7))

    def test_a_hanging_call_leaves_permits_for_others(self):
        self.assert_unreachable()
        self.assertEqual(7, self.calls.run(lambda: 7))

    def test_a_guest_whose_calls_hang_leaves_permits_for_the_others(self):
        conf = self.useFixture(
            fixtures.Conf(compute__hypervisor_timeout=TIMEOUT, compute__hypervisor_threads=8)
        ).conf
        calls = HypervisorCalls(conf)
        for _ in range(8):
            self.assertRaises(exception.HypervisorUnreachable, calls.run, self.hanging.wait, 'guest-1')
        self.assertEqual(7, calls.run(lambda: 7, 'guest-2'))
        self.assertEqual(8, calls.run(lambda: 8))

    def test_nobody_waits_for_a_guest_whose_calls_have_missed_their_deadline(self):
        self.assertRaises(exception.HypervisorUnreachable, self.calls.run, self.hanging.wait, 'guest-1')
        with mock.patch.object(threading.Condition, 'wait', side_effect=AssertionError):
            self.assertRaises(exception.HypervisorUnreachable, self.calls.run, self.hanging.wait, 'guest-1')

    def test_a_call_that_gets_no_thread_releases_its_permit(self):
        for _ in range(3):
            with mock.patch.object(threading.Thread, 'start', side_effect=RuntimeError):
                self.assertRaises(RuntimeError, self.calls.run, lambda: 7)
        self.assertEqual(7, self.calls.run(lambda: 7))


class HangingDriver(demo.DemoDriver):
    def __init__(self, hanging):
        super().__init__('node-1')
        self._hanging = hanging

    def _current_guests(self):
        self._hanging.wait()
        return super()._current_guests()


class DeadlineDriverTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        conf = self.useFixture(fixtures.Conf(compute__hypervisor_timeout=TIMEOUT)).conf
        self.hanging = threading.Event()
        self.addCleanup(self.hanging.set)
        self.driver = DeadlineDriver(HangingDriver(self.hanging), conf)

    def test_every_method_has_a_deadline(self):
        guest = demo.DESKTOP.uuid
        for call in (
            self.driver.list_instances,
            lambda: self.driver.list_consoles(guest),
            lambda: self.driver.check_ready(guest),
            lambda: self.driver.get_console(guest, 'novnc'),
            lambda: self.driver.check_console(guest, '192.0.2.10', 5900, 'novnc'),
            self.driver.ping,
        ):
            self.assertRaises(exception.HypervisorUnreachable, call)

    def test_results_are_those_of_the_driver(self):
        self.hanging.set()
        self.assertEqual([demo.DESKTOP.uuid, demo.ROUTER.uuid], self.driver.list_instances())
        self.assertEqual(4, len(self.driver.get_console(demo.ROUTER.uuid, 'serial')))
        self.assertTrue(self.driver.check_console(demo.DESKTOP.uuid, '192.0.2.10', 5900, 'novnc'))
        self.assertIsNone(self.driver.check_ready(demo.DESKTOP.uuid))
        self.assertRaises(exception.InstanceNotFound, self.driver.list_consoles, str(uuid.uuid4()))
        changes = []
        self.driver.watch(changes.append)
        self.assertEqual([None], changes)
        self.driver.close()
