# SPDX-License-Identifier: Apache-2.0
"""The endpoint: proxies and their leases, revocation, cleaning, and what the old service calls."""

import datetime
import time

import sqlalchemy as sa

from consoled import exception, objects
from consoled import token as tokens
from consoled.db import models
from consoled.rpc import versions
from consoled.rpc.replies import Closing, Revocation
from consoled.sources import Issued
from consoled.testing.sources import MemoryTokenSource
from tests.functional import base as functional_base
from tests.unit.manager import base

SOURCE = 'consoleauth'


class SessionsTest(base.ManagerCase):
    def setUp(self):
        super().setUp()
        self.proxy_id = self.proxy()
        self.token = self.authorize(console_type='novnc').token

    def test_a_closed_session_is_counted_once(self):
        session = self.open(self.proxy_id, self.token)
        for _ in range(2):
            self.api.close_session(self.context, Closing(session.id, 'user_left', 10, 20))
        self.assertEqual(set(), self.sessions())
        self.assertEqual(1, self.counted('consoled_sessions_closed_total'))
        self.assertEqual(20, self.counted('consoled_session_bytes_total', direction='out'))

    def test_pages_of_sessions(self):
        opened = sorted(self.open(self.proxy_id, self.token).id for _ in range(5))
        found, marker = [], None
        while page := self.api.list_sessions(self.context, limit=2, marker=marker).objects:
            found += [each.id for each in page]
            marker = found[-1]
        self.assertEqual(opened, found)

    def test_all_filters_must_match(self):
        session = self.open(self.proxy_id, self.token)
        self.assertEqual({session.id}, self.sessions(user_id='user-1', compute_host=base.COMPUTE_HOST))
        self.assertEqual(set(), self.sessions(user_id='user-1', compute_host='node-9'))
        self.assertEqual({session.id}, self.sessions(proxy_id=self.proxy_id))

    def test_calls_are_counted_by_outcome(self):
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, tokens.mint())
        labels = {'method': 'validate', 'code': 'invalid_token'}
        self.assertEqual(1, self.counted('consoled_rpc_seconds_count', **labels))


class LeaseTest(base.ManagerCase):
    options = {'manager__lease': 30}

    def test_a_grant_has_the_configured_lease_and_the_databases_time(self):
        for grant in (
            self.api.register_proxy(self.context, functional_base.new_uuid(), 'proxy-1'),
            self.api.renew_lease(self.context, self.proxy()),
        ):
            self.assertEqual(30, grant.lease)
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(grant.now)
            self.assertTrue(abs(age.total_seconds()) < 30)

    def test_an_unknown_proxy_must_register(self):
        unknown = functional_base.new_uuid()
        self.assertRaises(exception.ProxyUnknown, self.api.renew_lease, self.context, unknown)

    def test_a_proxy_closes_its_own_sessions_only(self):
        token = self.authorize(console_type='novnc').token
        mine, other = self.proxy(), self.proxy('proxy-2')
        sessions = {self.open(each, token).id for each in (mine, other)}
        closed = [Closing(session_id, 'user_left') for session_id in sessions]
        self.api.renew_lease(self.context, mine, closed=closed)
        self.assertEqual(set(), self.sessions(proxy_id=mine))
        self.assertEqual(1, len(self.sessions(proxy_id=other)))

    def test_sessions_that_are_not_known_are_lost(self):
        proxy = self.proxy()
        now = self.api.renew_lease(self.context, proxy).now
        ghost = functional_base.new_uuid()
        renewal = self.api.renew_lease(self.context, proxy, sessions=[ghost], as_of=now)
        self.assertEqual({ghost: 'lease_lost'}, renewal.cut)

    def test_a_list_of_sessions_needs_its_moment(self):
        proxy = self.proxy()
        for given in ({'sessions': []}, {'as_of': '2026-01-01T00:00:00+00:00'}):
            error = self.assertRaises(
                exception.InvalidArgument, self.api.renew_lease, self.context, proxy, **given
            )
            self.assertEqual('as_of', error.kwargs['argument'])

    def test_a_wrong_closing_is_refused(self):
        for closing in (Closing('x', 'user_left'), Closing(functional_base.new_uuid(), 'x' * 65)):
            self.assertRaises(exception.InvalidArgument, self.api.close_session, self.context, closing)
            self.assertRaises(
                exception.InvalidArgument, self.api.renew_lease, self.context, self.proxy(), [closing]
            )


class RevokeTest(base.ManagerCase):
    def test_tokens_and_sessions_that_match(self):
        proxy = self.proxy()
        token = self.authorize(console_type='novnc').token
        session = self.open(proxy, token)
        kept = self.authorize(10001, user_id='user-2').token
        revoked = self.api.revoke(self.context, 'account closed', user_id='user-1')
        self.assertEqual(Revocation(tokens=1, sessions=1), revoked)
        self.assertEqual([(session.id, 'account closed')], self.proxies.cuts)
        self.assertEqual({session.id: 'account closed'}, self.api.renew_lease(self.context, proxy).cut)
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, token)
        self.api.validate(self.context, kept)

    def test_all_filters_must_match(self):
        self.authorize()
        nothing = Revocation(tokens=0, sessions=0)
        filters = {'user_id': 'user-1', 'compute_host': 'node-9'}
        self.assertEqual(nothing, self.api.revoke(self.context, 'test', **filters))
        filters['compute_host'] = base.COMPUTE_HOST
        self.assertEqual(1, self.api.revoke(self.context, 'test', **filters).tokens)
        self.assertEqual(nothing, self.api.revoke(self.context, 'test', **filters))

    def test_one_filter_is_needed_and_a_session_is_named_alone(self):
        for filters in ({}, {'session_id': functional_base.new_uuid(), 'user_id': 'user-1'}):
            self.assertRaises(exception.InvalidArgument, self.api.revoke, self.context, 'test', **filters)


