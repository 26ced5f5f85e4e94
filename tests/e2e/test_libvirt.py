# SPDX-License-Identifier: Apache-2.0
"""Real guests of a real libvirtd: the driver, the compute agent, and users who connect through the proxy."""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import struct
import time
import uuid
from xml.etree import ElementTree

import fixtures as fixtures_library
import testtools
from testtools.content import text_content

from consoled import exception
from consoled.compute.drivers import libvirt_connection, loading
from consoled.compute.drivers.deadline_driver import DeadlineDriver
from consoled.rpc.client import ComputeConsoleAPI
from consoled.testing import daemons, driver_contract, fixtures, services
from consoled.testing.fixtures import wait_until
from tests.e2e import base as screens
from tests.e2e import libvirt as lv
from tests.functional import base
from tests.functional.raw_user import User, frame, handshake

WITHIN = 1.0  # seconds until tokens and sessions of a stopped guest are gone (invariant 5 in doc/design.md)
SLACK = 2.0  # additional seconds on a busy machine
GREETING = b'RFB 003.008\n'  # RFC 6143, section 7.1.1
# Opens a main channel without capabilities (SPICE protocol, "Link message"). The reply has the same magic.
SPICE_LINK = b'REDQ' + struct.pack('<IIIIBBIII', 2, 2, 18, 0, 1, 0, 0, 0, 18)


class _LibvirtGuests:
    """Guests of a libvirtd that all tests of a class share."""

    qemu_conf = ''

    @classmethod
    def start_libvirtd(cls):
        cls.libvirtd = lv.Libvirtd(cls.qemu_conf)
        cls.libvirtd.setUp()
        cls.addClassCleanup(cls.libvirtd.cleanUp)

    def new_guest(self, *devices, start=True, **how):
        """Create a guest that is deleted after the test, and start it unless told otherwise."""
        domain = self.libvirtd.guest(*devices, **how)
        self.addCleanup(self.remove, domain)
        if start:
            domain.create()
        return domain

    def remove(self, domain):
        """Delete a guest, through the current connection to libvirtd."""
        with contextlib.suppress(lv.libvirt.libvirtError):
            domain = self.libvirtd.connection.lookupByUUIDString(domain.UUIDString())
            with contextlib.suppress(lv.libvirt.libvirtError):
                domain.destroy()
            domain.undefine()


