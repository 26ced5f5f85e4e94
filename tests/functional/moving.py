# SPDX-License-Identifier: Apache-2.0
"""Parts of the tests of the move: an old service that answers, a manager, and users that never stop."""

import collections
import concurrent.futures
import random
import socket
import threading
import uuid

import oslo_messaging
import testtools

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.rpc import server as rpc_server
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.replies import Closing
from consoled.rpc.transport import get_transport
from consoled.testing import daemons, fixtures, services
from consoled.testing.fixtures import wait_until
from tests.functional import base, legacy_base, old_callers

PORTS = (5900, 5901, 5902)


class OldService(fixtures.fixtures.Fixture):
    """nova-consoleauth: answers on its topic, with its tokens in memcached through its own libraries."""

    target = oslo_messaging.Target(version='2.1')

    def __init__(self, transport_url, servers):
        super().__init__()
        self._transport_url = transport_url
        self.store = legacy_base.OldConsoleAuth(servers)
        self._lock = threading.Lock()  # it answers one call after the other
        self.answered = collections.Counter()

    def _setUp(self):  # noqa: N802 - named by the fixtures library
        self.useFixture(self.store)
        conf = self.useFixture(fixtures.Conf(transport_url=self._transport_url)).conf
        transport = oslo_messaging.get_rpc_transport(conf)
        self.addCleanup(transport.cleanup)
        where = oslo_messaging.Target(exchange='nova', topic='consoleauth', server='old')
        self._server = oslo_messaging.get_rpc_server(
            transport, where, [self], access_policy=oslo_messaging.ExplicitRPCAccessPolicy
        )
        self._server.start()
        self.addCleanup(self.end)

    def end(self):
        if self._server is not None:
            rpc_server.drain(self._server)
            self._server = None

    def _ask(self, method, **arguments):
        with self._lock:
            self.answered[method] += 1
            return getattr(self.store, method)(**arguments)

    @oslo_messaging.expose
    def authorize_console(self, context, **arguments):
        self._ask('authorize_console', **arguments)

    @oslo_messaging.expose
    def check_token(self, context, token):
        return self._ask('check_token', token=token)


class Neighbourhood:
    """A compute host and the proxy of its users, each of which is ``old`` or ``new``."""

    def __init__(self, number):
        self.compute_host = f'node-{number}'
        self.compute = self.proxy = 'old'


class User(threading.Thread):
    """Gets tokens and uses them, new ones and earlier ones, until it is stopped.

    :param host: address of the guest's consoles, which no other guest has
    :ivar known: all tokens that were issued
    :ivar problems: everything that went wrong
    """

    def __init__(self, where, old, api, proxy, host):
        super().__init__(daemon=True)
        self.where = where
        self.old = old
        self.api = api
        self.proxy = proxy
        self.host = host
        self.context = RequestContext(user_id='user-1', project_id='project-1')
        self.instance = str(uuid.uuid4())
        self.known = {}
        self.problems = []
        self.rounds = 0
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.wait(0.02):  # users must not take all of the machine
            try:
                self.round()
            except Exception as exc:
                self.problems.append(f'{self.where.compute} compute, {self.where.proxy} proxy: {exc!r}')
            self.rounds += 1

    def round(self):
        token, port = self.issue()
        self.known[token] = port
        self.use(token)
        self.use(random.choice(list(self.known)))

    def issue(self):
        port = random.choice(PORTS)
        if self.where.compute == 'old':
            return self.old.authorize(self.instance, str(port), host=self.host), port
        grant = base.a_grant(
            self.instance, port, 'novnc', compute_host=self.where.compute_host, host=self.host
        )
        return self.api.authorize(self.context, grant).token, port

    def use(self, token):
        self.use_at(self.where.proxy, token)

    def use_at(self, proxy, token):
        if proxy == 'old':
            found = self.old.check_token(token)
            opened = found and (found['instance_uuid'], int(found['port']))
        else:
            self.api.validate(self.context, token)
            session = self.proxy.open(token)
            self.api.close_session(self.context, Closing(session.id, 'left'))
            opened = (session.console.instance_uuid, session.console.port)
        if opened != (self.instance, self.known[token]):
            raise LookupError(f'got {opened}')

    def define(self):
        """Define the guest's consoles as the agent of its host does, which checks its ports from then on."""
        consoles = [
            base.a_console(self.instance, port, 'novnc', host=self.host, compute_host=self.where.compute_host)
            for port in PORTS
        ]
        found = objects.ConsoleConnectionList(objects=consoles)
        self.api.define_consoles(self.context, self.instance, self.where.compute_host, found, wait=True)


