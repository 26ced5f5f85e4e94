# SPDX-License-Identifier: Apache-2.0
"""The operators' tools as processes, against a real bus and database."""

import json
import os
import pathlib
import pty
import subprocess
import sys
import time
import uuid

import fixtures
import sqlalchemy as sa
import testtools

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.db import clock, models
from consoled.db.engine import Database
from consoled.manager import service
from consoled.manager.manager import ConsoleAuthManager
from consoled.rpc.client import ConsoleAuthAPI
from consoled.testing import fixtures as cell_fixtures
from consoled.testing import services

CONTEXT = RequestContext()
TIMEOUT = 90  # seconds; only used up by a failure


class ToolsCase(testtools.TestCase):
    """Runs the tools with a config file of ``transport_url`` and ``database_url``."""

    def configure(self, transport_url, database_url):
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.config_file = directory / 'consoled.conf'
        self.config_file.write_text(
            f'[DEFAULT]\ntransport_url = {transport_url}\n[database]\nconnection = {database_url}\n'
        )

    def run_tool(self, module, *argv, stdin='', env=None):
        """Run a program, and return the finished process with its output as text."""
        return subprocess.run(
            [sys.executable, '-m', f'consoled.cmd.{module}', '--config-file', str(self.config_file), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env={**os.environ, **(env or {})},
        )

    def ctl(self, *argv, **kwargs):
        return self.run_tool('consolectl', *argv, **kwargs)

    def manage(self, *argv, **kwargs):
        return self.run_tool('manage', *argv, **kwargs)

    def rows(self, *argv):
        """Run a command that succeeds, and return its JSON output."""
        tool = self.manage if argv[0] in ('db', 'purge') else self.ctl
        done = tool(*argv, '-f', 'json')
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        return json.loads(done.stdout)

    def assert_ended(self, done, code, error):
        """Assert the exit code, and that the only output is one line on standard error with this error."""
        self.assertEqual((code, ''), (done.returncode, done.stdout), done.stderr)
        self.assertRegex(done.stderr, rf'\A[a-z-]+: {error}: [^\n]+\n\Z')


class CellCase(ToolsCase):
    """A cell with a manager, a proxy, and a guest with two serial consoles."""

    def setUp(self):
        super().setUp()
        self.transport_url = services.shared(services.RabbitMQ).new_vhost()
        self.database_url = services.shared(services.MariaDB).new_database()
        self.configure(self.transport_url, self.database_url)
        self.cell = self.useFixture(
            cell_fixtures.InProcessCell(self.transport_url, self.database_url, manager__check_port=False)
        )
        self.api: ConsoleAuthAPI = self.cell.api
        self.proxy = self.useFixture(cell_fixtures.FakeProxy(self.cell.transport, self.api))
        self.instance = str(uuid.uuid4())

    def token(self, instance=None, *, port=5900, user='alice', compute_host='compute1', kind='novnc'):
        grant = objects.ConsoleAuthToken(
            instance_uuid=instance or self.instance,
            console_type=kind,
            host='192.0.2.9' if compute_host == 'compute1' else '192.0.2.10',
            port=port,
            compute_host=compute_host,
            user_id=user,
            project_id='demo',
        )
        return self.api.authorize(CONTEXT, grant).token

    def execute(self, statement):
        return self.cell.db.single(lambda conn: conn.execute(statement))

    def count(self, table):
        return self.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


class ConsolectlTest(CellCase):
    def test_list_free_ports(self):
        consoles = [
            objects.ConsoleConnection(
                instance_uuid=self.instance,
                console_type='serial',
                host='192.0.2.9',
                port=port,
                compute_host='compute1',
                access_url_base=None,
                options={},
            )
            for port in (10001, 10000)
        ]
        self.api.define_consoles(
            CONTEXT, self.instance, 'compute1', objects.ConsoleConnectionList(objects=consoles)
        )
        cell_fixtures.wait_until(lambda: self.count(models.console_connection) == 2)
        self.proxy.open(self.token(port=10000, kind='serial'))
        self.assertEqual(
            [{'port': 10001, 'host': '192.0.2.9', 'console_type': 'serial', 'compute_host': 'compute1'}],
            self.rows('console', 'list-free-ports', self.instance),
        )
        self.assertEqual([], self.rows('console', 'list-free-ports', self.instance, '--type', 'novnc'))
        unknown = self.ctl('console', 'list-free-ports', str(uuid.uuid4()))
        self.assert_ended(unknown, 1, 'instance_not_found')

    def test_validate_from_standard_input_and_file(self):
        token = self.token()
        done = self.ctl('token', 'validate', '-f', 'json', stdin=token + '\n')
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        shown = json.loads(done.stdout)
        self.assertEqual(
            (self.instance, 5900, 'alice'), (shown['instance_uuid'], shown['port'], shown['user_id'])
        )
        self.assertRegex(shown['expires'], r'\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z')
        path = self.config_file.with_name('token')
        path.write_text(token)
        self.assertEqual(0, self.ctl('token', 'validate', '--token-file', str(path)).returncode)
        self.assert_ended(self.ctl('token', 'validate', stdin=token[::-1]), 1, 'invalid_token')

    def test_no_output_or_log_contains_a_token(self):
        token = self.token()
        log = self.config_file.with_name('log')
        for value in (token, token[:-1] + 'x'):
            for argv in (('--debug', '-vv'), ('--debug', '--log-file', str(log))):
                done = self.ctl(*argv, 'token', 'validate', stdin=value)
                self.assertNotIn(value, done.stdout + done.stderr)
        self.assertGreater(len(log.read_text()), 1000)
        self.assertNotIn(token[:-1], log.read_text())

    def test_at_a_terminal_a_token_is_not_echoed(self):
        token = self.token()
        pid, terminal = pty.fork()
        if not pid:  # the child, with a terminal of its own
            argv = [
                '-m',
                'consoled.cmd.consolectl',
                '--config-file',
                str(self.config_file),
                'token',
                'validate',
            ]
            os.execv(sys.executable, [sys.executable, *argv])
        screen = b''
        while b'Token: ' not in screen:
            screen += os.read(terminal, 1000)
        os.write(terminal, token.encode() + b'\n')
        try:
            while more := os.read(terminal, 1000):
                screen += more
        except OSError:  # EIO: the other side has closed it
            pass
        self.assertEqual(0, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), screen)
        self.assertIn(self.instance.encode(), screen)
        self.assertNotIn(token.encode(), screen)

    def test_list_and_cut(self):
        tokens = [self.token(user=user) for user in ('alice', 'bob', 'bob')]
        ids = [self.proxy.open(token).id for token in tokens]
        self.assertEqual(sorted(ids), [row['id'] for row in self.rows('session', 'list')])
        self.assertEqual(
            sorted(ids[1:]), [row['id'] for row in self.rows('session', 'list', '--user', 'bob')]
        )
        self.assertEqual(1, len(self.rows('session', 'list', '--user', 'bob', '--limit', '1')))
        self.assertEqual([], self.rows('session', 'list', '--project', 'other'))
        self.assertEqual(
            {'tokens': 1, 'sessions': 1}, self.rows('session', 'cut', ids[0], '--reason', 'test')
        )
        self.assertEqual((ids[0], 'test'), self.proxy.cuts.get(timeout=30))
        self.assertRaises(exception.InvalidToken, self.api.validate, CONTEXT, tokens[0])
        self.assert_ended(self.ctl('session', 'cut', ids[0]), 1, 'session_not_found')

    def test_revoke(self):
        tokens = [self.token(user=user) for user in ('alice', 'bob')]
        ids = [self.proxy.open(token).id for token in tokens]
        revoked = self.rows('revoke', '--user', 'bob', '--compute-host', 'compute1', '--yes')
        self.assertEqual({'tokens': 1, 'sessions': 1}, revoked)
        self.assertEqual((ids[1], 'operator'), self.proxy.cuts.get(timeout=30))
        self.assertEqual({'tokens': 0, 'sessions': 0}, self.rows('revoke', '--user', 'bob', '--yes'))
        self.assertEqual({'tokens': 1, 'sessions': 1}, self.rows('revoke', '--instance', self.instance))

    def test_under_eventlet_and_into_a_closed_pipe(self):
        self.proxy.open(self.token())
        env = {'CONSOLED_CONCURRENCY': 'eventlet', 'PYTHONWARNINGS': 'ignore'}
        done = self.ctl('session', 'list', '-f', 'json', env=env)
        self.assertEqual((0, 1), (done.returncode, len(json.loads(done.stdout))), done.stderr)
        command = f'{sys.executable} -m consoled.cmd.consolectl --config-file {self.config_file}'
        command += ' session list'
        done = subprocess.run(['bash', '-c', f'{command} | true'], capture_output=True, timeout=TIMEOUT)
        self.assertEqual(b'', done.stderr)


