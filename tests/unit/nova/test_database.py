# SPDX-License-Identifier: Apache-2.0
"""What is read from Nova's cell database."""

import fixtures as fixtures_library
import testtools
from sqlalchemy.dialects import mysql, postgresql

from consoled import exception
from consoled import token as tokens
from consoled.nova import database
from consoled.testing import fixtures
from tests.functional.base import new_uuid
from tests.unit.nova import base


class FindTokenTest(testtools.TestCase, base.NovaTables):
    def setUp(self):
        super().setUp()
        self.make_nova()

    def find(self, token):
        return self.nova.find_token(tokens.hashed(token))

    def test_a_live_token_of_an_instance_that_exists(self):
        instance = self.add_instance()
        found = self.find(self.add_token(instance, ttl=600, internal_access_path='/path'))
        self.assertEqual((instance, 'novnc'), (found.instance_uuid, found.console_type))
        self.assertEqual(('192.0.2.10', 5900, '/path'), (found.host, found.port, found.internal_access_path))
        self.assertEqual(('cmp1', 'project-1'), (found.compute_host, found.project_id))
        self.assertTrue(540 < found.expires_in <= 600)
        self.assertTrue(base.now(-60) <= found.created_at <= base.now())

    def test_neither_expired_tokens_nor_those_of_deleted_instances(self):
        self.assertIsNone(self.find(self.add_token(self.add_instance(), ttl=-1)))
        self.assertIsNone(self.find(self.add_token(self.add_instance(deleted=7))))
        self.assertIsNone(self.find(self.add_token(new_uuid())))
        self.assertIsNone(self.find(new_uuid()))

    def test_a_database_that_is_not_novas_is_unavailable(self):
        base.METADATA.drop_all(self.tables.transactional_engine)
        logged = self.useFixture(fixtures_library.FakeLogger('consoled.nova'))
        self.assertRaises(exception.DatabaseUnavailable, self.find, new_uuid())
        self.assertIn('[nova] connection refuses a statement: no such table', logged.output)

    def test_expiry_is_decided_by_the_clock_of_the_database(self):
        for dialect, clock in ((mysql, 'UNIX_TIMESTAMP()'), (postgresql, 'EXTRACT(EPOCH FROM now())')):
            text = str(database._SELECT_TOKEN.compile(dialect=dialect.dialect()))
            self.assertIn(f'console_auth_tokens.expires > {clock}', text)


class FromConfTest(testtools.TestCase):
    def url(self, text):
        conf = self.useFixture(fixtures.Conf(nova__connection=text)).conf
        nova = database.NovaDatabase.from_conf(conf)
        self.addCleanup(nova.dispose)
        return nova._db.transactional_engine.url

    def test_a_url_without_time_limits_gets_them(self):
        url = self.url('mysql+pymysql://nova:secret@127.0.0.1:3306/nova?charset=utf8')
        self.assertEqual({'charset', 'connect_timeout', 'read_timeout', 'write_timeout'}, set(url.query))

    def test_the_driver_that_consoled_brings_for_postgresql_gets_its_own(self):
        url = self.url('postgresql+psycopg://nova:secret@127.0.0.1/nova')
        self.assertIn('statement_timeout', url.query['options'])
        self.assertIn('tcp_user_timeout', url.query)

    def test_a_plugin_of_novas_own_sqlalchemy(self):
        """Devstack counts queries with one, which is installed for its services."""
        url = self.url('mysql+pymysql://nova:secret@127.0.0.1/nova?charset=utf8&plugin=dbcounter')
        self.assertEqual('utf8', url.query['charset'])
        self.assertNotIn('plugin', url.query)

    def test_time_limits_of_the_operator_stay(self):
        url = self.url('mysql+pymysql://nova:secret@127.0.0.1:3306/nova?read_timeout=7')
        self.assertEqual('7', url.query['read_timeout'])

    def test_what_cannot_be_used_is_refused_without_its_password(self):
        for text in (
            'canary',
            'mysql+pymysql://nova:canary@1@127.0.0.1/nova',
            'nodb://nova:canary@h/nova',
            'oracle://nova:canary@h/nova',  # its driver is not installed
            'mysql+aiomysql://nova:canary@h/nova',
            'mysql+pymysql://nova:canary@h/nova?ssl_mode=canary',
            'mysql+pymysql://nova:canary@h/nova?read_timeout=canary',
            'postgresql+psycopg://nova:canary@h/nova?target=canary',
        ):
            error = self.assertRaises(ValueError, self.url, text)
            self.assertIn('[nova] connection', str(error))
            self.assertNotIn('canary', str(error))
