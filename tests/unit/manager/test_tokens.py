# SPDX-License-Identifier: Apache-2.0
"""Authorizing tokens, finding them, and making them worthless."""

import contextlib
import datetime
import time

import fixtures as fixtures_library

from consoled import exception
from consoled import token as tokens
from consoled.db import models
from consoled.manager import tokens as manager_tokens
from consoled.sources import Issued
from consoled.testing.sources import MemoryTokenSource
from tests.functional import base as functional_base
from tests.unit.manager import base

TOKEN = '0f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'


def issued(instance_uuid, **changes):
    values = {
        'instance_uuid': instance_uuid,
        'console_type': 'novnc',
        'host': functional_base.ADDRESS,
        'port': 5900,
        'internal_access_path': None,
        'access_url_base': None,
        'issued_at': time.time(),
    }
    return Issued(**(values | changes))


class AuthorizeTest(base.ManagerCase):
    options = {'consoleauth__token_ttl': 300, 'consoleauth__max_token_ttl': 600}

    def lifetime(self, grant):
        now = self.api.register_proxy(self.context, functional_base.new_uuid(), 'clock').now
        return (grant.expires - datetime.datetime.fromisoformat(now)).total_seconds()

    def test_the_configured_lifetime_unless_the_caller_requests_another(self):
        self.assertAlmostEqual(300, self.lifetime(self.authorize()), delta=5)
        self.assertAlmostEqual(60, self.lifetime(self.authorize(ttl=60)), delta=5)
        self.assertAlmostEqual(600, self.lifetime(self.authorize(ttl=600)), delta=5)

    def test_a_lifetime_over_the_limit_is_refused(self):
        error = self.assertRaises(exception.TTLTooLong, self.authorize, ttl=601)
        self.assertEqual({'ttl': 601, 'limit': 600}, error.kwargs)

    def test_user_and_project_of_the_context_unless_the_grant_names_others(self):
        grant = self.authorize(user_id=None, project_id=None)
        self.assertEqual(('user-1', 'project-1'), (grant.user_id, grant.project_id))
        grant = self.authorize(user_id='u', project_id='p')
        self.assertEqual(('u', 'p'), (grant.user_id, grant.project_id))

    def test_an_inconsistent_grant_is_refused(self):
        for changes in (
            {'host': None},
            {'port': None, 'host': functional_base.ADDRESS},
            {'token': TOKEN},
            {'access_url': 'https://example.org/'},
            {'access_url_base': 'javascript:alert(1)'},
            {'access_url_base': 'https://user:secret@example.org/'},
            {'compute_host': models.UNKNOWN_HOST},
        ):
            self.assertRaises(exception.InvalidConsole, self.authorize, **changes)

    def test_the_access_url_has_the_token(self):
        grant = self.authorize()
        self.assertIn(grant.token, grant.access_url)
        self.assertIsNone(self.authorize(10001, access_url_base=None).access_url)

    def test_without_a_port_the_next_free_console(self):
        self.define(10000, 10001)
        proxy = self.proxy()
        self.assertEqual(10000, self.authorize(None).port)
        for port in (10000, 10001):
            grant = self.authorize(None)
            self.assertEqual(port, grant.port)
            self.open(proxy, grant.token)
        self.assertRaises(exception.ConsolePortsExhausted, self.authorize, None)
        self.config.set(serial_console__max_sessions=0)  # a connected one will do
        self.assertEqual(10000, self.authorize(None).port)

    def test_a_grant_for_another_console_cuts_the_session_of_the_old_one(self):
        session = self.open(self.proxy(), self.authorize(console_type='novnc').token)
        self.authorize(console_type='spice-html5')
        self.assertEqual([(session.id, 'console_gone')], self.proxies.cuts)


class WriteThroughTest(base.ManagerCase):
    def test_tokens_go_to_the_sources_only_if_the_option_says_so(self):
        source = MemoryTokenSource()
        self.sources.append(source)
        self.authorize()
        self.assertEqual({}, source.stored)
        self.config.set(workarounds__consoleauth_write_through=True)
        grant = self.authorize(10001)
        self.assertEqual([grant.token], list(source.stored))
        self.assertEqual(grant.access_url, source.stored[grant.token].access_url)


class ValidateTest(base.ManagerCase):
    def test_the_grant_without_the_token(self):
        grant = self.authorize()
        valid = self.api.validate(self.context, grant.token)
        self.assertEqual((self.instance, 10000), (valid.instance_uuid, valid.port))
        self.assertIsNone(valid.token)
        self.assertIsNone(valid.access_url)

    def test_an_unknown_token(self):
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, tokens.mint())

    def test_a_used_token_only_if_tokens_are_for_several_uses(self):
        grant = self.authorize()
        self.config.set(consoleauth__single_use=True)
        self.open(self.proxy(), grant.token)
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, grant.token)
        self.config.set(consoleauth__single_use=False)
        self.api.validate(self.context, grant.token)


