# SPDX-License-Identifier: Apache-2.0
"""The rolling move, with real daemons and memcached: old and new side by side, and no token is lost."""

import re
import urllib.request

import kombu
from amqp import exceptions as amqp_exc

from consoled import token as tokens
from consoled.testing import fixtures, services
from consoled.testing.fixtures import wait_until
from tests.functional import base, legacy_base, old_callers
from tests.functional.moving import PORTS, MoveCase, Neighbourhood, OldService

ROUNDS = 5  # of each user in each phase


class _Rolling:
    def test_hosts_and_proxies_move_in_either_order(self):
        service = self.useFixture(OldService(self.bus, [self.memcached.url]))
        self.start_manager(workarounds={'enable_consoleauth': True, 'consoleauth_write_through': True})
        one, other = Neighbourhood(1), Neighbourhood(2)
        for where in (one, other):
            self.useFixture(fixtures.ComputeAgent(self.transport, where.compute_host))
        for user in self.start_users([one, other]):
            self.issue_before(service, user)
            user.start()
        self.progress(ROUNDS)  # the old service answers beside the manager
        self.assertLess(20, sum(service.answered.values()))

        service.end()
        self.reload(consoleauth_write_through=False)
        self.progress(ROUNDS)
        self.move_host(one)
        other.proxy = 'new'
        self.progress(ROUNDS)
        one.proxy = 'new'
        self.move_host(other)
        self.progress(ROUNDS)
        self.assertLess(4 * 3 * ROUNDS, self.assert_none_lost())

    def issue_before(self, service, user):
        """Before the move, with the old service alone."""
        for port in PORTS * 3:
            token = base.new_uuid()
            service.store.authorize_console(token, 'novnc', base.ADDRESS, port, None, user.instance)
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
        unknown = [base.new_uuid() for _ in range(3)]
        for token in unknown:
            store.authorize_console(token, 'novnc', base.ADDRESS, 5900, None, self.instance)
        self.start_manager(enabled=False)
        where = Neighbourhood(1)
        where.compute = where.proxy = 'new'
        for user in self.start_users([where], each=3):
            user.start()
        self.progress(ROUNDS)
        self.assertIsNone(self.is_valid(unknown[0]))
        before = self.stats('curr_connections')

        for token in unknown[:2]:
            self.reload(enable_consoleauth=True)
            wait_until(lambda token=token: self.is_valid(token), what='the flag on')
            issued = wait_until(lambda: self.issued(), what='an answer to an old call')
            self.assertEqual(5900, self.old.check_token(issued)['port'])
            self.progress(ROUNDS)
            self.reload(enable_consoleauth=False)
            wait_until(lambda: not self.consumers(), what='the flag off')
            wait_until(lambda: self.stats('curr_connections') == before, what='the end of connections')
            self.progress(ROUNDS)
            self.assertTrue(self.is_valid(token))  # it was taken over
        self.assertIsNone(self.is_valid(unknown[2]))
        self.reload(enable_consoleauth=True)
        wait_until(lambda: self.is_valid(unknown[2]), what='the flag on')
        self.assert_none_lost()

    def issued(self):
        return self.old.authorize(self.instance, 5900)

    def consumers(self):
        """How many answer old calls."""
        url = self.bus.replace('rabbit://', 'amqp://')
        with kombu.Connection(url) as connection, connection.channel() as channel:
            try:
                return channel.queue_declare('consoleauth', passive=True).consumer_count
            except amqp_exc.NotFound:
                return None


class ThreadingSwitchTest(_Switch, MoveCase):
    concurrency = 'threading'

    def test_off_nothing_of_it_is_there(self):
        """No module is loaded, no queue declared, memcached not called."""
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

    def loaded(self):
        """What modules its processes have imported."""
        return set(re.findall(r"^import '([\w.]+)' #", self.manager.log(), re.MULTILINE))


class EventletSwitchTest(_Switch, MoveCase):
    concurrency = 'eventlet'


class FaultsTest(MoveCase):
    """memcached comes and goes; the manager logs all that it can."""

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

    def old_token(self):
        """One that only memcached has."""
        token = base.new_uuid()
        with legacy_base.OldConsoleAuth([self.memcached.url]) as store:
            store.authorize_console(token, 'novnc', base.ADDRESS, 5900, None, self.instance)
        self.seen.append(token)
        return token

    def lookups(self):
        with urllib.request.urlopen(f'http://127.0.0.1:{self.monitoring}/metrics') as answer:
            found = re.findall(r'consoled_legacy_lookups_total{(.*?)} (\S+)', answer.read().decode())
        return {re.search('outcome="(.*?)"', labels)[1]: float(value) for labels, value in found}

    def test_a_token_of_the_database_costs_no_look_at_memcached(self):
        names = ('cmd_get', 'cmd_set', 'cmd_touch', 'total_connections')
        before = self.stats(*names)
        token = self.api.authorize(self.context, base.a_grant(self.instance, 5900, 'novnc')).token
        issued = self.old.authorize(self.instance, 5900)
        for _ in range(20):
            for each in (token, issued):
                self.api.validate(self.context, each)
                self.proxy.open(each)
                self.old.check_token(each)
        before['total_connections'] += 1  # that asks for the counters
        self.assertEqual(before, self.stats(*names))
        self.assertEqual({}, self.lookups())

    def test_memcached_comes_and_goes(self):
        where = Neighbourhood(1)
        where.compute = where.proxy = 'new'
        for user in self.start_users([where], each=3):
            user.start()
        used, flushed = self.old_token(), self.old_token()
        self.assertTrue(self.is_valid(used))
        legacy_base.flush(self.memcached.url)
        self.check_without(used, flushed)
        lost = self.old_token()
        with legacy_base.stopped(self.memcached):
            self.check_without(used, lost)
        self.memcached.kill()
        self.check_without(used, lost)
        self.memcached.start()
        back = self.old_token()
        wait_until(lambda: self.is_valid(back), what='memcached')
        self.check_without(used, lost)

        self.assertLess(3 * ROUNDS, self.assert_none_lost())
        self.assertLess({'found', 'unknown', 'unavailable'}, set(self.lookups()) | {'refused'})
        lines = self.manager.log().count('memcached, where tokens are looked for, is away')
        self.assertTrue(1 <= lines <= 2, lines)  # of each worker one in a minute
        self.check_log()

    def check_without(self, used, unknown):
        """What was taken over is valid, what was not is refused, and nobody else notices anything."""
        self.assertTrue(self.is_valid(used))
        self.assertIsNone(self.is_valid(unknown))
        self.assertIsNone(self.old.check_token(unknown))
        self.progress(ROUNDS)

    def check_log(self):
        """Invariant 1, with all that the old libraries may log."""
        self.manager.stop()
        log = self.manager.log()
        for level in ('DEBUG', 'TRACE'):
            self.assertIn(f' {level} oslo.messaging', log)
        for token in (*self.seen, *(token for user in self.users for token in user.known)):
            self.assertNotIn(token, log)
        self.assertNotIn(old_callers.CREDENTIAL, log)
