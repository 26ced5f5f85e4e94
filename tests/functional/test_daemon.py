# SPDX-License-Identifier: Apache-2.0
"""The daemon ``consoled`` with threads and with eventlet: signals, reloads, killed workers, health."""

import concurrent.futures
import json
import os
import signal
import threading
import urllib.error
import urllib.request

import testtools

from consoled import exception
from consoled.context import RequestContext
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from consoled.testing import daemons, fixtures, services
from consoled.testing.fixtures import wait_until
from tests.functional import base


class _Daemon:
    concurrency: str

    def setUp(self):
        super().setUp()
        self.context = RequestContext(user_id='u', project_id='p')
        self.monitoring = services.free_port()
        self.manager = self.useFixture(
            daemons.ManagerProcess(
                base.transport_url(self),
                base.database_url(self, 'mariadb'),
                {'manager': {'workers': 2, 'check_port_timeout': 5}, 'monitoring': {'port': self.monitoring}},
                env={'CONSOLED_CONCURRENCY': self.concurrency},
            )
        )
        conf = self.useFixture(
            fixtures.Conf(transport_url=self.manager.options['DEFAULT']['transport_url'])
        ).conf
        self.transport = get_transport(conf)
        self.addCleanup(self.transport.cleanup)
        self.api = ConsoleAuthAPI(self.transport)
        self.instance = base.new_uuid()

    def authorize(self, ttl=None):
        return self.api.authorize(self.context, base.a_grant(self.instance, 10000), ttl)

    def get(self, path):
        try:
            with urllib.request.urlopen(f'http://127.0.0.1:{self.monitoring}{path}') as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def test_starts_quietly_and_answers(self):
        granted = self.authorize()
        self.assertEqual(10000, self.api.validate(self.context, granted.token).port)
        loud = [line for line in self.manager.log().splitlines() if 'WARNING' in line or 'ERROR' in line]
        self.assertEqual([], loud)
        self.assertNotIn('alembic', self.manager.log())
        if self.concurrency == 'threading':
            self.assertNotIn('Warning', self.manager.log())

    def test_health_and_metrics(self):
        self.authorize()
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, 'x' * 43)
        wait_until(lambda: self.get('/readyz')[0] == 200, what='readiness')
        self.assertEqual({'bus': 'ok', 'database': 'ok'}, json.loads(self.get('/readyz')[1]))
        self.assertEqual(200, self.get('/healthz')[0])
        metrics = self.get('/metrics')[1]
        self.assertIn('consoled_rpc_seconds_count{cell="cell1",code="ok",method="authorize"} 1.0', metrics)
        self.assertIn('code="invalid_token",method="validate"} 1.0', metrics)

    def test_stops_quietly(self):
        self.authorize()
        self.assertEqual(0, self.manager.stop())
        loud = [line for line in self.manager.log().splitlines() if 'WARNING' in line or 'ERROR' in line]
        self.assertEqual([], loud)

    def test_sigterm_finishes_what_is_in_flight(self):
        agent = self.useFixture(fixtures.FakeComputeAgent(self.transport, base.COMPUTE_HOST))
        asked, answer = threading.Event(), threading.Event()

        def slowly(question):
            asked.set()
            return answer.wait(30)

        agent.answer = slowly
        proxy = self.useFixture(fixtures.FakeProxy(self.transport, self.api, receive_cuts=False))
        consoles = base.objects.ConsoleConnectionList(objects=[base.a_console(self.instance, 10000)])
        self.api.define_consoles(self.context, self.instance, base.COMPUTE_HOST, consoles)
        wait_until(lambda: self.free() == [10000], what='the definition')
        granted = self.authorize()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            opening = pool.submit(proxy.open, granted.token)
            self.assertTrue(asked.wait(30))
            self.manager.signal(signal.SIGTERM)
            answer.set()
            self.assertEqual(10000, opening.result().console.port)
        self.assertEqual(0, self.manager.wait())

    def free(self):
        try:
            free = self.api.list_free_ports(self.context, self.instance)
        except exception.InstanceNotFound:
            return None
        return [console.port for console in free.objects]

    def test_sighup_reloads_without_a_lost_call(self):
        stop = threading.Event()
        codes = []

        def keep_calling():
            token = self.authorize().token
            while not stop.is_set():
                try:
                    self.api.validate(self.context, token)
                except exception.ConsoledException as exc:
                    codes.append(exc.code)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            callers = [pool.submit(keep_calling) for _ in range(4)]
            try:
                self.check_reload()
            finally:
                stop.set()
            for caller in callers:
                caller.result()
        self.assertEqual([], codes)

    def check_reload(self):
        self.assertRaises(exception.TTLTooLong, self.authorize, 100000)
        self.assertNotIn('DEBUG', self.manager.log())
        self.manager.options['consoleauth'] = {'max_token_ttl': 100000}
        self.manager.options['DEFAULT']['debug'] = True
        self.manager.write_config()
        self.manager.signal(signal.SIGHUP)

        def reloaded():
            try:
                return self.authorize(100000)
            except exception.TTLTooLong:
                return None

        wait_until(reloaded, what='the reload')
        self.api.clean_expired_console_auths_for_host(self.context, 'node-9')
        wait_until(lambda: 'expired tokens of compute host node-9' in self.manager.log(), what='a debug line')

    def test_sigterm_with_an_unreachable_bus_leaves_no_process_behind(self):
        broker = self.useFixture(services.RabbitMQ())
        manager = self.useFixture(
            daemons.ManagerProcess(
                broker.url,
                base.database_url(self, 'mariadb'),
                {'DEFAULT': {'graceful_shutdown_timeout': 3}, 'manager': {'workers': 1}},
                env={'CONSOLED_CONCURRENCY': self.concurrency},
            )
        )
        family = [manager.pid, *manager.child_pids()]
        self.assertEqual(3, len(family))
        broker.kill()
        manager.stop()
        wait_until(lambda: not [pid for pid in family if os.path.exists(f'/proc/{pid}')], what='their end')

    def test_a_killed_worker_comes_back(self):
        before = wait_until(lambda: len(self.manager.worker_pids()) == 2 and self.manager.worker_pids())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: (
                len(self.manager.worker_pids()) == 2 and not set(before) & set(self.manager.worker_pids())
            ),
            what='two new workers',
        )
        granted = wait_until(self.authorized, timeout=120, what='an answer')  # each call takes 10 s at most
        self.assertEqual(10000, self.api.validate(self.context, granted.token).port)

    def authorized(self):
        try:
            return self.authorize()
        except exception.ManagerUnreachable:
            return None  # a worker died while it had this call


