# SPDX-License-Identifier: Apache-2.0
"""Real guests of a real libvirtd: the driver, the agent, and users of their consoles through a real proxy."""

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
from tests.functional.proxy_base import User, frame, handshake

WITHIN = 1.0  # seconds from a guest's end to that of its tokens and sessions (DESIGN invariant 5)
SLACK = 2.0  # seconds more on a machine that does other things
GREETING = b'RFB 003.008\n'  # RFC 6143, section 7.1.1
# A main channel without capabilities (SPICE protocol, "Link message"); the answer begins with the same magic.
SPICE_LINK = b'REDQ' + struct.pack('<IIIIBBIII', 2, 2, 18, 0, 1, 0, 0, 0, 18)


class _Guests:
    """Guests of a libvirtd that all tests of a class share."""

    qemu_conf = ''

    @classmethod
    def start_libvirtd(cls):
        cls.libvirtd = lv.Libvirtd(cls.qemu_conf)
        cls.libvirtd.setUp()
        cls.addClassCleanup(cls.libvirtd.cleanUp)

    def new_guest(self, *devices, start=True, **how):
        """A guest that runs, and is gone after the test."""
        domain = self.libvirtd.guest(*devices, **how)
        self.addCleanup(self.remove, domain)
        if start:
            domain.create()
        return domain

    def remove(self, domain):
        """Delete a guest; by the connection that there is now."""
        with contextlib.suppress(lv.libvirt.libvirtError):
            domain = self.libvirtd.connection.lookupByUUIDString(domain.UUIDString())
            with contextlib.suppress(lv.libvirt.libvirtError):
                domain.destroy()
            domain.undefine()


class DriverTest(_Guests, driver_contract.DriverContract, testtools.TestCase):
    """What every driver must keep to, on QEMU."""

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

    def test_a_restart_of_libvirtd_shows_no_guest_as_stopped(self):
        """While libvirtd finds its guests again, nobody may think that they are gone."""
        guest, driver = self.start_guest(), self.make_driver()
        self.addCleanup(driver.close)
        before = [console.obj_to_primitive() for console in self._wait_for_consoles(driver, guest.uuid)]
        self.libvirtd.kill()
        self.assertRaises(exception.HypervisorUnreachable, driver.list_consoles, guest.uuid)
        self.libvirtd.start()
        ends, answers = time.monotonic() + 2, 0
        while time.monotonic() < ends:
            with contextlib.suppress(exception.HypervisorUnreachable):
                found = driver.list_consoles(guest.uuid)
                self.assertEqual(before, [console.obj_to_primitive() for console in found])
                self.assertEqual([guest.uuid], driver.list_instances())
                answers += 1
        self.assertGreater(answers, 10)

    def test_a_libvirtd_that_hangs_for_long(self):
        """Until keep-alive gives up, while several threads wait: libvirt's client has crashed of that."""
        for name in ('_KEEPALIVE_INTERVAL', '_KEEPALIVE_COUNT'):
            self.useFixture(fixtures_library.MonkeyPatch(f'{libvirt_connection.__name__}.{name}', 1))
        conf = self.useFixture(
            fixtures.Conf(
                host=self.compute_host,
                compute__libvirt_uri=self.libvirtd.uri,
                compute__hypervisor_timeout=0.3,
            )
        ).conf
        driver, told = DeadlineDriver(loading.load(conf), conf), []
        self.addCleanup(driver.close)
        driver.watch(told.append)
        for _ in range(3):
            wait_until(lambda: None in told and self.answers(driver), what='an answer')
            told.clear()
            self.libvirtd.freeze()
            with contextlib.ExitStack() as frozen:
                frozen.callback(self.libvirtd.thaw)
                ends = time.monotonic() + 4
                with concurrent.futures.ThreadPoolExecutor(6) as pool:
                    while time.monotonic() < ends:
                        self.assertEqual({False}, set(pool.map(self.answers, [driver] * 6)))
        wait_until(lambda: None in told and self.answers(driver), what='an answer')

    def answers(self, driver):
        try:
            driver.ping()
        except exception.HypervisorUnreachable:
            return False
        return True

    def test_restarts_leave_nothing_open(self):
        driver, told = self.make_driver(), []
        self.addCleanup(driver.close)
        driver.watch(told.append)
        wait_until(lambda: told, what='a connection')
        before = len(os.listdir('/proc/self/fd'))
        self.addOnException(lambda _: self.addDetail('open', text_content(self.descriptors())))
        for _ in range(5):
            said = len(told)
            self.libvirtd.restart()
            wait_until(lambda said=said: None in told[said:], timeout=60, what='a connection')
        driver.ping()
        # one left by each restart would be too many; others of this process come and go
        wait_until(lambda: len(os.listdir('/proc/self/fd')) < before + 5, what='closed descriptors')

    def descriptors(self):
        found = []
        for path in pathlib.Path('/proc/self/fd').iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(f'{path.name} {path.readlink()}')
        return '\n'.join(found)


