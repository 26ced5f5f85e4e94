# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver: on libvirt's own test hypervisor, and on a library that does what a test wants."""

import itertools
import threading
import unittest
import uuid
from unittest import mock

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.compute.drivers import libvirt as libvirt_driver
from consoled.compute.drivers import loading
from consoled.testing import driver_contract, fixtures
from consoled.testing.fixtures import wait_until

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
    """Guests that libvirt keeps in memory."""

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
            (each.console_type, each.host, each.port, each.access_url_base, each.options)
            for each in driver.list_consoles(guest.uuid)
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
        found = [each.console_type for each in driver.list_consoles(guest.uuid)]
        self.assertEqual(['novnc', 'spice-html5'], found)
        self.assertRaises(exception.ConsoleTypeUnavailable, driver.get_console, guest.uuid, 'serial')

    def test_what_happened_before_watch_is_not_lost(self):
        driver, told = self._driver(), []
        driver.list_instances()
        driver.watch(told.append)
        wait_until(lambda: told == [None])

    def test_a_suspended_guest_has_its_consoles(self):
        guest, driver = self.start_guest(), self._driver()
        self.domain(guest.uuid).suspend()
        self.assertEqual(4, len(driver.list_consoles(guest.uuid)))
        self.assertEqual(1, len(driver.get_console(guest.uuid, 'novnc')))


class LibvirtError(Exception):
    def __init__(self, code=38):
        super().__init__(f'error {code}')
        self._code = code

    def get_error_code(self):
        return self._code


class FakeDomain:
    def __init__(self, state=(1, 1), xml="<domain id='1'/>", active=True, job=None):
        self._state, self._xml, self._active, self._job = state, xml, active, job

    def state(self):
        return self._state

    def XMLDesc(self):  # noqa: N802 - the library's name
        return self._xml

    def isActive(self):  # noqa: N802 - the library's name
        return self._active

    def jobStats(self):  # noqa: N802 - the library's name
        if isinstance(self._job, Exception):
            raise self._job
        return {} if self._job is None else {'operation': self._job}


class FakeConnection:
    def __init__(self, library):
        self.library = library
        self.alive = True
        self.closed = False
        self.users = 0  # calls under way
        self.registered = {}
        self.close_callback = None

    def __getattr__(self, name):
        raise AssertionError(f'not in the fake: {name}')

    def _answer(self, value):
        assert not self.closed
        self.users += 1
        self.library.most_users = max(self.library.most_users, self.users)
        if self.library.hangs is not None:
            self.library.hangs.wait()
        self.users -= 1
        if self.library.failure is not None:
            raise self.library.failure
        return value

    def registerCloseCallback(self, callback, opaque):  # noqa: N802 - the library's name
        self.close_callback = callback

    def unregisterCloseCallback(self):  # noqa: N802 - the library's name
        self.close_callback = None

    def setKeepAlive(self, interval, count):  # noqa: N802 - the library's name
        self._answer(None)

    def domainEventRegisterAny(self, domain, event, callback, opaque):  # noqa: N802 - the library's name
        self._answer(None)
        self.registered[event] = callback
        return event

    def domainEventDeregisterAny(self, event):  # noqa: N802 - the library's name
        del self.registered[event]
        if not self.alive:
            raise LibvirtError()

    def listAllDomains(self):  # noqa: N802 - the library's name
        return self._answer([])

    def lookupByUUIDString(self, instance):  # noqa: N802 - the library's name
        self._answer(None)
        if instance not in self.library.domains:
            raise LibvirtError(self.library.VIR_ERR_NO_DOMAIN)
        return self.library.domains[instance]

    def getLibVersion(self):  # noqa: N802 - the library's name
        return self._answer(9000000)

    def isAlive(self):  # noqa: N802 - the library's name
        return int(self.alive)

    def close(self):
        self.closed = True