class DriverTest(_LibvirtGuests, driver_contract.DriverContract, testtools.TestCase):
    """The driver contract with the libvirt driver and QEMU, and faults of libvirtd."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.start_libvirtd()

    def make_driver(self):
        options = {'compute__libvirt_uri': self.libvirtd.uri, 'compute__hypervisor_timeout': 10}
        return loading.load(self.useFixture(fixtures.Conf(host=self.compute_host, **options)).conf)

    def start_guest(self):
        ports = [services.free_port() for _ in range(2)]
        domain = self.new_guest(
            lv.vnc(), lv.spice(), *(lv.serial(port, number=number) for number, port in enumerate(ports))
        )
        return driver_contract.StartedGuest(domain.UUIDString(), ('novnc', 'spice-html5', 'serial', 'serial'))

    def domain(self, instance_uuid):
        return self.libvirtd.connection.lookupByUUIDString(instance_uuid)

    def stop_guest(self, instance_uuid):
        self.domain(instance_uuid).destroy()

    def remove_guest(self, instance_uuid):
        self.remove(self.domain(instance_uuid))

    def test_no_guest_appears_stopped_while_libvirtd_restarts(self):
        """While libvirtd rediscovers its guests, the driver reports no wrong state."""
        guest, driver = self.start_guest(), self.make_driver()
        self.addCleanup(driver.close)
        before = [console.obj_to_primitive() for console in self._wait_for_consoles(driver, guest.uuid)]
        self.libvirtd.kill()
        self.assertRaises(exception.HypervisorUnreachable, driver.list_consoles, guest.uuid)
        self.libvirtd.start()
        started, answers = time.monotonic(), 0

        def checked_often_and_for_long():
            nonlocal answers
            with contextlib.suppress(exception.HypervisorUnreachable):
                found = driver.list_consoles(guest.uuid)
                self.assertEqual(before, [console.obj_to_primitive() for console in found])
                self.assertEqual([guest.uuid], driver.list_instances())
                answers += 1
            return answers > 10 and time.monotonic() > started + 2

        wait_until(checked_often_and_for_long, what='answers of the driver')

    def test_a_libvirtd_that_hangs_until_keepalive_gives_up(self):
        """Several threads wait meanwhile, which has crashed libvirt's client library."""
        for name in ('_KEEPALIVE_INTERVAL', '_KEEPALIVE_COUNT'):
            self.useFixture(fixtures_library.MonkeyPatch(f'{libvirt_connection.__name__}.{name}', 1))
        conf = self.useFixture(
            fixtures.Conf(
                host=self.compute_host,
                compute__libvirt_uri=self.libvirtd.uri,
                compute__hypervisor_timeout=0.3,
            )
        ).conf
        driver, reported = DeadlineDriver(loading.load(conf), conf), []
        self.addCleanup(driver.close)
        driver.watch(reported.append)
        for _ in range(3):
            wait_until(lambda: None in reported and self.answers(driver), what='an answer')
            reported.clear()
            self.libvirtd.freeze()
            with contextlib.ExitStack() as frozen:
                frozen.callback(self.libvirtd.thaw)
                ends = time.monotonic() + 4
                with concurrent.futures.ThreadPoolExecutor(6) as pool:
                    while time.monotonic() < ends:
                        self.assertEqual({False}, set(pool.map(self.answers, [driver] * 6)))
        wait_until(lambda: None in reported and self.answers(driver), what='an answer')

    def answers(self, driver):
        try:
            driver.ping()
        except exception.HypervisorUnreachable:
            return False
        return True

    def test_restarts_of_libvirtd_leak_no_descriptors(self):
        driver, reported = self.make_driver(), []
        self.addCleanup(driver.close)
        driver.watch(reported.append)
        wait_until(lambda: reported, what='a connection')
        before = len(os.listdir('/proc/self/fd'))
        self.addOnException(lambda _: self.addDetail('open', text_content(self.descriptors())))
        for _ in range(5):
            start = len(reported)
            self.libvirtd.restart()
            wait_until(lambda start=start: None in reported[start:], timeout=60, what='a connection')
        driver.ping()
        # Five leaked descriptors, one a restart, would be too many. Others in this process come and go.
        wait_until(lambda: len(os.listdir('/proc/self/fd')) < before + 5, what='closed descriptors')

    def descriptors(self):
        found = []
        for path in pathlib.Path('/proc/self/fd').iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(f'{path.name} {path.readlink()}')
        return '\n'.join(found)