class AgentCase(_Guests, base.CellTestCase):
    """A manager on RabbitMQ and MariaDB in this process; libvirtd, agent and proxy as on a real host."""

    options = {'manager__check_port_timeout': 10}
    hypervisor_timeout = 8.0  # seconds: guests take the processor that libvirtd needs
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
        """A proxy with the options of the class and these, by group; not started."""
        pages = {'proxy': {**screens.PAGES, 'close_timeout': 1}}
        return daemons.ProxyProcess(cls.bus, {**pages, **cls.proxy_options, **options})

    def setUp(self):
        # not CellTestCase's: agent and proxy live on, and with them their rows
        testtools.TestCase.setUp(self)
        self.context = base.RequestContext(user_id='user-1', project_id='project-1')
        self.addOnException(lambda _: self.addDetail('agent', text_content(self.agent.log()[-6000:])))

    def guest(self, *devices, **how):
        """A guest that the managers know."""
        domain = self.new_guest(*devices, **how)
        self.known(domain, len(devices))
        return domain

    def known(self, domain, consoles):
        wait_until(lambda: len(self.ports(domain.UUIDString())) == consoles, what='the definition')

    def get(self, domain, console_type='novnc'):
        return self.compute.get_console(self.context, base.COMPUTE_HOST, domain.UUIDString(), console_type)

    def user(self, granted, proxy=None):
        """Somebody who opens a console; and the proxy's answer."""
        user = User((proxy or self.proxy_daemon).port)
        self.addCleanup(user.leave)
        user.send(handshake(f'/?token={granted.token}'))
        return user, user.answer()

    def connected(self, granted, proxy=None):
        user, answer = self.user(granted, proxy)
        self.assertEqual(101, answer.status, answer)
        return user

    def assert_talks(self, domain, user):
        """The user of a serial port hears the guest's BIOS and is heard by it (``lv.TALKS``)."""
        domain.reset()
        self.hears(user, lv.ASKS)
        user.send(frame(lv.ESCAPE))
        self.hears(user, lv.ANSWERS)

    def hears(self, user, text):
        heard = b''
        while text not in heard:
            heard += user.message(1)

    def tokens_of(self, domain):
        query = 'SELECT COUNT(*) FROM console_auth_token WHERE instance_uuid = :uuid'
        return self.rows(query, uuid=domain.UUIDString())[0][0]

    def instance_is_known(self, domain):
        return bool(self.rows('SELECT 1 FROM instances WHERE uuid = :uuid', uuid=domain.UUIDString()))

    def timed(self, what, condition, limit=WITHIN):
        started = time.monotonic()
        wait_until(condition, what=what)
        took = time.monotonic() - started
        self.addDetail(what, text_content(f'{took:.3f} s'))
        self.assertLess(took, limit + SLACK)