class FakeLibrary:
    """What the driver uses of libvirt's module; connections are in ``opened``."""

    libvirtError = LibvirtError  # noqa: N815 - the library's name
    VIR_ERR_NO_DOMAIN = 42
    VIR_ERR_NO_SUPPORT = 3
    VIR_DOMAIN_PAUSED = 3
    VIR_DOMAIN_SHUTDOWN = 4
    VIR_DOMAIN_PAUSED_MIGRATION = 2
    VIR_DOMAIN_PAUSED_STARTING_UP = 11
    VIR_DOMAIN_PAUSED_POSTCOPY = 12
    VIR_DOMAIN_PAUSED_POSTCOPY_FAILED = 13
    VIR_DOMAIN_JOB_OPERATION = 'operation'
    VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN = 4
    VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT = 5
    VIR_DOMAIN_EVENT_ID_LIFECYCLE = 0
    VIR_DOMAIN_EVENT_ID_DEVICE_ADDED = 19
    VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED = 15

    def __init__(self):
        self.opened = []
        self.most_users = 0
        self.refuses = False  # to connect
        self.failure = None  # of each call
        self.hangs = None
        self.domains = {}
        self._never = threading.Event()

    def registerErrorHandler(self, handler, context):  # noqa: N802 - the library's name
        pass

    def virEventRegisterDefaultImpl(self):  # noqa: N802 - the library's name
        pass

    def virEventRunDefaultImpl(self):  # noqa: N802 - the library's name
        self._never.wait()

    def openReadOnly(self, uri):  # noqa: N802 - the library's name
        if self.refuses:
            raise LibvirtError()
        self.opened.append(FakeConnection(self))
        return self.opened[-1]


class FakeLibraryTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures_library.MonkeyPatch(f'{CONNECTION}._FIRST_PAUSE', 0.01))
        self.useFixture(fixtures_library.FakeLogger())
        conf = self.useFixture(fixtures.Conf(host='node-1', compute__hypervisor_timeout=0.2)).conf
        self.library = FakeLibrary()
        self.driver = libvirt_driver.LibvirtDriver(conf, self.library)
        self.addCleanup(self.driver.close)
        self.guest = str(uuid.uuid4())

    def put(self, **domain):
        self.library.domains[self.guest] = FakeDomain(**domain)

    def assert_unreachable(self, call=None):
        self.assertRaises(exception.HypervisorUnreachable, call or self.driver.list_instances)

    def test_connects_when_it_is_asked(self):
        self.assertEqual([], self.library.opened)
        self.assertEqual([], self.driver.list_instances())
        self.driver.ping()
        self.assertEqual(2, len(self.library.opened))  # one for events, one for calls

    def test_a_libvirtd_that_is_away_is_said_at_once_and_found_again(self):
        self.library.refuses = True
        for _ in range(3):
            self.assert_unreachable()
        self.library.refuses = False
        wait_until(self.reachable)

    def reachable(self):
        try:
            self.driver.ping()
        except exception.HypervisorUnreachable:
            return False
        return True

    def test_a_connection_that_is_lost_is_replaced_and_all_may_have_changed(self):
        told = []
        self.driver.watch(told.append)
        wait_until(lambda: told == [None])
        self.driver.ping()
        first, for_calls = self.library.opened
        first.alive = False
        first.close_callback(first, 1, None)
        wait_until(lambda: told == [None, None])
        self.assertEqual(({}, None), (first.registered, first.close_callback))
        self.assertTrue(self.reachable())
        self.assertEqual(4, len(self.library.opened))
        self.assertEqual([True, True, False, False], [each.closed for each in self.library.opened])

    def test_a_dead_connection_is_found_by_a_call_too(self):
        told = []
        self.driver.watch(told.append)
        wait_until(lambda: told == [None])
        self.driver.ping()
        for connection in self.library.opened:
            connection.alive = False
        self.library.failure = LibvirtError()
        self.assert_unreachable()
        self.library.failure = None
        wait_until(lambda: told == [None, None])

    def test_a_failed_call_alone_is_no_reason_to_connect_anew(self):
        self.driver.list_instances()
        self.library.failure = LibvirtError(1)
        self.assert_unreachable()
        self.assert_unreachable(lambda: self.driver.list_consoles(self.guest))
        self.library.failure = None
        self.driver.list_instances()
        self.assertEqual(2, len(self.library.opened))

    def test_a_connection_that_can_not_be_set_up_is_none(self):
        self.library.failure = LibvirtError(1)
        self.assert_unreachable()
        self.library.failure = None
        wait_until(self.reachable)

    def test_a_fault_while_connecting_does_not_end_it(self):
        with mock.patch.object(FakeConnection, 'setKeepAlive', side_effect=RuntimeError('a fault')):
            self.assert_unreachable()
        wait_until(self.reachable)

    def test_a_hypervisor_without_keep_alive(self):
        with mock.patch.object(FakeConnection, 'setKeepAlive', side_effect=LibvirtError(3)):
            self.driver.ping()

    def test_events_are_of_their_guest(self):
        told = []
        self.driver.watch(told.append)
        wait_until(lambda: told == [None])
        (connection,) = self.library.opened
        self.assertEqual({0, 15, 19}, set(connection.registered))
        domain = type('Domain', (), {'UUIDString': lambda self: 'some-uuid'})()
        connection.registered[0](connection, domain, 5, 1, None)
        connection.registered[19](connection, domain, 'serial1', None)
        self.assertEqual([None, 'some-uuid', 'some-uuid'], told)

    def test_an_unknown_guest(self):
        self.assertRaises(exception.InstanceNotFound, self.driver.list_consoles, self.guest)
        self.assertRaises(exception.InstanceNotFound, self.driver.check_ready, self.guest)
        self.assertFalse(self.driver.check_console(self.guest, '127.0.0.1', 5900, 'novnc'))

    def test_a_guest_between_two_hosts_is_nobodys_yet(self):
        for reason in (2, 11, 12, 13):
            self.put(state=(3, reason))
            self.assertRaises(exception.InstanceNotReady, self.driver.list_consoles, self.guest)
            self.assertRaises(
                exception.InstanceNotReady, self.driver.check_console, self.guest, '127.0.0.1', 5900, 'novnc'
            )
        self.put(state=(3, 1))  # by its user
        self.assertEqual([], self.driver.list_consoles(self.guest))

    def test_who_can_be_given_a_console(self):
        for domain, said in (
            ({'active': False, 'state': (5, 0)}, 'not running'),
            ({'state': (4, 1)}, 'being shut down'),
            ({'job': 4}, 'being migrated'),
            ({'job': 5}, 'being migrated'),
        ):
            self.put(**domain)
            error = self.assertRaises(exception.InstanceNotReady, self.driver.check_ready, self.guest)
            self.assertIn(said, str(error))
            self.assertRaises(exception.InstanceNotReady, self.driver.get_console, self.guest, 'novnc')
        for domain in ({}, {'job': 2}, {'job': LibvirtError(3)}):
            self.put(**domain)
            self.driver.check_ready(self.guest)
        self.put(job=LibvirtError(1))
        self.assert_unreachable(lambda: self.driver.check_ready(self.guest))

    def test_what_can_not_be_understood_concludes_nothing(self):
        self.put(xml='<nonsense')
        self.assert_unreachable(lambda: self.driver.list_consoles(self.guest))

    def test_a_console_that_is_none_does_not_hide_the_others(self):
        self.put(
            xml="<domain id='1'><devices><graphics type='vnc' port='5900' listen='not a name'/>"
            "<graphics type='spice' port='5901' listen='192.0.2.7'/></devices></domain>"
        )
        self.assertEqual([5901], [console.port for console in self.driver.list_consoles(self.guest)])

    def test_an_open_that_hangs_holds_one_thread_only(self):
        self.library.hangs = threading.Event()
        self.addCleanup(self.library.hangs.set)
        for _ in range(3):
            self.assert_unreachable()
        self.assertEqual(1, len(self.library.opened))

    def test_closed(self):
        self.driver.ping()
        self.driver.close()
        self.assert_unreachable()
        wait_until(lambda: all(connection.closed for connection in self.library.opened))
        self.assertEqual({}, self.library.opened[0].registered)

    def test_no_two_threads_make_calls_on_one_connection(self):
        """libvirt's client crashes when several wait at the moment that keep-alive gives up."""
        self.driver.ping()
        self.library.hangs = threading.Event()
        self.addCleanup(self.library.hangs.set)
        threads = [threading.Thread(target=self.reachable) for _ in range(5)]
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(connection.users for connection in self.library.opened) == 5)
        self.library.hangs.set()
        for thread in threads:
            thread.join()
        self.assertEqual(1, self.library.most_users)
        self.assertTrue(self.reachable())
        self.assertEqual(6, len(self.library.opened))  # they are used again