class SourcesTest(base.ManagerCase):
    def setUp(self):
        super().setUp()
        self.source, self.other = MemoryTokenSource('one'), MemoryTokenSource('two')
        self.sources += [self.source, self.other]

    def uses(self):
        rows = self.db.single(lambda conn: conn.execute(models.legacy_use.select()).all())
        return {row.source: row.uses for row in rows}

    def test_the_sources_are_asked_in_order_and_only_for_unknown_tokens(self):
        known = self.authorize().token
        self.api.validate(self.context, known)
        self.assertEqual([], self.source.asked)
        unknown = tokens.mint()
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, unknown)
        self.assertEqual([[unknown], [unknown]], [self.source.asked, self.other.asked])

    def test_a_token_that_was_found_is_copied_and_counted(self):
        self.source.issued[TOKEN] = issued(self.instance, internal_access_path='/vnc')
        for _ in range(2):
            valid = self.api.validate(self.context, TOKEN)
            self.assertEqual({'internal_access_path': '/vnc'}, valid.options)
        self.assertEqual(([TOKEN], []), (self.source.asked, self.other.asked))
        self.assertEqual({'one': 2}, self.uses())

    def test_a_token_that_was_found_in_a_source_can_be_opened(self):
        self.source.issued[TOKEN] = issued(self.instance)
        session = self.open(self.proxy(), TOKEN)
        self.assertEqual(5900, session.console.port)
        self.assertEqual({'one': 1}, self.uses())

    def test_what_a_source_says_is_checked(self):
        ttl = self.conf.consoleauth.token_ttl
        for changes in ({'issued_at': time.time() - ttl - 60}, {'access_url_base': 'javascript:x'}):
            self.source.issued[TOKEN] = issued(self.instance, **changes)
            self.assertRaises(exception.InvalidToken, self.api.validate, self.context, TOKEN)

    def test_a_source_that_hangs_leaves_threads_for_known_tokens(self):
        self.useFixture(fixtures_library.MonkeyPatch(f'{manager_tokens.__name__}._LOOKUP_TURN', 0.0))
        known = self.authorize().token
        with contextlib.ExitStack() as held:
            for _ in range(self.conf.executor_thread_pool_size // 8):
                held.enter_context(self.endpoint._tokens._share.permit())
            self.assertRaises(exception.ManagerBusy, self.api.validate, self.context, TOKEN)
            self.api.validate(self.context, known)

    def test_a_revoked_token_does_not_come_back(self):
        self.source.issued[TOKEN] = issued(self.instance)
        self.source.available = False
        self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        self.source.available = True
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, TOKEN)

    def test_revoking_deletes_in_each_source(self):
        for source in self.sources:
            source.issued[TOKEN] = issued(self.instance)
        self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        self.assertEqual([{}, {}], [source.issued for source in self.sources])

    def test_slow_sources_do_not_delay_a_revocation(self):
        self.useFixture(fixtures_library.MonkeyPatch(f'{manager_tokens.__name__}._FORGET_TIME', -1.0))
        self.source.issued[TOKEN] = issued(self.instance)
        self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        self.assertEqual([TOKEN], list(self.source.issued))  # and worthless all the same
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, TOKEN)

    def test_tokens_of_a_project_that_nobody_had_used(self):
        for filters in ({'project_id': 'p'}, {'compute_host': 'c'}, {'project_id': 'p', 'compute_host': 'c'}):
            token = TOKEN[:-1] + str(len(filters)) + min(filters)
            earlier = time.time() - 1
            self.source.issued[token] = issued(
                self.instance, project_id='p', compute_host='c', issued_at=earlier
            )
            self.api.revoke(self.context, 'test', **filters)
            self.assertRaises(exception.InvalidToken, self.api.validate, self.context, token)

    def test_sources_that_a_revocation_cannot_match_are_named(self):
        self.source.unrecorded = frozenset({'user_id'})
        for filters, expected in (
            ({'user_id': 'mallory'}, (self.source.name,)),
            ({'user_id': 'mallory', 'project_id': 'p'}, (self.source.name,)),
            ({'project_id': 'p'}, ()),
        ):
            self.assertEqual(expected, self.api.revoke(self.context, 'test', **filters).unmatched)

    def test_a_revocation_by_user_spares_the_tokens_of_others(self):
        self.source.issued[TOKEN] = issued(self.instance)
        self.authorize(user_id='mallory')
        self.api.revoke(self.context, 'test', user_id='mallory')
        self.api.validate(self.context, TOKEN)