class ThreadingDaemonTest(_Daemon, testtools.TestCase):
    concurrency = 'threading'


class EventletDaemonTest(_Daemon, testtools.TestCase):
    concurrency = 'eventlet'


class MisconfiguredTest(testtools.TestCase):
    def test_a_wrong_option_is_reported_in_one_line(self):
        for options, said in (
            ({'database': {'connection': ''}}, 'connection'),
            ({'database': {'connection': 'nonsense'}}, 'is not the URL of a database'),
            ({'database': {'connection': 'sqlite://'}}, 'SQLite needs a file'),
            ({'upgrade_levels': {'consoled': '7.7'}}, '7.7'),
            ({'manager': {'workers': 0}}, 'workers'),
            (
                {
                    'workarounds': {'enable_consoleauth': True},
                    'cache': {'enabled': True, 'backend': 'dogpile.cache.memory'},
                },
                'not a supported backend for memcached',
            ),
        ):
            manager = daemons.ManagerProcess('kombu+memory://', base.database_url(self, 'sqlite'))
            manager.directory = daemons.pathlib.Path(self.useFixture(fixtures.fixtures.TempDir()).path)
            manager.config_file = manager.directory / 'consoled.conf'
            manager.log_file = manager.directory / 'log'
            for group, values in options.items():
                manager.options.setdefault(group, {}).update(values)
            manager.write_config()
            self.assertRaises(RuntimeError, manager.start)
            self.assertIn(said, manager.log())
            self.assertNotIn('Traceback', manager.log())
            self.assertNotEqual(0, manager.stop())