class LibvirtTestCase(_LibvirtGuests, base.CellTestCase):
    """A manager in this process, on RabbitMQ and MariaDB; libvirtd, compute agent and proxy as daemons."""

    options = {'manager__check_port_timeout': 10}
    hypervisor_timeout = 8.0  # seconds: guests and libvirtd compete for the CPU
    proxy_options: dict = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.start_libvirtd()
        cls.proxy_daemon = cls.new_proxy()
        cls.proxy_daemon.setUp()
        cls.addClassCleanup(cls.proxy_daemon.cleanUp)
        page = f'http://127.0.0.1:{cls.proxy_daemon.port}/'
        cls.agent = daemons.ComputeProcess(
            cls.bus,
            {
                'DEFAULT': {'host': base.COMPUTE_HOST},
                'compute': {
                    'driver': 'libvirt',
                    'libvirt_uri': cls.libvirtd.uri,
                    'hypervisor_timeout': cls.hypervisor_timeout,
                },
                'vnc': {'base_url': f'{page}novnc.html'},
                'spice': {'base_url': f'{page}spice.html'},
                'serial_console': {'base_url': f'{page}serial.html'},
            },
        )
        cls.agent.setUp()
        cls.addClassCleanup(cls.agent.cleanUp)
        cls.compute = ComputeConsoleAPI(cls.cell.transport)
        cls.proxy_daemon.wait_ready()

    @classmethod
    def new_proxy(cls, **options):
        """Return a proxy with the options of the class and these, by group, not started."""
        pages = {'proxy': {**screens.PAGES, 'close_timeout': 1}}
        return daemons.ProxyProcess(cls.bus, {**pages, **cls.proxy_options, **options})

    def setUp(self):
        # not CellTestCase's, which would delete the rows of the class's agent and proxy
        testtools.TestCase.setUp(self)
        self.context = base.RequestContext(user_id='user-1', project_id='project-1')
        self.addOnException(lambda _: self.addDetail('agent', text_content(self.agent.log()[-6000:])))

    def guest(self, *devices, **how):
        """Start a guest, and wait until the manager knows its consoles."""
        domain = self.new_guest(*devices, **how)
        self.wait_for_definition(domain, len(devices))
        return domain

    def wait_for_definition(self, domain, consoles):
        wait_until(lambda: len(self.ports(domain.UUIDString())) == consoles, what='the definition')

    def get(self, domain, console_type='novnc'):
        return self.compute.get_console(self.context, base.COMPUTE_HOST, domain.UUIDString(), console_type)

    def user(self, granted, proxy=None):
        """Request a console's websocket; return the user and the proxy's response."""
        user = User((proxy or self.proxy_daemon).port)
        self.addCleanup(user.leave)
        user.send(handshake(f'/?token={granted.token}'))
        return user, user.answer()

    def connected(self, granted, proxy=None):
        user, answer = self.user(granted, proxy)
        self.assertEqual(101, answer.status, answer)
        return user

    def connected_again(self, granted):
        """Return a user, once the managers ask a compute host again that was silent."""

        def attempt():
            user, answer = self.user(granted)
            return user if answer.status == 101 else user.leave()

        return wait_until(attempt, what='another question to the compute host')

    def assert_talks(self, domain, user):
        """Assert that a serial port works both ways: reset the guest, and open the menu of its BIOS.

        The guest has ``lv.SERIAL_BOOT_MENU``. The prompt of a boot before the reset may still be on its way
        to the user. A key that answers it is lost, so each prompt is answered until the menu comes.
        """
        domain.reset()
        text, answered = b'', 0
        while lv.MENU not in text:
            text += user.message(1)
            if text.count(lv.MENU_PROMPT) > answered:
                answered += 1
                user.send(frame(lv.ESCAPE))

    def read_until(self, user, text):
        """Read what the guest sends until ``text`` has come."""
        received = b''
        while text not in received:
            received += user.message(1)

    def token_count(self, domain):
        query = 'SELECT COUNT(*) FROM console_auth_token WHERE instance_uuid = :uuid'
        return self.rows(query, uuid=domain.UUIDString())[0][0]

    def instance_is_known(self, domain):
        return bool(self.rows('SELECT 1 FROM instances WHERE uuid = :uuid', uuid=domain.UUIDString()))

    def assert_within(self, what, condition, limit=WITHIN):
        """Wait for a condition, and assert that it took no longer than ``limit`` seconds and some slack."""
        started = time.monotonic()
        wait_until(condition, what=what)
        took = time.monotonic() - started
        self.addDetail(what, text_content(f'{took:.3f} s'))
        self.assertLess(took, limit + SLACK)


class ConsolesTest(LibvirtTestCase):
    def test_each_console_type_on_each_listen_address(self):
        for listen in ('127.0.0.1', '0.0.0.0', '::'):
            domain = self.guest(
                lv.vnc(listen),
                lv.spice(listen),
                lv.serial(services.free_port(), listen),
                firmware=lv.SERIAL_BOOT_MENU,
            )
            granted = {kind: self.get(domain, kind) for kind in ('novnc', 'spice-html5', 'serial')}
            self.assertEqual({'127.0.0.1'}, {each.host for each in granted.values()}, listen)
            self.assertIn('novnc.html?path=', granted['novnc'].access_url)
            self.assertIn('spice.html?token=', granted['spice-html5'].access_url)
            self.assertEqual(GREETING, self.connected(granted['novnc']).message(len(GREETING)), listen)
            spice = self.connected(granted['spice-html5'])
            spice.send(frame(SPICE_LINK))
            self.assertEqual(SPICE_LINK[:4], spice.message(4)[:4], listen)
            self.assert_talks(domain, self.connected(granted['serial']))

    def test_two_serial_ports_two_users_and_a_third_is_refused(self):
        ports = [services.free_port() for _ in range(2)]
        domain = self.guest(*(lv.serial(port, number=number) for number, port in enumerate(ports)))
        grants = [self.get(domain, 'serial')]
        users = [self.connected(grants[0])]
        grants.append(self.get(domain, 'serial'))
        users.append(self.connected(grants[1]))
        self.assertEqual(sorted(ports), sorted(granted.port for granted in grants))
        self.assert_refused('console_ports_exhausted', self.get, domain, 'serial')
        _, answer = self.user(grants[0])
        self.assertEqual(409, answer.status)
        users[0].send(frame(b'a key\r'))
        users[0].leave()
        again = wait_until(
            lambda: base.none_if(exception.ConsolePortsExhausted, self.get, domain, 'serial'),
            what='a free port',
        )
        self.assertEqual(grants[0].port, again.port)
        self.connected(again)

    def test_two_guests_have_different_ports(self):
        first, second = self.guest(lv.vnc(), lv.spice()), self.guest(lv.vnc(), lv.spice())
        ports = {
            self.get(domain, kind).port for domain in (first, second) for kind in ('novnc', 'spice-html5')
        }
        self.assertEqual(4, len(ports))

    def test_consoles_that_are_not_available(self):
        domain = self.guest(lv.vnc())
        self.assert_refused('console_type_unavailable', self.get, domain, 'serial')
        domain.destroy()
        error = self.assert_refused('instance_not_ready', self.get, domain)
        self.assertIn('not running', str(error))
        domain.undefine()
        self.assert_refused('instance_not_found', self.get, domain)


