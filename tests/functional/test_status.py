# SPDX-License-Identifier: Apache-2.0
"""``consoled-status upgrade check`` as a process, against real databases and managers."""

import datetime
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import fixtures
import sqlalchemy as sa
import testtools

from consoled import version
from consoled.db import clock, legacy, managers, migration, models
from consoled.db.engine import Database
from consoled.testing import daemons, services
from consoled.testing.fixtures import wait_until
from tests.functional import base

TIMEOUT = 60  # seconds; only used up by a failure
SECRET = 'hidden-password'

SUCCESS, WARNING, FAILURE, UNEXPECTED = 0, 1, 2, 255
CHECKS = [
    'Database schema',
    'Managers',
    'Pinned versions',
    'Console addresses',
    'Legacy consoleauth',
    'Deprecated options',
    'Unknown options',
]


class StatusCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.config_file = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'consoled.conf'

    def configure(self, database_url, **groups):
        """Write the config file.

        :param groups: options and their values by group
        """
        lines = ['[database]', f'connection = {database_url}']
        for group, options in groups.items():
            lines.append(f'[{group}]')
            lines += [f'{name} = {value}' for name, value in options.items()]
        self.config_file.write_text('\n'.join(lines) + '\n')

    def run_status(self, *argv, **env):
        command = [sys.executable, '-W', 'ignore', '-m', 'consoled.cmd.status']
        done = subprocess.run(
            [*command, '--config-file', str(self.config_file), *argv],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env={**os.environ, **env},
        )
        self.assertNotIn(SECRET, done.stdout + done.stderr)
        return done

    def check(self, *options):
        """Run the checks; return {name: (result, details)}. The exit code is the highest result."""
        done = self.run_status(*options, 'upgrade', 'check', '--json')
        self.assertEqual('', done.stderr)
        checks = json.loads(done.stdout)['checks']
        self.assertEqual(CHECKS, [each['check'] for each in checks])
        self.assertEqual(max(each['result'] for each in checks), done.returncode)
        return {each['check']: (each['result'], each['details']) for each in checks}

    def assert_check(self, name, result, *said):
        """Assert the result of a check, and that its details contain each of these texts."""
        got, details = self.check()[name]
        self.assertEqual(result, got, details)
        for text in said:
            self.assertIn(text, details)
        return details


class DatabaseCase(StatusCase):
    engine = 'sqlite'
    revision = 'head'

    def setUp(self):
        super().setUp()
        self.url = base.database_url(self, self.engine)
        self.db = Database(self.url)
        self.addCleanup(self.db.dispose)
        if self.revision:
            migration.upgrade(self.db, self.revision)
        self.configure(self.url)

    def execute(self, statement):
        return self.db.single(lambda conn: conn.execute(statement))

    def age(self, column, seconds):
        """Set a time of all rows to this many seconds ago."""
        self.execute(sa.update(column.table).values({column: clock.utc_after(-seconds)}))

    def a_manager(self, name='m1', release=version.VERSION):
        managers.record_heartbeat(self.db, name, release, '1.0')


class SchemaTest(DatabaseCase):
    def test_all_checks_succeed(self):
        self.a_manager()
        done = self.run_status('upgrade', 'check')
        self.assertEqual((SUCCESS, ''), (done.returncode, done.stderr), done.stdout)
        for name in CHECKS:
            self.assertIn(f'| Check: {name} ', done.stdout)
        self.assertEqual(len(CHECKS), done.stdout.count('| Result: Success '))

    def test_a_newer_release_has_upgraded_it(self):
        self.execute(sa.text("UPDATE consoled_alembic_version SET version_num = '9999'"))
        self.assert_check('Database schema', WARNING, '9999', 'newer')


class _Behind:
    """An older schema, or none, is reported, and tables that it lacks are not queried."""

    revision = None

    def test_before_and_after_the_upgrade(self):
        for revision in (None, '0001', '0002', '0003'):
            if revision:
                migration.upgrade(self.db, revision)
            said = self.check()
            self.assertEqual(FAILURE, said['Database schema'][0])
            self.assertIn('Run consoled-manage db upgrade', said['Database schema'][1])
            self.assertIn('Unknown until consoled-manage db upgrade', said['Managers'][1])
            self.assertEqual(SUCCESS, said['Legacy consoleauth'][0])
        migration.upgrade(self.db)
        self.a_manager()
        self.assertEqual({SUCCESS}, {result for result, _ in self.check().values()})


