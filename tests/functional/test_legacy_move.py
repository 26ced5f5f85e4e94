# SPDX-License-Identifier: Apache-2.0
"""The rolling move with real daemons and memcached: old and new work side by side, and no token is lost."""

import concurrent.futures
import re
import time
import urllib.request

import kombu
from amqp import exceptions as amqp_exc

from consoled import token as tokens
from consoled.testing import fixtures, services
from consoled.testing.fixtures import wait_until
from tests.functional import base, legacy_base, old_callers
from tests.functional.moving import PORTS, MoveCase, Neighbourhood, OldService

ROUNDS = 4  # of each user in each phase
MOVING = 12  # the same for the move itself


class _Rolling:
    def test_hosts_and_proxies_move_in_either_order(self):
        service = self.useFixture(OldService(self.bus, [self.memcached.url]))
        self.start_manager(workarounds={'enable_consoleauth': True, 'consoleauth_write_through': True})
        one, other = Neighbourhood(1), Neighbourhood(2)
        for where in (one, other):
            self.useFixture(fixtures.FakeComputeAgent(self.transport, where.compute_host))
        for user in self.make_users([one, other]):
            self.issue_before(service, user)
        self.start_users()
        self.progress(MOVING)  # the old service answers beside the manager
        self.assertLess(20, sum(service.answered.values()))

        service.end()
        self.reload(consoleauth_write_through=False)
        self.progress(MOVING)
        self.move_host(one)
        other.proxy = 'new'
        self.progress(MOVING)
        one.proxy = 'new'
        self.move_host(other)
        self.progress(MOVING)
        self.assertLess(4 * 3 * MOVING, self.assert_none_lost())

    def issue_before(self, service, user):
        """Issue tokens before the move, with the old service alone."""
        for port in PORTS * 3:
            token = base.new_uuid()
            service.store.authorize_console(token, 'novnc', user.host, port, None, user.instance)
            user.known[token] = port

    def move_host(self, where):
        for user in self.users:
            if user.where is where:
                user.define()
        where.compute = 'new'


class ThreadingMoveTest(_Rolling, MoveCase):
    concurrency = 'threading'


class EventletMoveTest(_Rolling, MoveCase):
    concurrency = 'eventlet'


class _Switch:
    def test_the_flag_on_and_off_under_load(self):
        store = self.useFixture(legacy_base.OldConsoleAuth([self.memcached.url]))
        unknown = [base.new_uuid() for _ in range(2)]
        for token in unknown:
            store.authorize_console(token, 'novnc', base.ADDRESS, 5900, None, self.instance)
        self.start_manager(enabled=False)
        where = Neighbourhood(1)
        where.compute = where.proxy = 'new'
        self.make_users([where], each=3)
        self.start_users()
        self.progress(ROUNDS)
        self.assertIsNone(self.is_valid(unknown[0]))
        before = self.stats('curr_connections')

        self.reload(enable_consoleauth=True)
        wait_until(lambda: self.is_valid(unknown[0]), what='the flag on')
        issued = self.old.authorize(self.instance, 5900)
        self.assertEqual(5900, self.old.check_token(issued)['port'])
        self.progress(ROUNDS)
        self.reload(enable_consoleauth=False)
        wait_until(lambda: not self.consumers(), what='the flag off')
        wait_until(lambda: self.stats('curr_connections') == before, what='the end of connections')
        self.progress(ROUNDS)
        self.assertIsNone(self.is_valid(unknown[1]))
        for copied in (unknown[0], issued):
            self.assertTrue(self.is_valid(copied))
        self.reload(enable_consoleauth=True)
        wait_until(lambda: self.is_valid(unknown[1]), what='the flag on')
        self.progress(ROUNDS)
        self.assert_none_lost()

    def consumers(self):
        """Return the number of those who answer old calls; None if there is no queue for them."""
        url = self.bus.replace('rabbit://', 'amqp://')
        with kombu.Connection(url) as connection, connection.channel() as channel:
            try:
                return channel.queue_declare('consoleauth', passive=True).consumer_count
            except amqp_exc.NotFound:
                return None


class ThreadingSwitchTest(_Switch, MoveCase):
    concurrency = 'threading'

    def test_while_the_flag_is_off_nothing_is_loaded_or_called(self):
        """No module is imported, no queue is declared, memcached is not asked."""
        before = self.stats('total_connections')['total_connections']
        self.start_manager(enabled=False, env={'PYTHONVERBOSE': '1'})
        self.assertIsNone(self.is_valid(tokens.mint()))
        self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        self.assertIn('consoled.manager.tokens', self.loaded())
        names = ('consoled.legacy', 'oslo_cache', 'dogpile', 'memcache', 'pymemcache')
        self.assertEqual([], [name for name in self.loaded() if name.startswith(names)])
        self.assertIsNone(self.consumers())
        self.assertEqual(before + 1, self.stats('total_connections')['total_connections'])

        self.reload(enable_consoleauth=True)
        wait_until(self.consumers, what='the flag on')
        self.assertIn('consoled.legacy.memcached', self.loaded())

    def test_callers_on_a_bus_of_their_own(self):
        bus = base.transport_url(self)
        with kombu.Connection(bus.replace('rabbit://', 'amqp://')) as connection:
            exchange = kombu.Exchange('nova', 'topic', durable=True)
            queue = kombu.Queue('consoleauth', exchange, 'consoleauth', durable=True)
            queue.bind(connection.channel()).declare()
        self.start_manager(workarounds={'enable_consoleauth': True, 'consoleauth_transport_url': bus})
        wait_until(lambda: 'Cannot listen on the message bus' in self.manager.log(), what='the error')
        token = self.api.authorize(self.context, base.a_grant(self.instance, 5900, 'novnc')).token
        self.assertTrue(self.is_valid(token))  # the cell's own calls are still answered

        self.manager.kill()
        bus += '?amqp_durable_queues=true'
        self.manager.options['workarounds']['consoleauth_transport_url'] = bus
        self.manager.write_config()
        self.manager.start()
        old = self.useFixture(old_callers.OldCallers(bus))
        self.assertEqual(5900, old.check_token(token)['port'])
        self.assertTrue(self.is_valid(old.authorize(self.instance, 5900)))
        self.assertIsNone(self.consumers())

    def loaded(self):
        """Return the modules that its processes have imported."""
        return set(re.findall(r"^import '([\w.]+)' #", self.manager.log(), re.MULTILINE))