class ChangesTest(LibvirtTestCase):
    """Changes on the host reach the manager's database, and users, within a second."""

    def test_a_guest_that_is_started_is_known_within_a_second(self):
        domain = self.new_guest(lv.vnc())
        self.assert_within('known', lambda: self.ports(domain.UUIDString()))

    def test_invariant_5_a_guest_that_is_destroyed_loses_tokens_and_sessions(self):
        port = services.free_port()
        domain = self.guest(lv.vnc(), lv.serial(port))
        screen = self.connected(self.get(domain))
        screen.message(len(GREETING))
        serial = self.connected(self.get(domain, 'serial'))
        unused = self.get(domain)
        domain.destroy()
        self.assert_within('end of the tokens', lambda: self.token_count(domain) == 0)
        # 4404 means that the console is gone; the end of QEMU's own connection may come first
        self.assertIn(screen.close_code(), (4404, 1000, 1011))
        self.assertIn(serial.close_code(), (4404, 1000, 1011))
        _, answer = self.user(unused)
        self.assertEqual(401, answer.status)
        domain.create()
        self.wait_for_definition(domain, 2)
        self.assertEqual(GREETING, self.connected(self.get(domain)).message(len(GREETING)))

    def test_invariant_11_an_undefined_guest_leaves_nothing_behind(self):
        domain = self.guest(lv.vnc())
        self.get(domain)
        domain.destroy()
        domain.undefine()
        self.assert_within('end of the instance', lambda: not self.instance_is_known(domain))

    def test_a_guest_whose_process_dies(self):
        domain = self.guest(lv.vnc())
        self.get(domain)
        os.kill(self.libvirtd.qemu_pid(domain), signal.SIGKILL)
        self.assert_within('end of the token', lambda: self.token_count(domain) == 0)

    def test_a_transient_guest(self):
        domain = self.libvirtd.connection.createXML(
            lv.GUEST.format(
                name='transient',
                uuid=uuid.uuid4(),
                emulator=self.libvirtd.program['qemu-system-x86_64'],
                devices=lv.vnc(),
                firmware='',
            )
        )
        self.addCleanup(self.remove, domain)
        self.wait_for_definition(domain, 1)
        domain.destroy()
        self.assert_within('end of the instance', lambda: not self.instance_is_known(domain))

    def test_devices_that_are_attached_and_detached(self):
        domain = self.guest(lv.vnc())
        port = services.free_port()
        domain.attachDeviceFlags(lv.usb_serial(port))
        self.assert_within('the device', lambda: port in self.ports(domain.UUIDString()))
        granted = self.get(domain, 'serial')
        user = self.connected(granted)
        domain.detachDeviceFlags(self.device(domain, port))
        self.assert_within('its end', lambda: port not in self.ports(domain.UUIDString()))
        self.assertIn(user.close_code(), (4404, 1000, 1011))
        self.assertEqual(1, len(self.ports(domain.UUIDString())))

    def device(self, domain, port):
        """Return the XML of the guest's serial device on this port."""
        for device in ElementTree.fromstring(domain.XMLDesc()).iter('serial'):
            if device.find('source').get('service') == str(port):
                return ElementTree.tostring(device, encoding='unicode')
        raise LookupError(f'no device at port {port}')

    def test_a_port_that_the_next_guest_reuses(self):
        """A token of the first guest never opens the second guest's console."""
        port = services.free_port()
        for _ in range(5):
            first = self.guest(lv.serial(port))
            stale = [self.get(first, 'serial') for _ in range(2)]
            first.destroy()
            second = self.new_guest(lv.serial(port))
            for granted in stale:
                _, answer = self.user(granted)
                self.assertIn(answer.status, (401, 404))
            self.wait_for_definition(second, 1)
            user = self.connected(self.get(second, 'serial'))
            user.leave()
            second.destroy()
            wait_until(lambda second=second: not self.ports(second.UUIDString()))


