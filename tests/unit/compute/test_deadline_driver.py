# SPDX-License-Identifier: Apache-2.0
"""A hypervisor that hangs: callers get an answer in time, and threads do not pile up."""

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

    def test_results_and_errors_are_the_calls(self):
        self.assertEqual(5, self.calls.run(lambda: 5))
        for error in (ValueError('x'), TimeoutError('its own'), exception.ConsoleGone()):

            def fail(error=error):
                raise error

            self.assertIs(error, self.assertRaises(type(error), self.calls.run, fail))

    def test_a_call_that_hangs_is_let_go_of(self):
        self.assert_unreachable()

    def test_those_that_hang_are_bounded_and_come_back(self):
        before = self.threads()
        for _ in range(5):
            self.assert_unreachable()
        self.assertEqual(before + 2, self.threads())
        self.hanging.set()
        fixtures.wait_until(lambda: self.threads() == before, what='the end of the calls')
        self.assertEqual(7, self.calls.run(lambda: 7))

    def test_a_hanging_call_leaves_places_for_others(self):
        self.assert_unreachable()
        self.assertEqual(7, self.calls.run(lambda: 7))

    def test_without_a_thread_the_place_is_free_again(self):
        for _ in range(3):
            with mock.patch.object(threading.Thread, 'start', side_effect=RuntimeError):
                self.assertRaises(RuntimeError, self.calls.run, lambda: 7)
        self.assertEqual(7, self.calls.run(lambda: 7))


class HangingDriver(demo.DemoDriver):
    def __init__(self, hanging):
        super().__init__('node-1')
        self._hanging = hanging

    def _now(self):
        self._hanging.wait()
        return super()._now()


class BoundedDriverTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        conf = self.useFixture(fixtures.Conf(compute__hypervisor_timeout=TIMEOUT)).conf
        self.hanging = threading.Event()
        self.addCleanup(self.hanging.set)
        self.driver = DeadlineDriver(HangingDriver(self.hanging), conf)

    def test_no_method_waits_for_ever(self):
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

    def test_answers_are_the_drivers(self):
        self.hanging.set()
        self.assertEqual([demo.DESKTOP.uuid, demo.ROUTER.uuid], self.driver.list_instances())
        self.assertEqual(4, len(self.driver.get_console(demo.ROUTER.uuid, 'serial')))
        self.assertTrue(self.driver.check_console(demo.DESKTOP.uuid, '192.0.2.10', 5900, 'novnc'))
        self.assertIsNone(self.driver.check_ready(demo.DESKTOP.uuid))
        self.assertRaises(exception.InstanceNotFound, self.driver.list_consoles, str(uuid.uuid4()))
        told = []
        self.driver.watch(told.append)
        self.assertEqual([None], told)
        self.driver.close()
