# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver: on libvirt's own test hypervisor, and with a fake module libvirt."""

import itertools
import unittest
import uuid

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.compute.drivers import libvirt as libvirt_driver
from consoled.compute.drivers import loading
from consoled.testing import driver_contract, fixtures
from consoled.testing.fixtures import wait_until
from tests.unit.compute.drivers.fake_libvirt import FakeDomain, FakeLibrary, LibvirtError

try:
    import libvirt
except ImportError:
    libvirt = None

CONNECTION = 'consoled.compute.drivers.libvirt_connection'
URI = 'test:///default'
XML = """
<domain type='test'><name>{uuid}</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory>
<os><type>hvm</type></os><devices>
<serial type='tcp'><source mode='bind' host='127.0.0.1' service='{ports[0]}'/><target port='0'/></serial>
<serial type='tcp'><source mode='bind' host='::' service='{ports[1]}'/><target port='1'/></serial>
<graphics type='vnc' port='{ports[2]}' listen='0.0.0.0'/>
<graphics type='spice' port='{ports[3]}' tlsPort='{ports[4]}' listen='192.0.2.7'/>
</devices></domain>
"""
TYPES = ('novnc', 'spice-html5', 'serial', 'serial')


@unittest.skipIf(libvirt is None, 'the Python module libvirt is not installed')
class TestHypervisorTest(driver_contract.DriverContract, testtools.TestCase):
    """Guests of the hypervisor test:///default, which libvirt keeps in memory."""

    ports = itertools.count(20000)

    def setUp(self):
        super().setUp()
        self.config = self.useFixture(
            fixtures.Conf(
                host=self.compute_host,
                compute__libvirt_uri=URI,
                vnc__server_proxyclient_address='10.0.0.5',
                serial_console__server_proxyclient_address='fd00::5',
                compute__hypervisor_timeout=10,
            )
        )
        self.hypervisor = libvirt.open(URI)
        self.addCleanup(self.hypervisor.close)

    def make_driver(self):
        return loading.load(self.config.conf)

    def start_guest(self):
        instance = str(uuid.uuid4())
        self.last_ports = [next(self.ports) for _ in range(5)]
        domain = self.hypervisor.defineXML(XML.format(uuid=instance, ports=self.last_ports))
        domain.create()
        self.addCleanup(self.remove_guest, instance)
        return driver_contract.StartedGuest(instance, TYPES)

    def domain(self, instance):
        return self.hypervisor.lookupByUUIDString(instance)

    def stop_guest(self, instance_uuid):
        self.domain(instance_uuid).destroy()

    def remove_guest(self, instance_uuid):
        if instance_uuid not in {domain.UUIDString() for domain in self.hypervisor.listAllDomains()}:
            return
        domain = self.domain(instance_uuid)
        if domain.isActive():
            domain.destroy()
        domain.undefine()

    def test_addresses_are_translated_by_the_options_of_each_type(self):
        guest, driver = self.start_guest(), self._driver()
        found = [
            (console.console_type, console.host, console.port, console.access_url_base, console.options)
            for console in driver.list_consoles(guest.uuid)
        ]
        first, second, vnc, spice, tls = self.last_ports
        page = 'http://127.0.0.1:6080/'
        self.assertEqual(
            [
                ('novnc', '10.0.0.5', vnc, f'{page}novnc.html', {}),
                ('spice-html5', '192.0.2.7', spice, f'{page}spice.html', {'tls_port': str(tls)}),
                ('serial', 'fd00::5', first, f'{page}serial.html', {}),
                ('serial', 'fd00::5', second, f'{page}serial.html', {}),
            ],
            found,
        )

    def test_a_type_that_is_not_offered(self):
        guest, driver = self.start_guest(), self._driver()
        self.config.set(serial_console__enabled=False)
        found = [console.console_type for console in driver.list_consoles(guest.uuid)]
        self.assertEqual(['novnc', 'spice-html5'], found)
        self.assertRaises(exception.ConsoleTypeUnavailable, driver.get_console, guest.uuid, 'serial')

    def test_changes_before_watch_are_not_lost(self):
        driver, changes = self._driver(), []
        driver.list_instances()
        driver.watch(changes.append)
        wait_until(lambda: changes == [None])

    def test_a_suspended_guest_has_its_consoles(self):
        guest, driver = self.start_guest(), self._driver()
        self.domain(guest.uuid).suspend()
        self.assertEqual(4, len(driver.list_consoles(guest.uuid)))
        self.assertEqual(1, len(driver.get_console(guest.uuid, 'novnc')))


class UriTest(testtools.TestCase):
    def test_a_password_is_refused_without_a_part_of_it(self):
        """Log lines name the URI."""
        for password in ('canary', 'canary#1', 'canary/1', ':canary', '1/canary'):
            conf = self.useFixture(
                fixtures.Conf(compute__libvirt_uri=f'qemu+tcp://u:{password}@h:16509/system')
            ).conf
            error = self.assertRaises(ValueError, libvirt_driver.LibvirtDriver, conf, FakeLibrary())
            self.assertIn('[compute] libvirt_uri', str(error))
            self.assertNotIn('canary', str(error))

    def test_other_uris(self):
        for uri in (
            'qemu:///system',
            'qemu+ssh://u@h:22/system?keyfile=/a:b@c',
            'qemu+tls://[::1]:16514/system',
        ):
            conf = self.useFixture(fixtures.Conf(compute__libvirt_uri=uri)).conf
            libvirt_driver.LibvirtDriver(conf, FakeLibrary())


class FakeLibvirtTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures_library.MonkeyPatch(f'{CONNECTION}._FIRST_PAUSE', 0.01))
        self.logged = self.useFixture(fixtures_library.FakeLogger())
        conf = self.useFixture(fixtures.Conf(host='node-1', compute__hypervisor_timeout=0.2)).conf
        self.library = FakeLibrary()
        self.driver = libvirt_driver.LibvirtDriver(conf, self.library)
        self.addCleanup(self.driver.close)
        self.guest = str(uuid.uuid4())

    def put(self, **domain):
        self.library.domains[self.guest] = FakeDomain(**domain)

    def assert_unreachable(self, call=None):
        self.assertRaises(exception.HypervisorUnreachable, call or self.driver.list_instances)

    def test_the_first_call_connects(self):
        self.assertEqual([], self.library.opened)
        self.assertEqual([], self.driver.list_instances())
        self.driver.ping()
        self.assertEqual(2, len(self.library.opened))

    def test_errors_of_libvirt_conclude_nothing(self):
        self.driver.list_instances()
        self.library.failure = LibvirtError(1)
        for call in (
            self.driver.list_instances,
            self.driver.ping,
            lambda: self.driver.list_consoles(self.guest),
            lambda: self.driver.check_ready(self.guest),
        ):
            self.assert_unreachable(call)
        self.assertIn('A call to libvirt failed: error 1', self.logged.output)

    def test_without_libvirtd(self):
        self.library.refuses = True
        self.assert_unreachable()
        self.assert_unreachable(self.driver.ping)

    def test_after_a_lost_connection_any_guest_may_have_changed(self):
        changes = []
        self.driver.watch(changes.append)
        wait_until(lambda: changes == [None])
        (connection,) = self.library.opened
        connection.close_callback(connection, 1, None)
        wait_until(lambda: changes == [None, None])

    def test_close_ends_the_notifications(self):
        changes = []
        self.driver.watch(changes.append)
        wait_until(lambda: changes == [None])
        (connection,) = self.library.opened
        callback = connection.registered[0]
        self.driver.close()
        callback(connection, FakeDomain(uuid='some-uuid'), 5, 1, None)
        self.assertEqual([None], changes)
        self.assert_unreachable()

    def test_an_event_names_its_guest(self):
        changes = []
        self.driver.watch(changes.append)
        wait_until(lambda: changes == [None])
        (connection,) = self.library.opened
        self.assertEqual({0, 15, 19}, set(connection.registered))
        domain = FakeDomain(uuid='some-uuid')
        connection.registered[0](connection, domain, 5, 1, None)
        connection.registered[19](connection, domain, 'serial1', None)
        self.assertEqual([None, 'some-uuid', 'some-uuid'], changes)

    def test_an_unknown_guest(self):
        self.assertRaises(exception.InstanceNotFound, self.driver.list_consoles, self.guest)
        self.assertRaises(exception.InstanceNotFound, self.driver.check_ready, self.guest)
        self.assertFalse(self.driver.check_console(self.guest, '127.0.0.1', 5900, 'novnc'))

    def test_a_guest_between_two_hosts_is_not_ready(self):
        for reason in (2, 11, 12, 13):
            self.put(state=(3, reason))
            self.assertRaises(exception.InstanceNotReady, self.driver.list_consoles, self.guest)
            self.assertRaises(
                exception.InstanceNotReady, self.driver.check_console, self.guest, '127.0.0.1', 5900, 'novnc'
            )
        self.put(state=(3, 1))  # paused by its user
        self.assertEqual([], self.driver.list_consoles(self.guest))

    def test_check_ready(self):
        for domain, reason in (
            ({'active': False, 'state': (5, 0)}, 'not running'),
            ({'state': (4, 1)}, 'being shut down'),
            ({'job': 4}, 'being migrated'),
            ({'job': 5}, 'being migrated'),
        ):
            self.put(**domain)
            error = self.assertRaises(exception.InstanceNotReady, self.driver.check_ready, self.guest)
            self.assertIn(reason, str(error))
            self.assertRaises(exception.InstanceNotReady, self.driver.get_console, self.guest, 'novnc')
        for domain in ({}, {'job': 2}, {'job': LibvirtError(3)}):
            self.put(**domain)
            self.driver.check_ready(self.guest)
        self.put(job=LibvirtError(1))
        self.assert_unreachable(lambda: self.driver.check_ready(self.guest))

    def test_malformed_xml_concludes_nothing(self):
        self.put(xml='<nonsense')
        self.assert_unreachable(lambda: self.driver.list_consoles(self.guest))

    def test_a_malformed_console_does_not_hide_the_others(self):
        self.put(
            xml="<domain id='1'><devices><graphics type='vnc' port='5900' listen='not a name'/>"
            "<graphics type='spice' port='5901' listen='192.0.2.7'/></devices></domain>"
        )
        self.assertEqual([5901], [console.port for console in self.driver.list_consoles(self.guest)])