class FaultTest(LibvirtTestCase):
    hypervisor_timeout = 1.5

    def test_libvirtd_dies_and_comes_back(self):
        """Sessions continue, and the agent discovers by itself what has changed meanwhile."""
        kept, dead = self.guest(lv.vnc()), self.guest(lv.vnc())
        before = self.ports(kept.UUIDString())
        user = self.connected(self.get(kept))
        user.message(len(GREETING))
        token = self.get(dead)
        self.libvirtd.kill()
        os.kill(self.libvirtd.qemu_pid(dead), signal.SIGKILL)
        started = time.monotonic()
        self.assert_refused('hypervisor_unreachable', self.get, kept)
        self.assertLess(time.monotonic() - started, self.hypervisor_timeout + SLACK)
        _, answer = self.user(token)
        self.assertEqual(503, answer.status)
        wait_until(lambda: self.agent.get('/readyz')[0] == 503, what='the agent not being ready')
        self.libvirtd.start()
        wait_until(lambda: self.token_count(dead) == 0, timeout=60, what='the reconciliation')
        wait_until(lambda: self.agent.get('/readyz')[0] == 200, what='the agent being ready')
        self.assertEqual(before, self.ports(kept.UUIDString()))
        self.connected_again(self.get(kept))
        user.send(frame(GREETING))
        self.assertEqual(b'\x01\x01', user.message(2))  # QEMU offers the security type None

    def test_libvirtd_hangs(self):
        """Calls fail in time, threads do not pile up, and no guest is considered gone."""
        domain = self.guest(lv.vnc())
        user = self.connected(self.get(domain))
        self.libvirtd.freeze()
        self.addCleanup(self.libvirtd.thaw)
        for _ in range(3):
            started = time.monotonic()
            self.assert_refused('hypervisor_unreachable', self.get, domain)
            self.assertLess(time.monotonic() - started, self.hypervisor_timeout + SLACK)
        self.assertEqual(1, len(self.ports(domain.UUIDString())))
        self.assertEqual(GREETING, user.message(len(GREETING)))
        self.libvirtd.thaw()
        wait_until(
            lambda: base.none_if(exception.HypervisorUnreachable, self.get, domain),
            timeout=60,
            what='an answer',
        )

    def test_the_agent_is_killed_and_started_again(self):
        """No stale console is authorized, and nothing is left behind."""
        gone, stopped, kept = (self.guest(lv.vnc()) for _ in range(3))
        tokens = {domain.UUIDString(): self.get(domain) for domain in (gone, stopped, kept)}
        user = self.connected(tokens[kept.UUIDString()])
        self.agent.kill()
        self.addCleanup(self.ensure_agent_runs)
        self.remove(gone)
        stopped.destroy()
        new = self.new_guest(lv.vnc())
        _, answer = self.user(tokens[gone.UUIDString()])
        self.assertEqual(503, answer.status)
        self.agent.start()
        self.assertFalse(self.instance_is_known(gone))
        self.assertEqual([], self.ports(stopped.UUIDString()))
        self.assertEqual(1, len(self.ports(new.UUIDString())))
        for domain in (gone, stopped):
            _, answer = self.user(tokens[domain.UUIDString()])
            self.assertEqual(401, answer.status)
        self.connected_again(tokens[kept.UUIDString()])
        self.assertEqual(GREETING, user.message(len(GREETING)))

    def ensure_agent_runs(self):
        if not self.agent.child_pids():
            self.agent.start()


