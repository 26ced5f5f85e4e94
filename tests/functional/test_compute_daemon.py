# SPDX-License-Identifier: Apache-2.0
"""The daemon ``consoled-compute``: start, signals, reload, health, and being killed at any point."""

import concurrent.futures
import json
import os
import pathlib
import signal
import threading
import time

import fixtures as fixtures_library
import testtools
from testtools.content import text_content

from consoled import exception
from consoled.manager import tokens as manager_tokens
from consoled.rpc.client import ComputeConsoleAPI
from consoled.testing import daemons, services
from consoled.testing.fixtures import wait_until
from tests.functional import base, compute_base
from tests.functional.compute_base import a_guest, stopped


class DaemonCase(base.CellTestCase):
    engine = 'sqlite'
    options = {'manager__check_port_timeout': 5}

    def setUp(self):
        super().setUp()
        self.guests = self.useFixture(compute_base.GuestsFile())
        self.compute = ComputeConsoleAPI(self.cell.transport)

    def daemon(self, **compute):
        """Return an agent for the guests in the file, not started."""
        options = {
            'DEFAULT': {'host': base.COMPUTE_HOST},
            'compute': {'demo_guests': self.guests.path, 'hypervisor_timeout': 5, **compute},
        }
        daemon = daemons.ComputeProcess(self.bus, options)
        self.addOnException(lambda _: self.addDetail('agent', text_content(self.end_of_log(daemon))))
        return daemon

    def end_of_log(self, daemon):
        try:
            return daemon.log()[-6000:]
        except OSError as exc:
            return str(exc)

    def start(self, **compute):
        return self.useFixture(self.daemon(**compute))

    def get(self, guest, console_type='serial'):
        return self.compute.get_console(self.context, base.COMPUTE_HOST, guest.uuid, console_type)

    def instances(self):
        return {row[0] for row in self.rows('SELECT uuid FROM instances')}

    def warnings(self, daemon):
        return [line for line in daemon.log().splitlines() if 'WARNING' in line or 'ERROR' in line]


