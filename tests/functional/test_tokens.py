# SPDX-License-Identifier: Apache-2.0
"""Tokens and consoles over a real bus, on each database: authorize, validate, free ports, cleaning."""

import datetime
from urllib import parse

from consoled import exception, objects, token
from consoled.rpc.replies import Closing, Revocation
from consoled.testing.fixtures import wait_until
from tests.functional import base


class _Tokens:
    options = {'manager__check_port': False}

    # authorize and validate

    def test_authorize_then_validate(self):
        granted = self.authorize(console_type='novnc')
        self.assertTrue(token.well_formed(granted.token))
        query = dict(parse.parse_qsl(parse.urlsplit(granted.access_url).query))
        self.assertEqual(f'?token={granted.token}', query['path'])
        lifetime = granted.expires - datetime.datetime.now(datetime.UTC)
        self.assertTrue(datetime.timedelta(minutes=9) < lifetime <= datetime.timedelta(minutes=10))

        valid = self.api.validate(self.context, granted.token)
        self.assertIsNone(valid.token)
        self.assertIsNone(valid.access_url)
        for field in ('instance_uuid', 'console_type', 'host', 'port', 'compute_host', 'user_id', 'expires'):
            self.assertEqual(getattr(granted, field), getattr(valid, field), field)

    def test_invariant_1_the_database_has_the_hash_only(self):
        granted = self.authorize()
        rows = self.rows('SELECT * FROM console_auth_token')
        self.assertIn(token.hashed(granted.token), str(rows))
        for table in ('instances', 'console_connection', 'console_auth_token'):
            self.assertNotIn(granted.token, str(self.rows(f'SELECT * FROM {table}')))

    def test_two_users_may_have_tokens_for_one_console(self):
        first = self.authorize(user_id='user-1')
        second = self.authorize(user_id='user-2')
        self.assertEqual('user-1', self.api.validate(self.context, first.token).user_id)
        self.assertEqual('user-2', self.api.validate(self.context, second.token).user_id)

    def test_user_and_project_come_from_the_context_if_the_grant_has_none(self):
        granted = self.authorize(user_id=None, project_id=None)
        self.assertEqual(('user-1', 'project-1'), (granted.user_id, granted.project_id))
        request_ids = self.rows('SELECT request_id FROM console_auth_token')
        self.assertEqual([(self.context.request_id,)], [tuple(row) for row in request_ids])

    def test_an_unknown_token_is_refused(self):
        for bad in ('x' * 43, 'short', 'a' * 5000, 'ä' * 40, "' OR 1=1 --" * 3):
            self.assert_refused('invalid_token', self.api.validate, self.context, bad)

    def test_invariant_2_a_token_expires(self):
        granted = self.authorize(ttl=1)
        self.assertEqual(10000, self.api.validate(self.context, granted.token).port)

        def expired():
            try:
                self.api.validate(self.context, granted.token)
            except exception.InvalidToken:
                return True
            return False

        wait_until(expired, what='expiry')
        proxy = self.proxy()
        self.assert_refused('invalid_token', proxy.open, granted.token)

    def test_a_lifetime_over_the_limit_is_refused(self):
        self.assert_refused('ttl_too_long', self.authorize, ttl=86401)
        self.assertEqual(0, self.count('console_auth_token'))

    def test_bad_grants_change_nothing(self):
        for changes in (
            {'access_url_base': 'ftp://example.org/'},
            {'access_url_base': 'javascript:alert(1)'},
            {'token': 'x' * 43},
            {'access_url': 'https://example.org/'},
            {'host': None},
        ):
            self.assert_refused('invalid_console', self.authorize, **changes)
        self.assert_refused(
            'invalid_argument', self.api._call, self.context, 'authorize', console_auth_token='x'
        )
        self.assert_refused('invalid_argument', self.api._call, self.context, 'authorize')
        self.assertEqual(0, self.count('instances'))
        self.assertEqual(0, self.count('console_auth_token'))

    def test_a_console_of_another_type_replaces_the_old_one(self):
        """A guest is rebuilt with another console on the same port: an old token must not open it."""
        old = self.authorize(console_type='novnc')
        new = self.authorize(console_type='spice-html5', options={'tls_port': '5901'})
        self.assert_refused('invalid_token', self.api.validate, self.context, old.token)
        valid = self.api.validate(self.context, new.token)
        self.assertEqual(('spice-html5', {'tls_port': '5901'}), (valid.console_type, valid.options))

    def test_a_new_base_url_keeps_the_tokens(self):
        old = self.authorize()
        new = self.authorize(access_url_base='https://other.example.org/')
        self.assertTrue(new.access_url.startswith('https://other.example.org/'))
        for each in (old, new):
            self.assertEqual(10000, self.api.validate(self.context, each.token).port)

    def test_an_instance_on_another_compute_host_has_lost_its_old_consoles(self):
        old = self.authorize(10000)
        self.authorize(10001, compute_host='node-2')
        self.assert_refused('invalid_token', self.api.validate, self.context, old.token)
        self.assertEqual([10001], self.ports())

    def test_only_the_contract_can_be_called(self):
        granted = self.authorize()
        for method in ('_cut', 'observe', '__init__', '_db', 'target', 'no_such_method'):
            self.assert_refused('internal_error', self.api._call, self.context, method, session_ids=[])
        self.assertEqual(10000, self.api.validate(self.context, granted.token).port)

    # the next free port

    def test_free_ports_and_the_next_free_one(self):
        self.define(10000, 10001, 10002)
        proxy = self.proxy()
        free = self.api.list_free_ports(self.context, self.instance)
        self.assertEqual([10000, 10001, 10002], [console.port for console in free.objects])

        granted = self.authorize(None)
        self.assertEqual((base.ADDRESS, 10000), (granted.host, granted.port))
        self.assertIn(granted.token, granted.access_url)
        proxy.open(granted.token)
        free = self.api.list_free_ports(self.context, self.instance)
        self.assertEqual([10001, 10002], [console.port for console in free.objects])

    def test_a_port_with_a_token_of_another_user_is_chosen_last(self):
        self.define(10000, 10001)
        ports = [self.authorize(None, user_id=f'user-{n}').port for n in range(3)]
        self.assertEqual([10000, 10001, 10000], ports)

    def test_one_user_asking_again_gets_the_same_port(self):
        self.define(10000, 10001)
        self.assertEqual([10000, 10000], [self.authorize(None).port for _ in range(2)])

    def test_all_ports_connected(self):
        self.define(10000)
        self.proxy().open(self.authorize(None).token)
        error = self.assert_refused('console_ports_exhausted', self.authorize, None)
        self.assertIn(self.instance, str(error))
        self.assertEqual([], self.api.list_free_ports(self.context, self.instance).objects)

    def test_the_next_port_of_an_unknown_instance(self):
        self.assert_refused('instance_not_found', self.authorize, None)
        self.assert_refused('instance_not_found', self.api.list_free_ports, self.context, self.instance)
        self.define(10000)
        self.assert_refused('console_ports_exhausted', self.authorize, None, console_type='novnc')

    # definitions

    def test_a_definition_makes_these_and_only_these(self):
        self.define(10000, 10001)
        old = self.authorize(10000)
        kept = self.authorize(10001)
        self.define(10001, 10002)
        self.assert_refused('invalid_token', self.api.validate, self.context, old.token)
        self.assertEqual(10001, self.api.validate(self.context, kept.token).port)

    def test_invariant_6_defining_again_changes_nothing(self):
        self.define(10000)
        granted = self.authorize(10000)
        before = self.rows('SELECT * FROM console_connection')
        for _ in range(3):
            self.define(10000)
        self.assertEqual(10000, self.api.validate(self.context, granted.token).port)
        self.assertEqual(before, self.rows('SELECT * FROM console_connection'))

    def test_a_late_definition_by_the_host_that_an_instance_has_left(self):
        self.define(10000, compute_host='node-2')
        empty = objects.ConsoleConnectionList(objects=[])
        self.api.define_consoles(self.context, self.instance, 'node-1', empty)
        other = base.new_uuid()
        self.define(1, instance=other)  # casts run concurrently, and the first one is done by then
        wait_until(lambda: self.ports(other) == [1])
        self.assertEqual([10000], self.ports())

    def test_a_definition_for_another_instance_is_refused(self):
        foreign = objects.ConsoleConnectionList(objects=[base.a_console(base.new_uuid(), 1)])
        self.assert_refused(
            'invalid_argument',
            self.api._call,
            self.context,
            'define_consoles',
            instance_uuid=self.instance,
            compute_host=base.COMPUTE_HOST,
            consoles=foreign,
        )
        self.assertEqual(0, self.count('instances'))

    # revocation and cleaning

    def test_revoke_deletes_what_matches_and_nothing_else(self):
        mine = self.authorize(user_id='user-1', project_id='a')
        other = self.authorize(user_id='user-2', project_id='A')
        self.assertEqual(
            Revocation(tokens=1, sessions=0), self.api.revoke(self.context, 'test', project_id='a')
        )
        self.assert_refused('invalid_token', self.api.validate, self.context, mine.token)
        self.assertEqual('user-2', self.api.validate(self.context, other.token).user_id)
        both = {'user_id': 'user-2', 'compute_host': 'node-9'}
        self.assertEqual(Revocation(tokens=0, sessions=0), self.api.revoke(self.context, 'test', **both))
        both['compute_host'] = base.COMPUTE_HOST
        self.assertEqual(Revocation(tokens=1, sessions=0), self.api.revoke(self.context, 'test', **both))
        self.assertEqual(Revocation(tokens=0, sessions=0), self.api.revoke(self.context, 'test', **both))

    def test_revoke_needs_a_filter(self):
        self.authorize()
        self.assert_refused('invalid_argument', self.api.revoke, self.context, 'test')
        self.assert_refused(
            'invalid_argument', self.api.revoke, self.context, 'test', session_id=self.instance, user_id='u'
        )
        self.assert_refused('invalid_argument', self.api.revoke, self.context, 'test', colour='red')
        self.assertEqual(1, self.count('console_auth_token'))

    def test_invariant_11_deleting_is_complete(self):
        self.define(10000, 10001)
        proxy = self.proxy(receive_cuts=True)
        session = proxy.open(self.authorize(10000).token)
        granted = self.authorize(10001)
        other = self.api.authorize(self.context, base.a_grant(base.new_uuid(), 10000))
        for _ in range(2):  # it may be repeated
            self.api.clean_console_auths_for_instance(self.context, self.instance)
        self.assertEqual((session.id, 'instance_gone'), proxy.cuts.get(timeout=30))
        wait_until(lambda: not self.ports(), what='the cleaning')
        self.assert_refused('invalid_token', self.api.validate, self.context, granted.token)
        self.api.close_session(self.context, Closing(session.id, 'instance_gone'))
        for table, kept in (('instances', 1), ('console_connection', 1), ('console_auth_token', 1)):
            self.assertEqual(kept, self.count(table), table)
        self.assertEqual(0, self.count('console_session'))
        self.assertEqual(10000, self.api.validate(self.context, other.token).port)

    def test_cleaning_a_host_deletes_its_expired_tokens_only(self):
        self.authorize(ttl=1)
        elsewhere = base.a_grant(base.new_uuid(), 1, compute_host='node-2')
        self.api.authorize(self.context, elsewhere, 1)
        alive = self.authorize()
        clock = {'mariadb': 'UTC_TIMESTAMP(6)', 'postgresql': "timezone('UTC', now())"}.get(
            self.engine, "strftime('%Y-%m-%d %H\\:%M\\:%f', 'now')"
        )
        expired = f'SELECT COUNT(*) FROM console_auth_token WHERE expires <= {clock}'
        wait_until(lambda: self.rows(expired)[0][0] == 2, what='expiry')
        self.api.clean_expired_console_auths_for_host(self.context, base.COMPUTE_HOST)
        wait_until(lambda: self.count('console_auth_token') == 2, what='the cleaning')
        self.assertEqual(10000, self.api.validate(self.context, alive.token).port)
        hosts = self.rows('SELECT compute_host FROM console_auth_token ORDER BY compute_host')
        self.assertEqual(['node-1', 'node-2'], [row[0] for row in hosts])


class MariaDBTokensTest(_Tokens, base.CellTestCase):
    engine = 'mariadb'


class PostgreSQLTokensTest(_Tokens, base.CellTestCase):
    engine = 'postgresql'


class SQLiteTokensTest(_Tokens, base.CellTestCase):
    engine = 'sqlite'
