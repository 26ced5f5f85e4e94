# SPDX-License-Identifier: Apache-2.0
"""Contract tests for drivers of the compute agent, including drivers of other packages.

Mix ``DriverContract`` into a test case and implement how to create a driver and guests. For example, for the
driver with simulated guests::

    import dataclasses
    import itertools
    import uuid

    import testtools

    from consoled.compute.drivers import demo
    from consoled.testing import driver_contract, fixtures

    PORTS = itertools.count(10000)


    class DemoDriverTest(driver_contract.DriverContract, testtools.TestCase):
        def setUp(self):
            super().setUp()
            self.guests = {}
            conf = self.useFixture(fixtures.Conf(host=self.compute_host)).conf
            self.driver = demo.from_conf(conf)

        def make_driver(self):
            return self.driver

        def start_guest(self):
            console = demo.Console('serial', next(PORTS), 'https://console.example.org/serial.html')
            guest = demo.Guest(str(uuid.uuid4()), 'guest', '192.0.2.20', (console,))
            self.guests[guest.uuid] = guest
            self.driver.put(guest)
            return driver_contract.StartedGuest(guest.uuid, ('serial',))

        def stop_guest(self, instance_uuid):
            self.driver.put(dataclasses.replace(self.guests[instance_uuid], running=False))

        def remove_guest(self, instance_uuid):
            self.driver.remove(instance_uuid)

``consoled.compute.drivers.base`` describes the contract.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import queue
import time
import unittest
import uuid
from typing import Any

from consoled import exception, objects
from consoled.compute.drivers.base import Driver
from consoled.objects import ConsoleType
from consoled.rpc.serializer import Serializer
from consoled.testing.fixtures import wait_until

_THREADS = 8
_ROUNDS = 20
_TIMEOUT = 30.0  # seconds; only a failing test uses them up


@dataclasses.dataclass(frozen=True)
class StartedGuest:
    """A guest that a test has started.

    :param uuid: its instance UUID
    :param console_types: the type of each of its consoles, e.g. ``('novnc', 'serial', 'serial')``
    """

    uuid: str
    console_types: tuple[str, ...]


class DriverContract:
    """Mixin with the contract tests, for test cases that have ``addCleanup``.

    :cvar compute_host: ``[DEFAULT] host`` in the configuration of the driver under test
    :cvar reports_within: seconds within which the driver reports a change; None if it cannot report changes
    :cvar can_change_guests: whether the test case can stop and delete guests
    """

    compute_host = 'node-1'
    reports_within: float | None = 1.0
    can_change_guests = True

    # to be implemented by the test case

    def make_driver(self) -> Driver:
        """Return a new driver, created as its entry point creates it."""
        raise NotImplementedError

    def start_guest(self) -> StartedGuest:
        """Create and start a new guest with at least one console."""
        raise NotImplementedError

    def stop_guest(self, instance_uuid: str) -> None:
        """Stop a guest without deleting it. Not called unless ``can_change_guests``."""
        raise NotImplementedError

    def remove_guest(self, instance_uuid: str) -> None:
        """Delete a guest, running or stopped. Not called unless ``can_change_guests``."""
        raise NotImplementedError

    # the contract

    def _driver(self) -> Driver:
        """Return a new driver that is closed after the test."""
        driver = self.make_driver()
        self.addCleanup(driver.close)  # type: ignore[attr-defined]
        return driver

    @property
    def _case(self) -> Any:
        return self

    def _wait_for_consoles(self, driver: Driver, instance_uuid: str) -> list[objects.ConsoleConnection]:
        """Wait until the driver lists consoles of the guest, and return them."""

        def consoles() -> list[objects.ConsoleConnection]:
            try:
                return driver.list_consoles(instance_uuid)
            except (exception.InstanceNotReady, exception.HypervisorUnreachable):
                return []

        found: list[objects.ConsoleConnection] = wait_until(consoles, timeout=_TIMEOUT, what='consoles')
        return found

    def test_contract_a_guest_is_listed_by_its_canonical_uuid(self) -> None:
        guest, driver = self.start_guest(), self._driver()
        self._wait_for_consoles(driver, guest.uuid)
        listed = driver.list_instances()
        self._case.assertIn(guest.uuid, listed)
        self._case.assertEqual(sorted(set(listed)), sorted(listed))
        for each in listed:
            self._case.assertEqual(str(uuid.UUID(each)), each)

    def test_contract_consoles_are_complete_and_of_this_host(self) -> None:
        guest, driver = self.start_guest(), self._driver()
        consoles = self._wait_for_consoles(driver, guest.uuid)
        self._case.assertEqual(sorted(guest.console_types), sorted(each.console_type for each in consoles))
        addresses = [(each.host, each.port) for each in consoles]
        self._case.assertEqual(sorted(set(addresses)), sorted(addresses))
        for console in consoles:
            self._case.assertIsInstance(console, objects.ConsoleConnection)
            self._case.assertEqual(guest.uuid, console.instance_uuid)
            self._case.assertEqual(self.compute_host, console.compute_host)
            unset = [name for name in console.fields if not console.obj_attr_is_set(name)]
            self._case.assertEqual([], unset)
            wire = Serializer().serialize_entity(None, console)
            back = Serializer().deserialize_entity(None, wire)
            self._case.assertEqual(console.obj_to_primitive(), back.obj_to_primitive())

    def test_contract_no_two_guests_share_a_host_and_port(self) -> None:
        guests, driver = (self.start_guest(), self.start_guest()), self._driver()
        first, second = (self._wait_for_consoles(driver, guest.uuid) for guest in guests)
        self._case.assertEqual(
            set(), {(each.host, each.port) for each in first} & {(each.host, each.port) for each in second}
        )

    def test_contract_get_console_returns_the_consoles_of_a_type(self) -> None:
        guest, driver = self.start_guest(), self._driver()
        self._wait_for_consoles(driver, guest.uuid)
        for console_type in sorted(set(guest.console_types)):
            found = driver.get_console(guest.uuid, console_type)
            self._case.assertEqual(
                [console_type] * guest.console_types.count(console_type),
                [console.console_type for console in found],
            )
        for absent in sorted(set(ConsoleType.ALL) - set(guest.console_types)):
            with self._case.assertRaises(exception.ConsoleTypeUnavailable):
                driver.get_console(guest.uuid, absent)

    def test_contract_check_console_confirms_only_the_guests_own_consoles(self) -> None:
        guest, driver = self.start_guest(), self._driver()
        for console in self._wait_for_consoles(driver, guest.uuid):
            own: dict[str, Any] = {
                'host': console.host,
                'port': console.port,
                'console_type': console.console_type,
            }
            self._case.assertIs(True, driver.check_console(guest.uuid, **own))
            other_port = 1 + console.port % 65535
            if (console.host, other_port) not in {
                (each.host, each.port) for each in driver.list_consoles(guest.uuid)
            }:
                self._case.assertIs(False, driver.check_console(guest.uuid, **{**own, 'port': other_port}))
            self._case.assertIs(
                False, driver.check_console(guest.uuid, **{**own, 'host': 'elsewhere.example'})
            )
            self._case.assertIs(
                False, driver.check_console(guest.uuid, **{**own, 'console_type': ConsoleType.RDP})
            )
            self._case.assertIs(False, driver.check_console(str(uuid.uuid4()), **own))

    def test_contract_an_unknown_guest_is_not_found(self) -> None:
        driver, unknown = self._driver(), str(uuid.uuid4())
        self._case.assertNotIn(unknown, driver.list_instances())
        with self._case.assertRaises(exception.InstanceNotFound):
            driver.list_consoles(unknown)
        with self._case.assertRaises(exception.InstanceNotFound):
            driver.get_console(unknown, ConsoleType.NOVNC)

    def test_contract_a_stopped_guest_is_listed_and_has_no_consoles(self) -> None:
        self._skip_unless_guests_can_change()
        guest, driver = self.start_guest(), self._driver()
        consoles = self._wait_for_consoles(driver, guest.uuid)
        self.stop_guest(guest.uuid)
        wait_until(lambda: driver.list_consoles(guest.uuid) == [], timeout=_TIMEOUT, what='the stop')
        self._case.assertIn(guest.uuid, driver.list_instances())
        for console in consoles:
            self._case.assertIs(
                False,
                driver.check_console(guest.uuid, console.host, console.port, console.console_type),
            )
            with self._case.assertRaises((exception.InstanceNotReady, exception.ConsoleTypeUnavailable)):
                driver.get_console(guest.uuid, console.console_type)

    def test_contract_a_deleted_guest_is_not_found(self) -> None:
        self._skip_unless_guests_can_change()
        guest, driver = self.start_guest(), self._driver()
        self._wait_for_consoles(driver, guest.uuid)
        self.remove_guest(guest.uuid)
        wait_until(lambda: guest.uuid not in driver.list_instances(), timeout=_TIMEOUT, what='the deletion')
        with self._case.assertRaises(exception.InstanceNotFound):
            driver.list_consoles(guest.uuid)

    def test_contract_changes_are_reported(self) -> None:
        self._skip_unless_guests_can_change()
        if self.reports_within is None:
            raise unittest.SkipTest('this driver cannot report changes')
        reported: queue.Queue[str | None] = queue.Queue()
        driver = self._driver()
        driver.watch(reported.put)
        self._case.assertIsNone(reported.get(timeout=_TIMEOUT))  # the driver has connected
        guest = self.start_guest()
        self._assert_reported(reported, guest.uuid)
        self._wait_for_consoles(driver, guest.uuid)
        for change in (self.stop_guest, self.remove_guest):
            _drain(reported)
            change(guest.uuid)
            self._assert_reported(reported, guest.uuid)

    def _assert_reported(self, reported: queue.Queue[str | None], instance_uuid: str) -> None:
        """Assert that the driver reports a change that was just made within ``reports_within``."""
        started = time.monotonic()
        while reported.get(timeout=_TIMEOUT) not in (instance_uuid, None):
            continue
        self._case.assertLess(time.monotonic() - started, self.reports_within)

    def test_contract_methods_can_be_called_from_several_threads(self) -> None:
        guest, driver = self.start_guest(), self._driver()
        expected = [each.obj_to_primitive() for each in self._wait_for_consoles(driver, guest.uuid)]

        def ask() -> None:
            for _ in range(_ROUNDS):
                found = [each.obj_to_primitive() for each in driver.list_consoles(guest.uuid)]
                self._case.assertEqual(expected, found)
                self._case.assertIn(guest.uuid, driver.list_instances())

        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            for asking in [pool.submit(ask) for _ in range(_THREADS)]:
                asking.result(_TIMEOUT)

    def test_contract_a_closed_driver_reports_nothing(self) -> None:
        reported: queue.Queue[str | None] = queue.Queue()
        driver = self._driver()
        driver.watch(reported.put)
        driver.close()
        driver.close()
        if self.can_change_guests:
            _drain(reported)
            self.start_guest()
            time.sleep(self.reports_within or 0)
            self._case.assertTrue(reported.empty())

    def _skip_unless_guests_can_change(self) -> None:
        if not self.can_change_guests:
            raise unittest.SkipTest('this test case cannot change guests of this driver')


def _drain(reported: queue.Queue[str | None]) -> None:
    while not reported.empty():
        reported.get()