class CleanTest(base.ManagerCase):
    def count(self, table):
        return self.db.single(
            lambda conn: conn.execute(sa.select(sa.func.count()).select_from(table)).scalar()
        )

    def test_an_instance_that_is_gone_leaves_nothing(self):
        self.define(10000)
        session = self.open(self.proxy(), self.authorize().token)
        self.api.clean_console_auths_for_instance(self.context, self.instance)
        for table in (models.instances, models.console_connection, models.console_auth_token):
            self.assertEqual(0, self.count(table))
        self.assertEqual([(session.id, 'instance_gone')], self.proxies.cuts)

    def test_an_instance_that_has_moved_is_left_alone(self):
        self.define(10000)
        self.api.clean_console_auths_for_instance(self.context, self.instance, 'node-9')
        self.assertEqual(1, self.count(models.instances))

    def test_expired_tokens_of_a_compute_host(self):
        self.authorize()
        self.authorize(10001)
        expired = models.console_auth_token.update().values(expires=datetime.datetime(2020, 1, 1))
        self.db.single(lambda conn: conn.execute(expired))
        self.api.clean_expired_console_auths_for_host(self.context, 'node-9')
        self.assertEqual(2, self.count(models.console_auth_token))
        self.api.clean_expired_console_auths_for_host(self.context, base.COMPUTE_HOST)
        self.assertEqual(0, self.count(models.console_auth_token))


class OldServiceTest(base.ManagerCase):
    def setUp(self):
        super().setUp()
        self.token = tokens.mint()
        self.sources.append(MemoryTokenSource())  # uses are counted while there is a source

    def authorize_issued(self, **changes):
        values = {
            'instance_uuid': self.instance,
            'console_type': 'novnc',
            'host': functional_base.ADDRESS,
            'port': 5900,
            'internal_access_path': None,
            'access_url_base': functional_base.BASE_URL,
            'issued_at': time.time(),
        }
        issued = Issued(**(values | changes))
        self.endpoint.authorize_issued(self.context, self.token, issued, SOURCE)

    def uses(self):
        return self.db.single(lambda conn: conn.execute(sa.select(models.legacy_use.c.uses)).scalar())

    def test_a_token_that_was_issued_there_is_valid_here(self):
        self.authorize_issued()
        grant = self.api.validate(self.context, self.token)
        self.assertEqual((5900, 'user-1'), (grant.port, grant.user_id))

    def test_its_console_must_not_be_another_one(self):
        self.define(5900)
        self.assertRaises(exception.InvalidConsole, self.authorize_issued)
        self.assertRaises(exception.InvalidConsole, self.authorize_issued, access_url_base='javascript:x')

    def test_the_console_and_its_url(self):
        self.authorize_issued()
        console, url = self.endpoint.check_issued(self.context, self.token, SOURCE)
        self.assertEqual(5900, console.port)
        self.assertIn(self.token, url)
        self.assertEqual(2, self.uses())
        self.assertRaises(
            exception.InvalidToken, self.endpoint.check_issued, self.context, tokens.mint(), SOURCE
        )

    def test_an_instance_that_has_lost_its_consoles(self):
        self.authorize_issued()
        session = self.open(self.proxy(), self.token)
        self.endpoint.revoke_issued(self.context, self.instance, SOURCE)
        self.assertEqual([(session.id, 'console_gone')], self.proxies.cuts)
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, self.token)


WRONG_VERSIONS = ('9.9', '1', 'x', None, 1.0, ['1.0'], '1' * 10**5)


class ServiceTest(base.ManagerCase):
    def backport(self, primitive, versions_wanted):
        return self.api.object_backport_versions(self.context, primitive, versions_wanted)

    def test_ping_says_the_version_of_the_contract(self):
        self.assertEqual(versions.RPC_VERSION, self.api._call(self.context, 'ping'))

    def test_an_older_form_of_an_object(self):
        console = functional_base.a_console(self.instance, 10000)
        primitive = self.backport(console, {'ConsoleConnection': '1.0'})
        self.assertEqual(10000, primitive.port)
        for wrong in (
            *(None, {}, {'ConsoleSession': '1.0'}, [], 'x'),
            *({'ConsoleConnection': version} for version in WRONG_VERSIONS),
            {**{f'X{number}': '1.0' for number in range(64)}, 'ConsoleConnection': '1.0'},
        ):
            self.assertRaises(exception.InvalidArgument, self.backport, console, wrong)
        self.assertRaises(exception.InvalidArgument, self.backport, 'text', {'ConsoleConnection': '1.0'})

    def test_free_ports_of_an_unknown_instance(self):
        self.assertRaises(exception.InstanceNotFound, self.api.list_free_ports, self.context, self.instance)

    def test_what_is_incomplete_is_refused(self):
        grant = objects.ConsoleAuthToken(instance_uuid=self.instance)
        self.assertRaises(exception.InvalidArgument, self.api.authorize, self.context, grant)