class UnreachableTest(ToolsCase):
    def test_no_bus(self):
        self.configure(f'rabbit://guest:guest@127.0.0.1:{services.free_port()}/', 'sqlite://')
        started = time.monotonic()
        self.assert_ended(self.ctl('--timeout', '1', 'session', 'list'), 3, 'manager_unreachable')
        self.assertLess(time.monotonic() - started, 30)

    def test_a_bus_without_a_manager(self):
        self.configure(services.shared(services.RabbitMQ).new_vhost(), 'sqlite://')
        started = time.monotonic()
        self.assert_ended(self.ctl('--timeout', '2', 'session', 'list'), 3, 'manager_unreachable')
        self.assertLess(time.monotonic() - started, 30)

    def test_no_database_server(self):
        url = f'mysql+pymysql://u:hidden@127.0.0.1:{services.free_port()}/cell'
        self.configure('rabbit://', url)
        for command in (('db', 'check'), ('db', 'version'), ('db', 'upgrade'), ('purge',)):
            done = self.manage(*command)
            self.assert_ended(done, 3, 'database_unavailable')
            self.assertNotIn('hidden', done.stderr)

    def test_no_such_database(self):
        url = services.shared(services.MariaDB).new_database()
        services.shared(services.MariaDB).drop_database(url)
        self.configure('rabbit://', url)
        self.assert_ended(self.manage('db', 'check'), 3, 'database_unavailable')