class DaemonTest(DaemonCase):
    def test_once_it_is_ready_the_managers_know_its_guests(self):
        guest = self.guests.put(a_guest(10000, 10001))
        daemon = self.start()
        self.assertEqual([10000, 10001], self.ports(guest.uuid))
        self.assertEqual(10000, self.get(guest).port)
        self.assertEqual([], self.warnings(daemon))
        self.assertNotIn('Warning', daemon.log())
        self.assertEqual(0, daemon.stop())
        self.assertEqual([], self.warnings(daemon))

    def test_changes_are_reported_within_a_second(self):
        daemon = self.start()
        guest = self.guests.put(a_guest(10000))
        wait_until(lambda: self.ports(guest.uuid) == [10000], what='the report')
        proxy = self.proxy()
        proxy.open(self.get(guest).token)
        started = time.monotonic()
        self.guests.put(stopped(guest))
        wait_until(lambda: self.count('console_auth_token') == 0, what='the end of the token')
        self.assertLess(time.monotonic() - started, 3)
        self.assertEqual([('console_gone',)], self.rows('SELECT cut_reason FROM console_session'))
        self.guests.remove(guest)
        wait_until(lambda: self.instances() == set(), what='the end of the guest')
        self.assertEqual([], self.warnings(daemon))

    def test_health_and_metrics(self):
        self.guests.put(a_guest(10000))
        daemon = self.start()
        self.assertEqual((200, {'status': 'ok'}), self.get_json(daemon, '/healthz'))
        self.assertEqual((200, {'bus': 'ok', 'hypervisor': 'ok'}), self.get_json(daemon, '/readyz'))
        self.assertRaises(exception.InstanceNotFound, self.get, a_guest())
        metrics = daemon.get('/metrics')[1]
        for line in (
            'consoled_compute_guests{cell="cell1"} 1.0',
            'consoled_compute_waiting{cell="cell1"} 0.0',
            'consoled_compute_told_total{cell="cell1",code="ok",method="define_host"} ',
            'seconds_count{cell="cell1",code="instance_not_found",method="get_console"} 1.0',
        ):
            self.assertIn(line, metrics)
        self.guests.path.unlink()
        answer = wait_until(lambda: self.not_ready(daemon), what='the loss of the hypervisor')
        self.assertEqual({'bus': 'ok', 'hypervisor': 'HypervisorUnreachable'}, answer)
        self.guests.write()
        wait_until(lambda: self.get_json(daemon, '/readyz')[0] == 200, what='its return')

    def get_json(self, daemon, path):
        status, body = daemon.get(path)
        return status, json.loads(body)

    def not_ready(self, daemon):
        status, answer = self.get_json(daemon, '/readyz')
        return status == 503 and answer

    def test_it_is_ready_without_the_hypervisor(self):
        """It answers calls, and says what is wrong."""
        guest = self.guests.put(a_guest(10000))
        daemon = self.daemon()
        self.guests.path.unlink()
        self.useFixture(daemon)
        self.assertRaises(exception.HypervisorUnreachable, self.get, guest)
        self.guests.write()
        wait_until(lambda: self.ports(guest.uuid) == [10000], what='the comparison')
        self.assertEqual(10000, self.get(guest).port)

    def test_eventlet_is_never_used(self):
        guest = self.guests.put(a_guest(10000))
        daemon = self.daemon()
        daemon._env = {'CONSOLED_CONCURRENCY': 'eventlet'}
        self.useFixture(daemon)
        self.assertEqual(10000, self.get(guest).port)

    def test_sigterm_finishes_the_calls_in_flight(self):
        guest = self.guests.put(a_guest(10000))
        daemon = self.start()
        authorizing, go_on = threading.Event(), threading.Event()
        real = manager_tokens._check

        def slowly(grant):
            authorizing.set()
            go_on.wait(30)
            return real(grant)

        self.useFixture(fixtures_library.MonkeyPatch('consoled.manager.tokens._check', slowly))
        with concurrent.futures.ThreadPoolExecutor() as pool:
            getting = pool.submit(self.get, guest)
            self.assertTrue(authorizing.wait(30))
            daemon.signal(signal.SIGTERM)
            time.sleep(0.3)
            go_on.set()
            self.assertEqual(10000, getting.result(30).port)
        self.assertEqual(0, daemon.wait())
        self.assertEqual([], self.warnings(daemon))

    def test_sighup_reads_options_again_without_a_lost_call(self):
        guest = self.guests.put(a_guest(10000))
        daemon = self.start()
        before = daemon.child_pids()
        done, codes = threading.Event(), []

        def keep_calling():
            while not done.is_set():
                try:
                    self.compute.list_consoles(self.context, base.COMPUTE_HOST, guest.uuid)
                except exception.ConsoledException as exc:
                    codes.append(exc.code)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            callers = [pool.submit(keep_calling) for _ in range(4)]
            self.addCleanup(done.set)
            self.assertNotIn('DEBUG', daemon.log())
            daemon.options['DEFAULT']['debug'] = True
            daemon.write_config()
            daemon.signal(signal.SIGHUP)
            wait_until(lambda: 'Compared with the managers: 1 instances' in daemon.log(), what='a debug line')
            done.set()
            for caller in callers:
                caller.result(30)
        self.assertEqual([], codes)
        self.assertEqual(before, daemon.child_pids())

    def test_a_killed_worker_is_replaced(self):
        guest = self.guests.put(a_guest(10000))
        daemon = self.start()
        (worker,) = daemon.worker_pids()
        self.guests.remove(guest)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: self.instances() == set(), what='the report of the new worker')
        self.assertNotIn(worker, daemon.worker_pids())

    def test_an_agent_that_is_killed_at_any_point(self):
        """No stale console is authorized, nothing is left behind."""
        daemon = self.start()
        proxy, stale = self.proxy(), []
        guests = [self.guests.put(a_guest(10000 + number)) for number in range(3)]
        for round_number in range(3):
            wait_until(lambda: all(self.ports(guest.uuid) for guest in guests), what='the comparison')
            stale += [self.get(guest).token for guest in guests]
            daemon.kill()
            self.guests.remove(guests.pop(0))
            guests.append(self.guests.put(a_guest(10010 + round_number)))
            moved = a_guest(10020 + round_number, uuid=guests[0].uuid)
            guests[0] = self.guests.put(moved)
            self.assertRaises(exception.ComputeUnreachable, proxy.open, stale[-1])
            daemon.start()
            self.assertEqual({guest.uuid for guest in guests}, self.instances())
            self.assertEqual(
                {guest.uuid: [guest.consoles[0].port] for guest in guests},
                {guest.uuid: self.ports(guest.uuid) for guest in guests},
            )
        alive = [token for token in stale if self.target_of(token) is not None]
        targets = {(guest.uuid, guest.consoles[0].port) for guest in guests}
        for token in alive:
            self.assertIn(self.target_of(token), targets)
        self.assertTrue(alive)
        self.assertLess(len(alive), len(stale))

    def target_of(self, token):
        try:
            granted = self.api.validate(self.context, token)
        except exception.InvalidToken:
            return None
        return granted.instance_uuid, granted.port