class MariaDBBehindTest(_Behind, DatabaseCase):
    engine = 'mariadb'


class PostgreSQLBehindTest(_Behind, DatabaseCase):
    engine = 'postgresql'


class SQLiteBehindTest(_Behind, DatabaseCase):
    engine = 'sqlite'


class UnreachableTest(StatusCase):
    def assert_unreachable(self, url, within, said='does not answer'):
        self.configure(url, workarounds={'enable_consoleauth': 'true'})
        started = time.monotonic()
        found = self.check()
        self.assertLess(time.monotonic() - started, within)
        self.assertEqual(FAILURE, found['Database schema'][0])
        self.assertIn(said, found['Database schema'][1])
        self.assertIn('see Database schema', found['Managers'][1])
        self.assertEqual(WARNING, found['Legacy consoleauth'][0])
        # checks that need no database are still made
        self.assertIn('[workarounds] enable_consoleauth', found['Deprecated options'][1])

    def test_no_server(self):
        for driver in ('mysql+pymysql', 'postgresql+psycopg'):
            self.assert_unreachable(f'{driver}://u:{SECRET}@127.0.0.1:{services.free_port()}/cell', 15)

    def test_a_wrong_password(self):
        url = sa.make_url(base.database_url(self, 'mariadb')).set(password=SECRET)
        self.assert_unreachable(url.render_as_string(hide_password=False), 15)

    def test_no_such_database(self):
        for name in ('mariadb', 'postgresql'):
            url = sa.make_url(base.database_url(self, name)).set(database='nothing_there')
            self.assert_unreachable(url.render_as_string(hide_password=False), 15)

    def test_a_server_that_never_answers(self):
        """The driver would wait forever for a frozen server, or if packets are dropped."""
        silent = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(silent.close)
        url = f'mysql+pymysql://u:{SECRET}@127.0.0.1:{silent.getsockname()[1]}/cell'
        self.assert_unreachable(url, 30, 'has not answered within 15 s')


class ManagersTest(DatabaseCase):
    def test_none(self):
        self.assert_check('Managers', WARNING, 'None has sent a heartbeat')

    def test_releases(self):
        self.a_manager('m1')
        self.assert_check('Managers', SUCCESS, f'm1 ({version.VERSION}, seen ')
        self.a_manager('m2', '0.0.9')
        said = self.assert_check('Managers', WARNING, 'm2 (0.0.9, seen ')
        self.assertNotIn('m1', said)
        self.a_manager('m2', '99.0')
        self.assert_check('Managers', WARNING, 'another release', 'm2 (99.0, seen ')

    def test_pins(self):
        self.configure(self.url, upgrade_levels={'consoled': '1.0', 'compute': '1.0'})
        self.assert_check('Pinned versions', SUCCESS, 'unknown')
        self.a_manager('m1')
        self.a_manager('m2', '0.0.9')
        self.assert_check('Pinned versions', SUCCESS, 'several releases')
        self.a_manager('m2')
        self.assert_check('Pinned versions', WARNING, 'Remove consoled')
        self.configure(self.url, upgrade_levels={'compute': '9.9'})
        self.assert_check('Pinned versions', FAILURE, '9.9')


