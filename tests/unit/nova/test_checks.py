# SPDX-License-Identifier: Apache-2.0
"""What is said about a Nova that ``[nova]`` describes. Grants and real brokers: tests/nova/test_views.py."""

import oslo_messaging
import sqlalchemy as sa
import testtools

from consoled.db.engine import Database
from consoled.nova import checks, database
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures
from tests.unit.nova import base
from tests.unit.nova.test_compute import FakeCompute


class Uptime(FakeCompute):
    def get_host_uptime(self, ctxt):
        self.asked.append(ctxt)
        if isinstance(self.answer, Exception):
            raise self.answer
        return 'up 1 day'


class DatabaseTest(testtools.TestCase, base.NovaTables):
    def setUp(self):
        super().setUp()
        self.make_nova()

    def rename(self, *statements):
        for statement in statements:
            self.run_in_nova(sa.text(statement))

    def said(self):
        found = checks.check_database(self.tables)
        return found.level, found.text

    def test_each_column_that_is_read_is_tried(self):
        self.assertEqual(checks.Level.SUCCESS, self.said()[0])
        for table in database.TABLES:
            for column in table.c:
                self.rename(f'ALTER TABLE {table.name} RENAME COLUMN {column.name} TO other')
                level, text = self.said()
                self.assertEqual(checks.Level.FAILURE, level)
                self.assertIn(f'Cannot be read: {table.name}.{column.name}. ', text)
                self.assertIn('GRANT SELECT on', text)
                self.rename(f'ALTER TABLE {table.name} RENAME COLUMN other TO {column.name}')

    def test_tables_that_are_missing(self):
        self.rename('DROP TABLE instances')
        self.assertIn('Cannot be read: instances. ', self.said()[1])
        self.rename('DROP TABLE console_auth_tokens')
        self.assertIn('Cannot be read: console_auth_tokens, instances. ', self.said()[1])

    def test_a_database_that_does_not_answer(self):
        away = Database('mysql+pymysql://u:canary@127.0.0.1:1/nova', retry_time=0)
        found = checks.check_database(away)
        self.assertEqual(checks.Level.FAILURE, found.level)
        self.assertIn('[nova] connection', found.text)
        self.assertNotIn('canary', found.text)
        self.assertEqual(checks.Level.WARNING, checks.check_clock(away, self.tables).level)
        self.assertEqual([], checks.list_hosts(away))

    def test_an_account_that_may_write(self):
        found = checks.check_account(self.tables)
        self.assertEqual(checks.Level.WARNING, found.level)
        for table in ('console_auth_tokens', 'instances'):
            for verb in ('INSERT', 'UPDATE', 'DELETE'):
                self.assertIn(f'{verb} {table}', found.text)
        self.assertEqual([], self.tables.single(lambda conn: conn.execute(sa.select(base.INSTANCES)).all()))

    def test_an_account_that_may_not(self):
        self.rename('DROP TABLE instances', 'DROP TABLE console_auth_tokens')
        self.assertEqual(checks.Level.SUCCESS, checks.check_account(self.tables).level)

    def test_hosts_that_have_instances(self):
        for number in range(8):
            self.add_instance(f'cmp{number}')
            self.add_instance(f'cmp{number}')
        self.add_instance('gone', deleted=7)
        self.add_instance(None)
        hosts = checks.list_hosts(self.tables)
        self.assertEqual((5, 5), (len(hosts), len(set(hosts))))
        self.assertEqual(set(), set(hosts) - {f'cmp{number}' for number in range(8)})


class ClockTest(testtools.TestCase, base.NovaTables):
    def test_clocks_are_compared(self):
        self.make_nova()
        ours = checks.clock.now(self.tables)
        for ahead, level, said in (
            (0, checks.Level.SUCCESS, 'agree'),
            (4, checks.Level.SUCCESS, 'agree'),
            (60, checks.Level.WARNING, '60 s ahead of'),
            (-3600, checks.Level.WARNING, '3600 s behind'),
        ):
            found = checks.compare_clocks(ours.timestamp() + ahead, ours.timestamp())
            self.assertEqual(level, found.level)
            self.assertIn(said, found.text)
        self.assertEqual(checks.Level.SUCCESS, checks.check_clock(self.tables, self.tables).level)


class BusTest(testtools.TestCase, base.NovaTables):
    def setUp(self):
        super().setUp()
        self.make_nova()

    def conf(self, **options):
        return self.useFixture(fixtures.Conf(transport_url='fake:', **options)).conf

    def test_compute_hosts_that_answer_and_that_do_not(self):
        conf = self.conf(manager__check_port_timeout=1)
        transport = get_transport(conf)
        self.addCleanup(transport.cleanup)
        compute = Uptime()
        target = oslo_messaging.Target(exchange='nova', topic='compute', server='cmp1')
        server = oslo_messaging.get_rpc_server(transport, target, [compute], executor='threading')
        server.start()
        self.addCleanup(server.wait)
        self.addCleanup(server.stop)
        api = checks.NovaComputeAPI.from_conf(conf, transport)
        self.assertIsNone(checks._silence(api, 'cmp1', 5))
        compute.answer = NotImplementedError()  # an answer all the same
        self.assertIsNone(checks._silence(api, 'cmp1', 5))
        self.assertEqual('no answer in time', checks._silence(api, 'cmp2', 0.1))

    def test_what_is_said_of_them(self):
        for silence, level, said in (
            ({}, checks.Level.WARNING, 'None was asked'),
            ({'a': None, 'b': None}, checks.Level.SUCCESS, 'answers: a, b'),
            ({'a': None, 'b': 'late'}, checks.Level.WARNING, 'b (late)'),
            ({'a': 'late', 'b': 'late'}, checks.Level.FAILURE, 'a (late), b (late)'),
        ):
            found = checks._check_hosts(silence)
            self.assertEqual(level, found.level)
            self.assertIn(said, found.text)

    def test_what_is_said_of_the_bus(self):
        conf = self.conf()
        for reason, said in (
            ('PRECONDITION_FAILED', '?rabbit_quorum_queue=true'),
            ('AccessRefused', 'refuses the user'),
            ('NotAllowed', 'refuses the user'),
            ('no answer in time', 'cannot be reached (no answer in time)'),
        ):
            self.assertIn(said, checks._bus_advice(conf, '[nova] transport_url', reason))

    def test_options_that_cannot_be_used(self):
        for options, title, named in (
            ({'nova__connection': 'canary'}, 'Nova database', '[nova] connection'),
            (
                {'nova__connection': self.nova_url, 'nova__transport_url': 'canary'},
                'Nova message bus',
                '[nova] transport_url',
            ),
        ):
            found = checks.inspect(self.conf(**options), None)[-1]
            self.assertEqual((title, checks.Level.FAILURE), (found.title, found.level))
            self.assertIn(named, found.text)
            self.assertNotIn('canary', found.text)