class ManagerWithoutDatabaseTest(ToolsCase):
    def test_the_error_names_the_database(self):
        bus = services.shared(services.RabbitMQ).new_vhost()
        self.configure(bus, 'sqlite://')
        config = self.useFixture(
            cell_fixtures.Conf(
                host='manager',
                transport_url=bus,
                database__connection=f'mysql+pymysql://u:p@127.0.0.1:{services.free_port()}/cell',
                database__retry_time=0.5,
            )
        )
        db = Database.from_conf(config.conf)
        self.addCleanup(db.dispose)
        transport = cell_fixtures.get_transport(config.conf)
        self.addCleanup(transport.cleanup)
        endpoint = ConsoleAuthManager.from_conf(config.conf, transport, db)
        server = service.build_rpc_server(config.conf, transport, endpoint)
        server.start()
        self.addCleanup(server.wait)
        self.addCleanup(server.stop)
        self.assert_ended(self.ctl('session', 'list'), 3, 'database_unavailable')


class DatabaseTest(ToolsCase):
    def setUp(self):
        super().setUp()
        self.configure('rabbit://', services.shared(services.MariaDB).new_database())

    def test_behind_then_upgraded(self):
        self.assert_ended(self.manage('db', 'check'), 1, 'database_behind')
        self.assert_ended(self.manage('purge'), 1, 'database_behind')
        self.assertIsNone(self.rows('db', 'version')['current'])
        for _ in range(2):
            done = self.manage('db', 'upgrade')
            self.assertEqual((0, ''), (done.returncode, done.stderr))
        version = self.rows('db', 'version')
        self.assertEqual(version['head'], version['current'])
        self.assertEqual(0, self.manage('db', 'check').returncode)

    def test_unknown_revision(self):
        self.manage('db', 'upgrade')
        url = self.config_file.read_text().split('connection = ')[1].strip()
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as conn:
            conn.execute(sa.text("UPDATE consoled_alembic_version SET version_num = '9999'"))
        for command in ('check', 'upgrade'):
            self.assert_ended(self.manage('db', command), 1, 'database_ahead')


class PurgeTest(CellCase):
    def age(self, column, seconds):
        """Set a time of all rows to this many seconds ago."""
        self.execute(sa.update(column.table).values({column: clock.utc_after(-seconds)}))

    def test_expired_tokens(self):
        for user in ('a', 'b', 'c'):
            self.token(user=user)
        self.age(models.console_auth_token.c.expires, 10)
        self.token(user='d')
        self.assertEqual(0, self.rows('purge', '--older-than', '3600')['tokens'])
        self.assertEqual(3, self.rows('purge')['tokens'])
        self.assertEqual(1, self.count(models.console_auth_token))

    def test_dead_proxies(self):
        self.proxy.open(self.token())
        self.assertEqual(0, self.rows('purge')['proxies'])
        self.age(models.console_proxy.c.lease_expires, 601)  # ten leases
        self.assertEqual(1, self.rows('purge')['proxies'])
        self.assertEqual(0, self.count(models.console_session))

    def test_a_lost_compute_host(self):
        others = [str(uuid.uuid4()) for _ in range(2)]
        for instance in others:
            self.token(instance, compute_host='compute2')
        session = self.proxy.open(self.token())
        self.assert_ended(self.manage('purge', '--compute-host', 'compute1'), 2, 'usage_error')
        self.assertEqual(3, self.count(models.instances))
        self.assertEqual(1, self.rows('purge', '--compute-host', 'compute1', '--yes')['instances'])
        self.assertEqual(2, self.count(models.instances))
        self.assertEqual(2, self.count(models.console_auth_token))
        cut = self.api.renew_lease(CONTEXT, self.proxy.id).cut
        self.assertEqual({session.id: 'compute_host_gone'}, cut)
        self.assertEqual(0, self.rows('purge', '--compute-host', 'compute1')['instances'])