class MigrationTest(LibvirtTestCase):
    """Live migration of a guest while a user is connected to its console."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.other = lv.Libvirtd()
        cls.other.setUp()
        cls.addClassCleanup(cls.other.cleanUp)
        cls.other_agent = daemons.ComputeProcess(
            cls.bus,
            {
                'DEFAULT': {'host': 'node-2'},
                'compute': {
                    'driver': 'libvirt',
                    'libvirt_uri': cls.other.uri,
                    'hypervisor_timeout': cls.hypervisor_timeout,
                },
            },
        )
        cls.other_agent.setUp()
        cls.addClassCleanup(cls.other_agent.cleanUp)

    def hosts(self, domain):
        query = 'SELECT compute_host FROM instances WHERE uuid = :uuid'
        return [row[0] for row in self.rows(query, uuid=domain.UUIDString())]

    def migrate(self, domain, there, **parameters):
        flags = lv.libvirt.VIR_MIGRATE_LIVE | lv.libvirt.VIR_MIGRATE_PERSIST_DEST
        flags |= lv.libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        return domain.migrate3(
            there.connection, {lv.libvirt.VIR_MIGRATE_PARAM_URI: 'tcp://127.0.0.1', **parameters}, flags
        )

    def test_old_tokens_and_sessions_end_and_new_ones_work(self):
        domain = self.guest(lv.vnc())
        old = self.get(domain)
        user = self.connected(old)
        user.message(len(GREETING))
        moved = self.migrate(domain, self.other)
        self.addCleanup(moved.undefine)
        self.addCleanup(moved.destroy)
        self.assert_within('news of its new host', lambda: self.hosts(domain) == ['node-2'])
        self.assertIn(user.close_code(), (4404, 1000, 1011))
        _, answer = self.user(old)
        self.assertEqual(401, answer.status)
        self.assert_refused('instance_not_found', self.get, domain)
        new = self.compute.get_console(self.context, 'node-2', domain.UUIDString(), 'novnc')
        self.assertNotEqual(old.port, new.port)
        self.assertEqual(GREETING, self.connected(new).message(len(GREETING)))
        time.sleep(1)  # late reports of the old host must not change anything
        self.assertEqual(['node-2'], self.hosts(domain))
        self.assertEqual([new.port], self.ports(domain.UUIDString()))

    def test_a_serial_port_is_free_on_the_new_host(self):
        port, there = services.free_port(), services.free_port()
        domain = self.guest(lv.serial(port), firmware=lv.SERIAL_BOOT_MENU)
        old = self.get(domain, 'serial')
        user = self.connected(old)
        self.assert_talks(domain, user)
        # Both hosts are this machine, where the old port is still in use.
        xml = domain.XMLDesc(lv.libvirt.VIR_DOMAIN_XML_MIGRATABLE).replace(f"'{port}'", f"'{there}'")
        moved = self.migrate(domain, self.other, destination_xml=xml, persistent_xml=xml)
        self.addCleanup(moved.undefine)
        self.addCleanup(moved.destroy)
        self.assert_within('news of its new host', lambda: self.hosts(domain) == ['node-2'])
        self.assertIn(user.close_code(), (4404, 1000, 1011))
        _, answer = self.user(old)
        self.assertEqual(401, answer.status)
        new = self.compute.get_console(self.context, 'node-2', domain.UUIDString(), 'serial')
        self.assertEqual(there, new.port)
        self.assert_talks(moved, self.connected(new))

    def test_an_aborted_migration_changes_nothing(self):
        domain = self.guest(lv.vnc())
        granted = self.get(domain)
        user = self.connected(granted)
        user.message(len(GREETING))
        slowly = {lv.libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: 1}  # MiB/s
        with concurrent.futures.ThreadPoolExecutor() as pool:
            migrating = pool.submit(self.migrate, domain, self.other, **slowly)
            error = wait_until(lambda: self.refusal(domain), what='the migration')
            self.assertEqual('instance_not_ready', error.code)
            self.assertIn('being migrated', str(error))
            domain.abortJob()
            self.assertIsInstance(migrating.exception(30), lv.libvirt.libvirtError)
        user.send(frame(GREETING))
        self.assertEqual(b'\x01\x01', user.message(2))
        self.assertEqual([base.COMPUTE_HOST], self.hosts(domain))
        self.connected(granted)
        self.connected(self.get(domain))

    def refusal(self, domain):
        """Return the error that authorizing a console is refused with, or None."""
        try:
            self.get(domain)
        except exception.ConsoledException as exc:
            return exc
        return None