class LegacyTest(DatabaseCase):
    def setUp(self):
        super().setUp()
        self.a_manager()

    def switch(self, on, **options):
        self.configure(self.url, workarounds={'enable_consoleauth': on, **options})

    def an_adopted_token(self, ttl):
        grant = base.a_grant(base.new_uuid(), 10000)
        self.assertTrue(
            legacy.adopt(self.db, 'a' * 64, grant, legacy.Provenance('memcached', ttl, time.time()))
        )

    def test_the_migration_from_start_to_end(self):
        self.assert_check('Legacy consoleauth', SUCCESS, 'Off, and never used')
        self.switch(True)
        self.assert_check(
            'Legacy consoleauth', WARNING, 'On. The old service has not been used', 'stopped for'
        )
        self.an_adopted_token(4 * 3600)
        for _ in range(3):
            legacy.count_use(self.db, 'memcached')
        said = self.assert_check(
            'Legacy consoleauth', WARNING, 'memcached 3 times', 'UTC, in 4 h', 'Leave it'
        )
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=4)
        self.assertIn(f'{expires:%Y-%m-%d}', said)
        self.age(models.legacy_use.c.last_used_at, 86400)  # quiet, but a token lives
        self.assert_check('Legacy consoleauth', WARNING, 'Leave it on at least until')
        self.age(models.console_auth_token.c.expires, 1)
        self.assert_check('Legacy consoleauth', WARNING, '24 h ago', 'can be switched off now')
        self.switch(False)
        self.assert_check('Legacy consoleauth', SUCCESS, 'Off. Used: memcached 3 times')

    def test_switched_off_too_early(self):
        legacy.count_use(self.db, 'memcached')
        self.switch(False)
        self.assert_check('Legacy consoleauth', WARNING, 'switch it on again until', 'in 10 min')
        self.age(models.legacy_use.c.last_used_at, 700)
        self.assert_check('Legacy consoleauth', SUCCESS)

    def test_managers_that_cannot_use_memcached(self):
        for cache, said in (
            ({'enabled': 'false'}, '[cache] enabled and backend are not set'),
            (
                {'enabled': 'true', 'backend': 'dogpile.cache.memory'},
                'is not a supported backend',
            ),
            ({'enabled': 'true', 'backend': 'dogpile.cache.memcached', 'tls_enabled': 'true'}, 'TLS'),
        ):
            self.configure(self.url, workarounds={'enable_consoleauth': 'true'}, cache=cache)
            self.assert_check('Legacy consoleauth', WARNING, said)

    def test_memcached_is_not_contacted(self):
        cache = {
            'enabled': 'true',
            'backend': 'dogpile.cache.memcached',
            'memcache_servers': f'127.0.0.1:{services.free_port()}',
            'memcache_socket_timeout': 3,
        }
        self.configure(self.url, workarounds={'enable_consoleauth': 'true'}, cache=cache)
        found = self.check()
        self.assertTrue(found['Legacy consoleauth'][1].startswith('On. '), found['Legacy consoleauth'])
        self.assertIn('[cache] memcache_socket_timeout is now called', found['Deprecated options'][1])

    def test_write_through(self):
        self.switch(True, consoleauth_write_through=True)
        self.assert_check('Legacy consoleauth', WARNING, 'memcached holds tokens in clear text')
        self.switch(False, consoleauth_write_through=True)
        self.assert_check('Legacy consoleauth', WARNING, 'has no effect without enable_consoleauth')


class OptionsTest(DatabaseCase):
    def test_deprecated_options_are_named_without_their_values(self):
        self.configure(
            self.url,
            DEFAULT={'rpc_thread_pool_size': 7, 'debug': 'false'},
            workarounds={'consoleauth_transport_url': f'rabbit://u:{SECRET}@h/'},
            oslo_messaging_rabbit={'kombu_reconnect_timeout': 98765, 'ssl_enforce_fips_mode': 'false'},
        )
        said = self.assert_check(
            'Deprecated options',
            WARNING,
            '[workarounds] consoleauth_transport_url will be removed: It serves only the release',
            '[DEFAULT] rpc_thread_pool_size is now called [DEFAULT] executor_thread_pool_size.',
            '[oslo_messaging_rabbit] kombu_reconnect_timeout is now called',
            '[oslo_messaging_rabbit] ssl_enforce_fips_mode will be removed',
        )
        for value in ('98765', 'debug'):
            self.assertNotIn(value, said)

    def test_in_any_of_several_files(self):
        self.a_manager()
        more = self.config_file.with_name('more.conf')
        more.write_text('[default]\nlogfile =\n[WORKAROUNDS]\nenable_consoleauth = false\n')
        said = self.check('--config-file', str(more))['Deprecated options']
        self.assertEqual(WARNING, said[0])
        self.assertIn('[DEFAULT] logfile is now called [DEFAULT] log_file.', said[1])
        self.assertIn('[workarounds] enable_consoleauth will be removed', said[1])

    def test_no_check_can_be_made(self):
        for text, argv, said in (
            ('', ('upgrade', 'check'), 'connection is not set'),
            (f'[database]\nconnection = u {SECRET}', ('upgrade', 'check'), 'not the URL'),
            ('[consoleauth]\ntoken_ttl = soon', ('upgrade', 'check'), 'token_ttl'),
            ('[database', ('upgrade', 'check'), 'configuration_error'),
            ('', ('upgrade', 'check', '--jso'), 'usage_error'),
            ('', ('upgrade', 'nonsense'), 'usage_error'),
            ('', (), 'usage_error'),
        ):
            if text.startswith('[consoleauth]'):
                text += f'\n[database]\nconnection = {self.url}'
            self.config_file.write_text(text)
            done = self.run_status(*argv)
            self.assertEqual((UNEXPECTED, ''), (done.returncode, done.stdout), done.stderr)
            self.assertIn(said, done.stderr)
            self.assertEqual(1, done.stderr.count('\n'), done.stderr)

    def test_with_the_environment_of_a_manager_under_eventlet(self):
        self.a_manager()
        done = self.run_status('upgrade', 'check', CONSOLED_CONCURRENCY='eventlet')
        self.assertEqual((SUCCESS, ''), (done.returncode, done.stderr), done.stdout)