class EventletSwitchTest(_Switch, MoveCase):
    concurrency = 'eventlet'


class FaultsTest(MoveCase):
    """memcached comes and goes; the manager logs everything that it can."""

    def setUp(self):
        super().setUp()
        everything = 'amqp=DEBUG,oslo.messaging=TRACE,oslo_messaging=TRACE,consoled=TRACE,dogpile=TRACE'
        everything += ',oslo_cache=TRACE,pymemcache=TRACE,memcache=TRACE'
        self.monitoring = services.free_port()
        self.start_manager(
            DEFAULT={'debug': True, 'default_log_levels': everything, 'transport_url': self.bus, 'host': 'm'},
            monitoring={'port': self.monitoring},
        )
        self.seen = []

    def old_token(self, store):
        """Issue a token that only memcached has."""
        token = base.new_uuid()
        store.authorize_console(token, 'novnc', base.ADDRESS, 5900, None, self.instance)
        self.seen.append(token)
        return token

    def lookups(self):
        with urllib.request.urlopen(f'http://127.0.0.1:{self.monitoring}/metrics') as answer:
            found = re.findall(r'consoled_legacy_lookups_total{(.*?)} (\S+)', answer.read().decode())
        return {re.search('outcome="(.*?)"', labels)[1]: float(value) for labels, value in found}

    def test_a_token_of_the_database_is_not_looked_up_in_memcached(self):
        names = ('cmd_get', 'cmd_set', 'cmd_touch', 'total_connections')
        before = self.stats(*names)
        token = self.api.authorize(self.context, base.a_grant(self.instance, 5900, 'novnc')).token
        issued = self.old.authorize(self.instance, 5900)
        for _ in range(10):
            for each in (token, issued):
                self.api.validate(self.context, each)
                self.proxy.open(each)
                self.old.check_token(each)
        before['total_connections'] += 1  # the one that asks for the counters
        self.assertEqual(before, self.stats(*names))
        self.assertEqual({}, self.lookups())

    def test_many_users_at_once(self):
        """A proxy has just been moved, or was restarted."""
        store = self.useFixture(legacy_base.OldConsoleAuth([self.memcached.url]))
        issued = [self.old_token(store) for _ in range(100)]

        def use(number, token):
            if number % 2:
                return self.old.check_token(token)['port']
            return self.api.validate(self.context, token).port

        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            self.assertEqual({5900}, set(pool.map(use, range(100), issued)))

    def test_memcached_comes_and_goes(self):
        where = Neighbourhood(1)
        where.compute = where.proxy = 'new'
        self.make_users([where], each=3)
        self.start_users()
        store = self.useFixture(legacy_base.OldConsoleAuth([self.memcached.url]))
        used, flushed = self.old_token(store), self.old_token(store)
        started = time.monotonic()
        self.assertTrue(self.is_valid(used))
        legacy_base.flush(self.memcached.url)
        self.check_without(used, flushed)
        lost = self.old_token(store)
        with legacy_base.stopped(self.memcached):
            self.check_without(used, lost)
        self.memcached.kill()
        self.check_without(used, lost)
        self.memcached.start()
        back = self.old_token(self.useFixture(legacy_base.OldConsoleAuth([self.memcached.url])))
        wait_until(lambda: self.is_valid(back), what='memcached')
        self.check_without(used, lost)

        self.assertLess(3 * ROUNDS, self.assert_none_lost())
        self.assertLess({'found', 'unknown', 'unavailable'}, set(self.lookups()) | {'refused'})
        lines = self.manager.log().count('memcached is unavailable')
        minutes = 1 + (time.monotonic() - started) // 60
        self.assertTrue(1 <= lines <= 2 * minutes, lines)  # one a minute of each worker
        self.check_log()

    def check_without(self, used, unknown):
        """A copied token is valid, an unknown one is refused, and nobody else notices anything."""
        self.assertTrue(self.is_valid(used))
        self.assertIsNone(self.is_valid(unknown))
        self.assertIsNone(self.old.check_token(unknown))
        self.progress(ROUNDS)

    def check_log(self):
        """Invariant 1, with everything that the old libraries may log."""
        log = self.manager.log()
        for level in ('DEBUG', 'TRACE'):
            self.assertIn(f' {level} oslo.messaging', log)
        for token in (*self.seen, *(token for user in self.users for token in user.known)):
            self.assertNotIn(token, log)
        self.assertNotIn(old_callers.CREDENTIAL, log)
