# SPDX-License-Identifier: Apache-2.0
"""What operators see and do with consoled in front of an unmodified Nova, by the programs themselves."""

import datetime
import json
import re

import sqlalchemy as sa

from consoled import exception
from consoled.db import models
from consoled.testing import daemons
from tests.functional import base as functional_base
from tests.functional.test_cli import ToolsCase
from tests.nova import base

SUCCESS, WARNING, FAILURE = 0, 1, 2  # of oslo.upgradecheck


class ViewsCase(base.NovaTestCase, ToolsCase):
    """A cell of Nova for all tests of a class, and a database of consoled for each."""

    query = ''  # of the URL of Nova's bus

    def setUp(self):
        super().setUp()
        self.bus = self.nova.bus + self.query
        self.database_url = functional_base.database_url(self, 'mariadb')
        self.guest = self.nova.add_guest()

    def configure_nova(self, **changes):
        """Write the configuration file of a manager in front of Nova."""
        options = {'connection': self.nova.reader, **changes}
        self.configure(self.bus, self.database_url)
        lines = ''.join(f'{name} = {value}\n' for name, value in options.items())
        with self.config_file.open('a') as file:
            file.write(f'[nova]\n{lines}')


class ConsolectlTest(ViewsCase):
    def setUp(self):
        super().setUp()
        self.configure_nova()
        self.manager = self.useFixture(
            daemons.ManagerProcess(self.bus, self.database_url, {'nova': {'connection': self.nova.reader}})
        )
        self.connect(self.bus)

    def issued(self, *args, age=60, guest=None):
        """Return a token that Nova has issued ``age`` seconds ago."""
        token = self.nova.authorize(guest or self.guest, *args)
        issued = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age)
        self.nova.execute(
            f"UPDATE console_auth_tokens SET created_at = '{issued:%Y-%m-%d %H:%M:%S}'"
            f" WHERE token_hash = SHA2('{token}', 256)"
        )
        return token

    def assert_void(self, token):
        self.assertRaises(exception.InvalidToken, self.proxy.open, token)

    def test_sessions_are_listed_and_cut(self):
        token = self.issued(age=0)
        session = self.proxy.open(token)
        [row] = self.rows('session', 'list', '--project', 'project', '--instance', self.guest)
        self.assertEqual(
            (session.id, 'novnc', base.COMPUTE_HOST, base.ADDRESS, 5901, None),
            tuple(row[name] for name in ('id', 'console_type', 'compute_host', 'host', 'port', 'user_id')),
        )
        self.assertEqual({'tokens': 1, 'sessions': 1}, self.rows('session', 'cut', session.id))
        self.assertEqual((session.id, 'operator'), self.proxy.cuts.get(timeout=60))
        self.assert_void(token)
        self.proxy.open(self.issued(age=0))  # the next one that Nova issues

    def test_all_of_an_instance_a_project_or_a_compute_host(self):
        self.nova.call('update_instance', self.guest, launched_in=-3600)
        for filters in (
            ('--instance', self.guest),
            ('--project', 'project'),
            ('--compute-host', base.COMPUTE_HOST),
            ('--project', 'project', '--compute-host', base.COMPUTE_HOST),
        ):
            used, unused = self.issued(), self.issued()
            other = self.issued(guest=self.other_guest())
            session = self.proxy.open(used)
            counts = self.rows('revoke', *filters, '--reason', 'tenant_gone')
            self.assertEqual({'tokens': 1, 'sessions': 1}, counts)
            self.assertEqual((session.id, 'tenant_gone'), self.proxy.cuts.get(timeout=60))
            self.assert_void(used)
            self.assert_void(unused)
            if filters[0] == '--instance':
                self.proxy.open(other)
            self.proxy.open(self.issued(age=-5))  # one that Nova issues later
            self.forget_all()

    def forget_all(self):
        """Empty the tables of consoled."""
        engine = sa.create_engine(self.database_url, poolclass=sa.NullPool)
        with engine.begin() as conn:
            for table in (models.console_session, models.instances, models.legacy_void):
                conn.execute(sa.delete(table))

    def other_guest(self):
        guest = self.nova.add_guest()
        self.nova.call('update_instance', guest, launched_in=-3600)
        return guest

    def test_nova_does_not_know_users(self):
        token = self.issued()
        session = self.proxy.open(token)
        for filters in (('--user', 'owner'), ('--user', 'owner', '--project', 'project')):
            done = self.ctl('revoke', *filters)
            self.assert_ended(done, 1, 'revoke_incomplete')
            self.assertIn('Deleted 0 tokens and cut 0 sessions, but none of nova', done.stderr)
            self.assertIn('--project', done.stderr)
        self.assertEqual([session.id], [row['id'] for row in self.rows('session', 'list')])

    def test_its_tokens_are_not_those_of_an_old_consoleauth(self):
        self.proxy.open(self.issued())
        done = self.run_tool('status', 'upgrade', 'check', '--json')
        found = {check['check']: check for check in json.loads(done.stdout)['checks']}
        self.assertEqual('Off, and never used.', found['Legacy consoleauth']['details'])