class DaemonTest(StatusCase):
    """Live managers, by their heartbeats."""

    concurrency = 'threading'

    def setUp(self):
        super().setUp()
        self.bus = base.transport_url(self)
        self.url = base.database_url(self, 'mariadb')
        self.configure(self.url)
        self.db = Database(self.url)
        self.addCleanup(self.db.dispose)

    def start(self, **options):
        return self.useFixture(
            daemons.ManagerProcess(
                self.bus,
                self.url,
                {'manager': {'workers': 1}, **options},
                env={'CONSOLED_CONCURRENCY': self.concurrency},
            )
        )

    def names(self, within=managers.ALIVE_WITHIN):
        return {manager.name for manager in managers.list_alive(self.db, within=within)}

    def test_a_manager_is_listed_until_it_stops(self):
        one, other = self.start(), self.start()
        wait_until(lambda: self.names() == {one.host, other.host}, what='their heartbeats')
        self.assert_check('Managers', SUCCESS, one.host, other.host)
        self.assertEqual(0, one.stop())
        self.assertEqual({other.host}, self.names())
        loud = [line for line in one.log().splitlines() if 'WARNING' in line or 'ERROR' in line]
        self.assertEqual([], loud)

    def test_a_killed_manager_is_listed_until_the_limit(self):
        killed = self.start()
        wait_until(self.names, what='its heartbeat')
        killed.kill()
        self.assertEqual({killed.host}, self.names())
        past = sa.update(models.console_manager).values(seen_at=clock.utc_after(-managers.ALIVE_WITHIN))
        self.db.single(lambda conn: conn.execute(past))
        self.assertEqual(set(), self.names())
        self.assertEqual({killed.host}, self.names(within=3600))
        self.assert_check('Managers', WARNING, 'None has sent a heartbeat')

    def test_a_reloaded_manager_stays_listed(self):
        manager = self.start()
        before = wait_until(self.last_heartbeat, what='its heartbeat')
        manager.signal(daemons.signal.SIGHUP)
        if self.concurrency == 'threading':  # the housekeeper is replaced
            wait_until(
                lambda: self.last_heartbeat() not in (None, before), what='the heartbeat of its successor'
            )
        self.assertEqual({manager.host}, self.names())

    def last_heartbeat(self):
        statement = sa.select(models.console_manager.c.seen_at)
        return self.db.single(lambda conn: conn.execute(statement).scalar())


class EventletDaemonTest(DaemonTest):
    concurrency = 'eventlet'


class DaemonBeforeTheUpgradeTest(StatusCase):
    def test_it_starts_and_stops_and_warns_once_of_the_old_schema(self):
        url = base.database_url(self, 'postgresql')
        db = Database(url)
        self.addCleanup(db.dispose)
        manager = daemons.ManagerProcess(base.transport_url(self), url, {'manager': {'workers': 1}})
        manager._prepare = lambda: migration.upgrade(db, '0003')
        self.useFixture(manager)
        wait_until(lambda: 'run consoled-manage db upgrade' in manager.log(), what='the warning')
        self.assertEqual(0, manager.stop())
        self.assertNotIn('Traceback', manager.log())
        self.assertEqual(1, manager.log().count('WARNING'))