class ConsolesTest(AgentCase):
    def test_each_console_wherever_the_guest_listens(self):
        for listen in ('127.0.0.1', '0.0.0.0', '::'):
            domain = self.guest(
                lv.vnc(listen),
                lv.spice(listen),
                lv.serial(services.free_port(), listen),
                firmware=lv.TALKS,
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
        again = wait_until(lambda: self.given(domain), what='a free port')
        self.assertEqual(grants[0].port, again.port)
        self.connected(again)

    def given(self, domain):
        try:
            return self.get(domain, 'serial')
        except exception.ConsolePortsExhausted:
            return None

    def test_two_guests_have_their_own(self):
        first, second = self.guest(lv.vnc(), lv.spice()), self.guest(lv.vnc(), lv.spice())
        places = [
            (self.get(domain, kind).port) for domain in (first, second) for kind in ('novnc', 'spice-html5')
        ]
        self.assertEqual(4, len(set(places)))

    def test_what_can_not_be_had(self):
        domain = self.guest(lv.vnc())
        self.assert_refused('console_type_unavailable', self.get, domain, 'serial')
        domain.destroy()
        error = self.assert_refused('instance_not_ready', self.get, domain)
        self.assertIn('not running', str(error))
        domain.undefine()
        self.assert_refused('instance_not_found', self.get, domain)


class TruthTest(AgentCase):
    def test_a_guest_that_is_started_is_known_within_a_second(self):
        domain = self.new_guest(lv.vnc())
        self.timed('known', lambda: self.ports(domain.UUIDString()))

    def test_invariant_5_a_guest_that_is_destroyed_loses_tokens_and_sessions(self):
        port = services.free_port()
        domain = self.guest(lv.vnc(), lv.serial(port))
        screen = self.connected(self.get(domain))
        screen.message(len(GREETING))
        serial = self.connected(self.get(domain, 'serial'))
        unused = self.get(domain)
        domain.destroy()
        self.timed('end of the tokens', lambda: self.tokens_of(domain) == 0)
        # 4404: console gone; QEMU's own end may be first
        self.assertIn(screen.close_code(), (4404, 1000, 1011))
        self.assertIn(serial.close_code(), (4404, 1000, 1011))
        _, answer = self.user(unused)
        self.assertEqual(401, answer.status)
        domain.create()
        self.known(domain, 2)
        self.assertEqual(GREETING, self.connected(self.get(domain)).message(len(GREETING)))

    def test_invariant_11_a_guest_that_is_undefined_leaves_nothing(self):
        domain = self.guest(lv.vnc())
        self.get(domain)
        domain.destroy()
        domain.undefine()
        self.timed('end of the instance', lambda: not self.instance_is_known(domain))

    def test_a_guest_whose_process_dies(self):
        domain = self.guest(lv.vnc())
        self.get(domain)
        os.kill(self.libvirtd.qemu_pid(domain), signal.SIGKILL)
        self.timed('end of the token', lambda: self.tokens_of(domain) == 0)

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
        self.known(domain, 1)
        domain.destroy()
        self.timed('end of the instance', lambda: not self.instance_is_known(domain))

    def test_devices_that_come_and_go(self):
        domain = self.guest(lv.vnc())
        port = services.free_port()
        domain.attachDeviceFlags(lv.usb_serial(port))
        self.timed('the device', lambda: port in self.ports(domain.UUIDString()))
        granted = self.get(domain, 'serial')
        user = self.connected(granted)
        domain.detachDeviceFlags(self.device(domain, port))
        self.timed('its end', lambda: port not in self.ports(domain.UUIDString()))
        self.assertIn(user.close_code(), (4404, 1000, 1011))
        self.assertEqual(1, len(self.ports(domain.UUIDString())))

    def device(self, domain, port):
        """The XML that the guest has of a serial port."""
        for device in ElementTree.fromstring(domain.XMLDesc()).iter('serial'):
            if device.find('source').get('service') == str(port):
                return ElementTree.tostring(device, encoding='unicode')
        raise LookupError(f'no device at port {port}')

    def test_the_port_of_a_guest_that_is_used_by_the_next_one(self):
        """The first guest's token never reaches the second."""
        port = services.free_port()
        for _ in range(5):
            first = self.guest(lv.serial(port))
            stale = [self.get(first, 'serial') for _ in range(2)]
            first.destroy()
            second = self.new_guest(lv.serial(port))
            for granted in stale:
                _, answer = self.user(granted)
                self.assertIn(answer.status, (401, 404))
            self.known(second, 1)
            user = self.connected(self.get(second, 'serial'))
            user.leave()
            second.destroy()
            wait_until(lambda second=second: not self.ports(second.UUIDString()))


class FaultTest(AgentCase):
    hypervisor_timeout = 1.5

    def test_libvirtd_dies_and_comes_back(self):
        """Sessions go on, and what happened meanwhile is found out without anybody's help."""
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
        wait_until(lambda: self.agent.get('/readyz')[0] == 503, what='its loss')
        self.libvirtd.start()
        wait_until(lambda: self.tokens_of(dead) == 0, timeout=60, what='the sync')
        wait_until(lambda: self.agent.get('/readyz')[0] == 200, what='its return')
        self.assertEqual(before, self.ports(kept.UUIDString()))
        self.connected(self.get(kept))
        user.send(frame(GREETING))
        self.assertEqual(b'\x01\x01', user.message(2))  # QEMU offers the security type None

    def test_libvirtd_hangs(self):
        """Calls are answered in time, threads do not pile up, and nothing is concluded from silence."""
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
        wait_until(lambda: self.given(domain), timeout=60, what='an answer')

    def given(self, domain):
        try:
            return self.get(domain)
        except exception.HypervisorUnreachable:
            return None

    def test_the_agent_killed_and_started_again(self):
        """No stale console is authorized, nothing is left behind."""
        gone, stopped, kept = (self.guest(lv.vnc()) for _ in range(3))
        tokens = {domain.UUIDString(): self.get(domain) for domain in (gone, stopped, kept)}
        user = self.connected(tokens[kept.UUIDString()])
        self.agent.kill()
        self.addCleanup(self.started)
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
        self.connected(tokens[kept.UUIDString()])
        self.assertEqual(GREETING, user.message(len(GREETING)))

    def started(self):
        if not self.agent.child_pids():
            self.agent.start()


class MigrationTest(AgentCase):
    """A guest moves to another host, live, while somebody looks at its screen."""

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

    def test_the_old_token_opens_nothing_the_old_session_is_cut_a_new_one_works(self):
        domain = self.guest(lv.vnc())
        old = self.get(domain)
        user = self.connected(old)
        user.message(len(GREETING))
        moved = self.migrate(domain, self.other)
        self.addCleanup(moved.undefine)
        self.addCleanup(moved.destroy)
        self.timed('news of its new host', lambda: self.hosts(domain) == ['node-2'])
        self.assertIn(user.close_code(), (4404, 1000, 1011))
        _, answer = self.user(old)
        self.assertEqual(401, answer.status)
        self.assert_refused('instance_not_found', self.get, domain)
        new = self.compute.get_console(self.context, 'node-2', domain.UUIDString(), 'novnc')
        self.assertNotEqual(old.port, new.port)
        self.assertEqual(GREETING, self.connected(new).message(len(GREETING)))
        time.sleep(1)  # what its old host says late changes nothing
        self.assertEqual(['node-2'], self.hosts(domain))
        self.assertEqual([new.port], self.ports(domain.UUIDString()))

    def test_a_serial_port_is_free_at_its_new_place(self):
        port, there = services.free_port(), services.free_port()
        domain = self.guest(lv.serial(port), firmware=lv.TALKS)
        old = self.get(domain, 'serial')
        user = self.connected(old)
        self.assert_talks(domain, user)
        # both hosts are this one, where the port is taken
        xml = domain.XMLDesc(lv.libvirt.VIR_DOMAIN_XML_MIGRATABLE).replace(f"'{port}'", f"'{there}'")
        moved = self.migrate(domain, self.other, destination_xml=xml, persistent_xml=xml)
        self.addCleanup(moved.undefine)
        self.addCleanup(moved.destroy)
        self.timed('news of its new host', lambda: self.hosts(domain) == ['node-2'])
        self.assertIn(user.close_code(), (4404, 1000, 1011))
        _, answer = self.user(old)
        self.assertEqual(401, answer.status)
        new = self.compute.get_console(self.context, 'node-2', domain.UUIDString(), 'serial')
        self.assertEqual(there, new.port)
        self.assert_talks(moved, self.connected(new))

    def test_a_migration_that_is_given_up_changes_nothing(self):
        domain = self.guest(lv.vnc())
        granted = self.get(domain)
        user = self.connected(granted)
        user.message(len(GREETING))
        slowly = {lv.libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: 1}  # MiB/s
        with concurrent.futures.ThreadPoolExecutor() as pool:
            migrating = pool.submit(self.migrate, domain, self.other, **slowly)
            error = wait_until(lambda: self.refused(domain), what='the migration')
            self.assertEqual('instance_not_ready', error.code)
            self.assertIn('being migrated', str(error))
            domain.abortJob()
            self.assertIsInstance(migrating.exception(30), lv.libvirt.libvirtError)
        user.send(frame(GREETING))
        self.assertEqual(b'\x01\x01', user.message(2))
        self.assertEqual([base.COMPUTE_HOST], self.hosts(domain))
        self.connected(granted)
        self.connected(self.get(domain))

    def refused(self, domain):
        try:
            self.get(domain)
        except exception.ConsoledException as exc:
            return exc
        return None