class StatusCase(ViewsCase):
    def check(self, **changes):
        """Return result and details of the checks about Nova by the rest of their titles."""
        self.configure_nova(**changes)
        done = self.run_tool('status', 'upgrade', 'check', '--json')
        self.assertEqual('', done.stderr)
        for secret in ('canary-of-reader', sa.make_url(self.nova.database).password):
            self.assertNotIn(secret, done.stdout)
        found = [check for check in json.loads(done.stdout)['checks'] if check['check'].startswith('Nova ')]
        return {check['check'][5:]: (check['result'], check['details']) for check in found}

    def assert_checked(self, found, title, result, *said):
        self.assertEqual(result, found[title][0], found)
        for text in said:
            self.assertIn(text, found[title][1])


class StatusTest(StatusCase):
    def test_all_is_well(self):
        found = self.check()
        self.assertEqual(['database', 'account', 'clock', 'message bus', 'compute hosts'], list(found))
        self.assertEqual({SUCCESS}, {result for result, _ in found.values()}, found)
        self.assertIn(base.COMPUTE_HOST, found['compute hosts'][1])
        found = self.check(transport_url=f'{self.nova.bus}?rabbit_quorum_queue=true')
        self.assertEqual({SUCCESS}, {result for result, _ in found.values()}, found)

    def test_an_account_with_too_few_rights(self):
        self.nova.grant('REVOKE', 'FROM')
        self.addCleanup(self.nova.grant)
        found = self.check()
        self.assertEqual(['database', 'message bus'], list(found))
        self.assert_checked(found, 'database', FAILURE, 'does not exist, or refuses', '[nova] connection')
        self.nova.grant()
        user = sa.make_url(self.nova.reader).username
        self.nova.execute(f"REVOKE SELECT ON instances FROM {user}@'%%'")
        self.assert_checked(self.check(), 'database', FAILURE, 'Cannot be read: instances.', 'GRANT SELECT')
        self.nova.execute(f"GRANT SELECT (id, uuid, host, deleted) ON instances TO {user}@'%%'")
        self.assert_checked(self.check(), 'database', FAILURE, 'instances.project_id, instances.launched_at')

    def test_an_account_that_may_write(self):
        found = self.check(connection=self.nova.database)
        self.assert_checked(found, 'database', SUCCESS)
        self.assert_checked(found, 'account', WARNING, 'INSERT console_auth_tokens', 'DELETE instances')

    def test_a_database_of_something_else(self):
        found = self.check(connection=functional_base.database_url(self, 'mariadb'))
        self.assert_checked(found, 'database', FAILURE, 'console_auth_tokens', 'not nova_api')

    def test_a_database_that_does_not_answer(self):
        url = sa.make_url(self.nova.reader).set(port=1).render_as_string(hide_password=False)
        self.assert_checked(self.check(connection=url), 'database', FAILURE, 'does not answer')

    def test_a_bus_that_is_away_or_refuses(self):
        for url, said in (
            (re.sub(r':\d+/', ':1/', self.bus), 'cannot be reached'),
            (self.bus.replace('guest:guest@', 'guest:wrong@'), 'refuses the user'),
            (re.sub(r'/[^/]*$', '/no-such-vhost', self.bus), 'refuses the user'),
        ):
            found = self.check(transport_url=url)
            self.assert_checked(found, 'message bus', FAILURE, said, '[nova] transport_url')
            self.assertNotIn('compute hosts', found)

    def test_compute_hosts_that_are_silent(self):
        with self.nova.compute.stopped():
            self.assert_checked(self.check(), 'compute hosts', FAILURE, base.COMPUTE_HOST, 'get 503')
        elsewhere = self.nova.add_guest()
        self.nova.call('update_instance', elsewhere, host='cmp2')
        self.addCleanup(self.nova.call, 'destroy_instance', elsewhere)
        found = self.check()
        self.assert_checked(found, 'compute hosts', WARNING, 'cmp2 (MessageUndeliverable)')
        self.assertNotIn(base.COMPUTE_HOST, found['compute hosts'][1])
        self.assert_checked(self.check(exchange='other'), 'compute hosts', FAILURE, '[nova] exchange')

    def schema(self):
        """Return the names of the tables in Nova's database, and the revision of its own migrations."""
        engine = sa.create_engine(self.nova.database, poolclass=sa.NullPool)
        with engine.connect() as conn:
            names = sa.inspect(conn).get_table_names()
            [versions] = {'alembic_version', 'migrate_version'} & set(names)
            return names, conn.exec_driver_sql(f'SELECT * FROM {versions}').all()

    def test_consoled_manage_changes_nothing_in_novas_database(self):
        before = self.schema()
        self.configure(self.bus, self.nova.database)
        for command in (('db', 'upgrade'), ('db', 'check'), ('db', 'version'), ('purge',)):
            done = self.manage(*command)
            self.assert_ended(done, 1, 'database_foreign')
            self.assertIn('agent_builds', done.stderr)
            self.assertNotIn(sa.make_url(self.nova.database).password, done.stderr)
        self.assertEqual(before, self.schema())

    def test_a_manager_does_not_start_on_novas_database(self):
        before = self.schema()
        for nova, said in (
            ('', 'is the database of another program'),
            (f'[nova]\nconnection = {self.nova.reader}\n', 'name one database'),
        ):
            self.configure(self.bus, self.nova.database)
            with self.config_file.open('a') as file:
                file.write(nova)
            done = self.run_tool('manager')
            self.assertEqual(2, done.returncode, done.stderr)
            self.assertRegex(done.stderr, rf'(?m)^consoled: configuration_error: \[.*{said}')
            self.assertNotIn(sa.make_url(self.nova.database).password, done.stderr)
        self.assertEqual(before, self.schema())


class QuorumStatusTest(StatusCase):
    """Nova's queues are quorum queues; durable ones where its oslo.messaging has no others."""

    kind = 'rabbit_quorum_queue' if base.MAJOR > 26 else 'amqp_durable_queues'
    rabbit = f'{kind} = true'
    query = f'?{kind}=true'

    def test_the_bus_needs_an_option(self):
        """A client with either option works with queues of any kind."""
        for query, result in (
            ('', FAILURE),
            ('?rabbit_quorum_queue=true', SUCCESS),
            ('?amqp_durable_queues=true', SUCCESS),
        ):
            found = self.check(transport_url=self.nova.bus + query)
            said = ['exchange nova', 'rabbit_quorum_queue=true'] if result is FAILURE else []
            self.assert_checked(found, 'message bus', result, *said)
            if not said:
                self.assert_checked(found, 'compute hosts', SUCCESS)