class MoveCase(testtools.TestCase):
    """A memcached and a bus of the test's own, and old and new peers of a manager."""

    concurrency = 'threading'

    def setUp(self):
        super().setUp()
        self.memcached = self.useFixture(services.Memcached())
        self.bus = base.transport_url(self)
        self.context = RequestContext(user_id='user-1', project_id='project-1')
        self.instance = base.new_uuid()
        conf = self.useFixture(fixtures.Conf(transport_url=self.bus)).conf
        self.transport = get_transport(conf)
        self.addCleanup(self.transport.cleanup)
        self.api = ConsoleAuthAPI(self.transport)
        self.old = self.useFixture(old_callers.OldCallers(self.bus))
        self.users = []

    def start_manager(self, enabled=True, env=(), **options):
        settings = {
            # The proxy of the test has nobody who renews its lease.
            'manager': {'workers': 2, 'lease': 3600},
            'cache': {
                'enabled': True,
                'backend': 'dogpile.cache.memcached',
                'memcache_servers': self.memcached.url,
                # All the time of a lookup: a pause of the machine must not make memcached count as down.
                'socket_timeout': 1.5,
            },
            'workarounds': {'enable_consoleauth': enabled},
            **options,
        }
        self.manager = self.useFixture(
            daemons.ManagerProcess(
                self.bus,
                base.database_url(self, 'mariadb'),
                settings,
                env={'CONSOLED_CONCURRENCY': self.concurrency, **dict(env)},
            )
        )
        self.addCleanup(self.manager.kill)  # an orderly stop takes time, and other tests cover it
        self.addOnException(self._add_log)
        self.proxy = self.useFixture(fixtures.FakeProxy(self.transport, self.api))

    def _add_log(self, exc_info):
        self.addDetail('manager', testtools.content.text_content(self.manager.log()[-20000:]))

    def reload(self, **workarounds):
        self.manager.options['workarounds'].update(workarounds)
        self.manager.write_config()
        self.manager.signal(daemons.signal.SIGHUP)

    def make_users(self, neighbourhoods, each=2):
        homes = [where for where in neighbourhoods for _ in range(each)]
        self.users = [
            User(where, self.old, self.api, self.proxy, f'198.51.100.{number}')
            for number, where in enumerate(homes, 1)
        ]
        return self.users

    def start_users(self):
        self.addCleanup(self.stop_users)
        for user in self.users:
            user.start()

    def stop_users(self):
        for user in self.users:
            user.stopped.set()
        for user in self.users:
            user.join()

    def progress(self, rounds):
        """Wait until each user has made that many more rounds."""
        wanted = [user.rounds + rounds for user in self.users]
        wait_until(
            lambda: all(user.rounds >= goal for user, goal in zip(self.users, wanted, strict=True)),
            timeout=60,
            what='progress',
        )

    def assert_none_lost(self):
        """Assert that nothing went wrong, and that each token opens its console through both proxies."""
        self.stop_users()
        for user in self.users:
            self.assertEqual([], user.problems)
        with concurrent.futures.ThreadPoolExecutor(len(self.users)) as pool:
            list(pool.map(self._assert_all_open, self.users))
        return sum(len(user.known) for user in self.users)

    def _assert_all_open(self, user):
        for token, port in user.known.items():
            user.use_at('old', token)
            self.assertEqual(port, self.api.validate(self.context, token).port)

    def is_valid(self, token):
        try:
            return self.api.validate(self.context, token)
        except exception.InvalidToken:
            return None

    def stats(self, *names):
        """Return counters of memcached."""
        with socket.create_connection((services.HOST, self.memcached.port), timeout=30) as connection:
            connection.sendall(b'stats\r\nquit\r\n')
            answer = connection.makefile().read()
        found = dict(line.split()[1:3] for line in answer.splitlines() if line.startswith('STAT '))
        return {name: int(found[name]) for name in names}

    def count(self, statement):
        database = daemons.service.Database(self.manager.options['database']['connection'])
        try:
            return database.single(lambda conn: conn.exec_driver_sql(statement).scalar())
        finally:
            database.dispose()
