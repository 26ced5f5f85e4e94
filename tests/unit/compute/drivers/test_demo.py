# SPDX-License-Identifier: Apache-2.0
"""The demo driver, with guests in memory and in a file."""

import dataclasses
import itertools
import json
import os
import pathlib
import uuid

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.compute.drivers import base, demo, loading
from consoled.testing import driver_contract, fixtures

HOST = '192.0.2.20'


class MemoryTest(driver_contract.DriverContract, testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.driver = demo.DemoDriver(self.compute_host, ())
        self.ports = itertools.count(10000)

    def make_driver(self):
        return self.driver

    def start_guest(self):
        types = ('novnc', 'serial', 'serial')
        consoles = [demo.Console(kind, next(self.ports), 'https://consoles.example/') for kind in types]
        guest = demo.Guest(str(uuid.uuid4()), 'guest', HOST, tuple(consoles))
        self.put(guest)
        return driver_contract.StartedGuest(guest.uuid, types)

    def put(self, guest):
        self.guests = {**getattr(self, 'guests', {}), guest.uuid: guest}
        self.driver.put(guest)

    def stop_guest(self, instance_uuid):
        self.put(dataclasses.replace(self.guests[instance_uuid], running=False))

    def remove_guest(self, instance_uuid):
        self.driver.remove(instance_uuid)


class FileTest(MemoryTest):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.useFixture(fixtures_library.TempDir()).join('guests.json'))
        self.guests = {}
        self.write()

    def write(self):
        new = self.path.with_suffix('.new')
        new.write_text(json.dumps([dataclasses.asdict(guest) for guest in self.guests.values()]))
        os.replace(new, self.path)

    def make_driver(self):
        conf = self.useFixture(
            fixtures.Conf(host=self.compute_host, compute__driver='demo', compute__demo_guests=str(self.path))
        ).conf
        return loading.load(conf)

    def put(self, guest):
        self.guests[guest.uuid] = guest
        self.write()

    def remove_guest(self, instance_uuid):
        del self.guests[instance_uuid]
        self.write()

    def test_without_its_file_the_hypervisor_is_unreachable(self):
        driver = self.make_driver()
        self.assertEqual([], driver.list_instances())
        for text in (None, 'nonsense', '{}', '[1]', '[{"uuid": "x"}]'):
            if text is None:
                self.path.unlink()
            else:
                self.path.write_text(text)
            if text != '{}':  # no guests
                self.assertRaises(exception.HypervisorUnreachable, driver.list_instances)
        guest = self.start_guest()
        self.assertEqual([guest.uuid], driver.list_instances())

    def test_any_guest_may_have_changed_when_the_file_is_back(self):
        driver, changes = self.make_driver(), []
        self.addCleanup(driver.close)
        driver.watch(changes.append)
        fixtures.wait_until(lambda: changes == [None])
        self.path.unlink()
        with fixtures_library.FakeLogger() as logged:
            fixtures.wait_until(lambda: str(self.path) in logged.output, what='a poll')
        self.write()
        fixtures.wait_until(lambda: changes == [None, None])


class DemoTest(testtools.TestCase):
    def load(self, **options):
        return loading.load(self.useFixture(fixtures.Conf(host='node-1', **options)).conf)

    def test_the_demo_has_two_guests(self):
        driver = self.load(compute__driver='demo')
        self.assertIsInstance(driver, base.Driver)
        self.assertEqual([demo.DESKTOP.uuid, demo.ROUTER.uuid], driver.list_instances())

    def test_a_guest_without_consoles(self):
        guest = demo.Guest(str(uuid.uuid4()), 'bare', '192.0.2.1', ())
        driver = demo.DemoDriver('node-1', [guest])
        self.assertEqual([guest.uuid], driver.list_instances())
        self.assertEqual([], driver.list_consoles(guest.uuid))
        self.assertRaises(exception.ConsoleTypeUnavailable, driver.get_console, guest.uuid, 'novnc')

    def test_a_guest_that_does_not_run(self):
        guest = dataclasses.replace(demo.DESKTOP, running=False)
        driver = demo.DemoDriver('node-1', [guest])
        self.assertEqual([], driver.list_consoles(guest.uuid))
        error = self.assertRaises(exception.InstanceNotReady, driver.get_console, guest.uuid, 'novnc')
        self.assertIn('not running', str(error))