class OutageTest(testtools.TestCase):
    def test_sigterm_without_the_bus_leaves_no_process(self):
        broker = self.useFixture(services.RabbitMQ())
        daemon = self.useFixture(
            daemons.ComputeProcess(broker.url, {'DEFAULT': {'graceful_shutdown_timeout': 3}})
        )
        family = [daemon.pid, *daemon.child_pids()]
        self.assertEqual(2, len(family))
        broker.kill()
        daemon.stop()
        wait_until(lambda: not [pid for pid in family if os.path.exists(f'/proc/{pid}')], what='their end')

    def test_it_survives_without_managers_and_bus(self):
        """It logs that it cannot report, and reports once they are back."""
        broker = self.useFixture(services.RabbitMQ())
        daemon = self.useFixture(daemons.ComputeProcess(broker.url))
        self.assertIn('Could not report all instances', daemon.log())
        database = base.database_url(self, 'sqlite')
        manager = self.useFixture(daemons.ManagerProcess(broker.url, database))
        wait_until(lambda: self.compared(daemon), what='the comparison')
        broker.kill()
        wait_until(lambda: daemon.get('/readyz')[0] == 503, timeout=60, what='the loss of the bus')
        broker.start()
        wait_until(lambda: daemon.get('/readyz')[0] == 200, timeout=60, what='its return')
        self.assertEqual(0, manager.stop())

    def compared(self, daemon):
        return 'code="ok",method="define_host"} ' in daemon.get('/metrics')[1]


class MisconfiguredTest(testtools.TestCase):
    def test_an_error_is_one_line_without_a_traceback(self):
        for options, message in (
            ({'compute': {'driver': 'telepathy'}}, "'telepathy' is not installed"),
            ({'compute': {'hypervisor_timeout': 0}}, 'hypervisor_timeout'),
            ({'upgrade_levels': {'consoled': '7.7'}}, '7.7'),
            ({'serial_console': {'base_url': 'javascript:alert(1)'}}, 'base_url'),
        ):
            daemon = daemons.ComputeProcess('kombu+memory://', options)
            daemon.directory = pathlib.Path(self.useFixture(fixtures_library.TempDir()).path)
            daemon.config_file, daemon.log_file = daemon.directory / 'conf', daemon.directory / 'log'
            daemon.write_config()
            self.assertRaises(RuntimeError, daemon.start)
            self.assertIn(message, daemon.log())
            self.assertNotIn('Traceback', daemon.log())
            self.assertNotEqual(0, daemon.stop())
