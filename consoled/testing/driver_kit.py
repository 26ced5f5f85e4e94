# SPDX-License-Identifier: Apache-2.0
"""The tests that a driver of the compute agent must pass, for drivers of other packages too.

Mix ``DriverKit`` into a test case and say how to make a driver and guests::

    class MyDriverTest(driver_kit.DriverKit, unittest.TestCase):
        def make_driver(self):
            return my_driver.from_conf(self.useFixture(fixtures.Conf(host=self.compute_host)).conf)

        def start_guest(self):
            ...
            return driver_kit.Guest(uuid, ('novnc', 'serial', 'serial'))

See ``consoled.compute.drivers.base`` for the contract.
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
_PATIENCE = 30.0  # seconds for something to happen at all


@dataclasses.dataclass(frozen=True)
class Guest:
    """A guest that was started: the types of its consoles, one for each console."""

    uuid: str
    console_types: tuple[str, ...]


class DriverKit:
    """The tests; a mixin for test cases.

    :cvar compute_host: what ``[DEFAULT] host`` is in the options of the driver that is made
    :cvar tells_within: seconds in which the driver tells of a change; None: it can't tell
    :cvar changes: whether guests can be stopped and deleted by the test
    """

    compute_host = 'node-1'
    tells_within: float | None = 1.0
    changes = True

    # what a test case says

    def make_driver(self) -> Driver:
        """A driver, as its entry point makes it."""
        raise NotImplementedError

    def start_guest(self) -> Guest:
        """Start a guest that was not there before, with at least one console."""
        raise NotImplementedError

    def stop_guest(self, instance_uuid: str) -> None:
        """Stop a guest; it stays on the host."""
        raise NotImplementedError

    def remove_guest(self, instance_uuid: str) -> None:
        """Delete a guest from the host, stopped or not."""
        raise NotImplementedError

    # tests

    def _driver(self) -> Driver:
        driver = self.make_driver()
        self.addCleanup(driver.close)  # type: ignore[attr-defined]
        return driver

    @property
    def _case(self) -> Any:
        return self

    def _wait_for(self, driver: Driver, instance_uuid: str) -> list[objects.ConsoleConnection]:
        """The guest's consoles, once it has them."""

        def consoles() -> list[objects.ConsoleConnection]:
            try:
                return driver.list_consoles(instance_uuid)
            except (exception.InstanceNotReady, exception.HypervisorUnreachable):
                return []

        found: list[objects.ConsoleConnection] = wait_until(consoles, timeout=_PATIENCE, what='its consoles')
        return found

    def test_contract_a_guest_is_listed_by_its_canonical_uuid(self) -> None:
        guest, driver = self.start_guest(), self._driver()
        self._wait_for(driver, guest.uuid)
        listed = driver.list_instances()
        self._case.assertIn(guest.uuid, listed)
        self._case.assertEqual(sorted(set(listed)), sorted(listed))
        for each in listed:
            self._case.assertEqual(str(uuid.UUID(each)), each)

    def test_contract_consoles_are_whole_objects_of_this_host(self) -> None:
        guest, driver = self.start_guest(), self._driver()
        consoles = self._wait_for(driver, guest.uuid)
        self._case.assertEqual(sorted(guest.console_types), sorted(each.console_type for each in consoles))
        places = [(each.host, each.port) for each in consoles]
        self._case.assertEqual(sorted(set(places)), sorted(places))
        for console in consoles:
            self._case.assertIsInstance(console, objects.ConsoleConnection)
            self._case.assertEqual(guest.uuid, console.instance_uuid)
            self._case.assertEqual(self.compute_host, console.compute_host)
            unset = [name for name in console.fields if not console.obj_attr_is_set(name)]
            self._case.assertEqual([], unset)
            wire = Serializer().serialize_entity(None, console)
            back = Serializer().deserialize_entity(None, wire)
            self._case.assertEqual(console.obj_to_primitive(), back.obj_to_primitive())

    def test_contract_no_two_guests_share_a_place(self) -> None:
        guests, driver = (self.start_guest(), self.start_guest()), self._driver()
        first, second = (self._wait_for(driver, guest.uuid) for guest in guests)
        self._case.assertEqual(
            set(), {(each.host, each.port) for each in first} & {(each.host, each.port) for each in second}
        )

    def test_contract_get_console_has_those_of_the_type(self) -> None:
        guest, driver = self.start_guest(), self._driver()
        self._wait_for(driver, guest.uuid)
        for console_type in sorted(set(guest.console_types)):
            found = driver.get_console(guest.uuid, console_type)
            self._case.assertEqual(
                [console_type] * guest.console_types.count(console_type),
                [console.console_type for console in found],
            )
        for absent in sorted(set(ConsoleType.ALL) - set(guest.console_types)):
            with self._case.assertRaises(exception.ConsoleTypeUnavailable):
                driver.get_console(guest.uuid, absent)

    def test_contract_check_console_knows_the_guests_places(self) -> None:
        guest, driver = self.start_guest(), self._driver()
        for console in self._wait_for(driver, guest.uuid):
            place: dict[str, Any] = {
                'host': console.host,
                'port': console.port,
                'console_type': console.console_type,
            }
            self._case.assertIs(True, driver.check_console(guest.uuid, **place))
            other_port = 1 + console.port % 65535
            if (console.host, other_port) not in {
                (each.host, each.port) for each in driver.list_consoles(guest.uuid)
            }:
                self._case.assertIs(False, driver.check_console(guest.uuid, **{**place, 'port': other_port}))
            self._case.assertIs(
                False, driver.check_console(guest.uuid, **{**place, 'host': 'elsewhere.example'})
            )
            self._case.assertIs(
                False, driver.check_console(guest.uuid, **{**place, 'console_type': ConsoleType.RDP})
            )
            self._case.assertIs(False, driver.check_console(str(uuid.uuid4()), **place))

    def test_contract_a_guest_that_is_not_here(self) -> None:
        driver, nobody = self._driver(), str(uuid.uuid4())
        self._case.assertNotIn(nobody, driver.list_instances())
        with self._case.assertRaises(exception.InstanceNotFound):
            driver.list_consoles(nobody)
        with self._case.assertRaises(exception.InstanceNotFound):
            driver.get_console(nobody, ConsoleType.NOVNC)

    def test_contract_a_stopped_guest_is_here_and_has_no_consoles(self) -> None:
        self._need_changes()
        guest, driver = self.start_guest(), self._driver()
        consoles = self._wait_for(driver, guest.uuid)
        self.stop_guest(guest.uuid)
        wait_until(lambda: driver.list_consoles(guest.uuid) == [], timeout=_PATIENCE, what='its end')
        self._case.assertIn(guest.uuid, driver.list_instances())
        for console in consoles:
            self._case.assertIs(
                False,
                driver.check_console(guest.uuid, console.host, console.port, console.console_type),
            )
            with self._case.assertRaises((exception.InstanceNotReady, exception.ConsoleTypeUnavailable)):
                driver.get_console(guest.uuid, console.console_type)

    def test_contract_a_deleted_guest_is_not_here(self) -> None:
        self._need_changes()
        guest, driver = self.start_guest(), self._driver()
        self._wait_for(driver, guest.uuid)
        self.remove_guest(guest.uuid)
        wait_until(lambda: guest.uuid not in driver.list_instances(), timeout=_PATIENCE, what='its end')
        with self._case.assertRaises(exception.InstanceNotFound):
            driver.list_consoles(guest.uuid)

    def test_contract_changes_are_told(self) -> None:
        self._need_changes()
        if self.tells_within is None:
            raise unittest.SkipTest('this driver can not tell of changes')
        told: queue.Queue[str | None] = queue.Queue()
        driver = self._driver()
        driver.watch(told.put)
        self._case.assertIsNone(told.get(timeout=_PATIENCE))  # the first time that there is a connection
        guest = self.start_guest()
        self._assert_told(told, guest.uuid)
        self._wait_for(driver, guest.uuid)
        for change in (self.stop_guest, self.remove_guest):
            _empty(told)
            change(guest.uuid)
            self._assert_told(told, guest.uuid)

    def _assert_told(self, told: queue.Queue[str | None], instance_uuid: str) -> None:
        """A change was told in time, after the change was made."""
        started = time.monotonic()
        while told.get(timeout=_PATIENCE) not in (instance_uuid, None):
            continue
        self._case.assertLess(time.monotonic() - started, self.tells_within)

    def test_contract_several_threads_may_ask(self) -> None:
        guest, driver = self.start_guest(), self._driver()
        expected = [each.obj_to_primitive() for each in self._wait_for(driver, guest.uuid)]

        def ask() -> None:
            for _ in range(_ROUNDS):
                found = [each.obj_to_primitive() for each in driver.list_consoles(guest.uuid)]
                self._case.assertEqual(expected, found)
                self._case.assertIn(guest.uuid, driver.list_instances())

        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            for asking in [pool.submit(ask) for _ in range(_THREADS)]:
                asking.result(_PATIENCE)

    def test_contract_close_ends_the_telling(self) -> None:
        told: queue.Queue[str | None] = queue.Queue()
        driver = self._driver()
        driver.watch(told.put)
        driver.close()
        driver.close()
        if self.changes:
            _empty(told)
            self.start_guest()
            time.sleep(self.tells_within or 0)
            self._case.assertTrue(told.empty())

    def _need_changes(self) -> None:
        if not self.changes:
            raise unittest.SkipTest('guests of this driver can not be changed here')


def _empty(told: queue.Queue[str | None]) -> None:
    while not told.empty():
        told.get()
