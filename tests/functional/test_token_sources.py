# SPDX-License-Identifier: Apache-2.0
"""Tokens of other sources: copied with all checks when they are used, and revoked everywhere."""

import time

import sqlalchemy as sa

from consoled import objects
from consoled import token as tokens
from consoled.db import legacy, models
from consoled.rpc.replies import Closing, Revocation
from consoled.sources import Issued
from consoled.testing.sources import MemoryTokenSource
from tests.functional import base

TTL = 600


class SourceCase(base.CellTestCase):
    options = {'consoleauth__token_ttl': TTL}
    emptied = (*base.CellTestCase.emptied, models.legacy_use, models.legacy_void)

    @classmethod
    def setUpClass(cls):
        cls.source = MemoryTokenSource()
        cls.options = {**cls.options, 'sources': [cls.source]}
        super().setUpClass()

    def setUp(self):
        super().setUp()
        self.source.__init__()

    def issue(self, port=10000, age=0, **changes):
        """Return a token that an old service issued ``age`` seconds ago."""
        token = base.new_uuid()
        values = {
            'instance_uuid': self.instance,
            'console_type': 'serial',
            'host': base.ADDRESS,
            'port': port,
            'internal_access_path': None,
            'access_url_base': base.BASE_URL,
            'issued_at': time.time() - age,
        }
        self.source.issued[token] = Issued(**(values | changes))
        return token

    def uses(self):
        return {use.source: use.uses for use in legacy.usage(self.cell.db)}

    def assert_invalid(self, token):
        self.assert_refused('invalid_token', self.api.validate, self.context, token)
        self.assert_refused('invalid_token', self.proxy().open, token)


class _Sources:
    def test_a_token_of_a_source_is_like_any_other(self):
        token = self.issue(internal_access_path='/there', age=100)
        grant = self.api.validate(self.context, token)
        self.assertEqual(
            (self.instance, 'serial', base.ADDRESS, 10000, base.BASE_URL, {'internal_access_path': '/there'}),
            (
                grant.instance_uuid,
                grant.console_type,
                grant.host,
                grant.port,
                grant.access_url_base,
                grant.options,
            ),
        )
        self.assertEqual(models.UNKNOWN_HOST, grant.compute_host)
        self.assertIsNone(grant.token)
        session = self.proxy().open(token)
        self.assertEqual(('serial', True), (session.console.console_type, session.limited))
        self.assert_refused('console_in_use', self.proxy().open, token)
        self.assertEqual({'memory': 2}, self.uses())
        self.assertEqual([token], self.source.asked)  # only once, before it was copied

    def test_it_lives_for_the_rest_of_its_lifetime(self):
        grant = self.api.validate(self.context, self.issue(age=TTL - 100))
        left = grant.expires.timestamp() - time.time()
        self.assertTrue(60 < left <= 101, left)
        self.assertEqual(grant.expires, legacy.last_expiry(self.cell.db).replace(microsecond=0))

    def test_a_clock_of_the_issuer_that_is_ahead_does_not_prolong_it(self):
        grant = self.api.validate(self.context, self.issue(age=-86400))
        self.assertLess(grant.expires.timestamp() - time.time(), TTL + 5)

    def test_an_expired_token_is_invalid(self):
        self.assert_invalid(self.issue(age=TTL + 1))
        self.assertEqual(0, self.count('instances'))

    def test_a_token_of_the_database_is_not_looked_up_elsewhere(self):
        granted = self.authorize()
        self.api.validate(self.context, granted.token)
        self.proxy().open(granted.token)
        self.assertEqual([], self.source.asked)
        self.assertEqual({}, self.uses())

    def test_a_token_that_is_unknown_everywhere(self):
        self.assert_invalid(tokens.mint())
        self.source.available = False
        self.assert_invalid(self.issue())

    def test_a_token_for_a_console_that_its_agent_has_not_defined(self):
        """Its port may belong to another guest now."""
        self.define(10001)
        self.assert_invalid(self.issue(10000))
        self.assert_invalid(self.issue(10001, console_type='novnc'))
        self.assertEqual([10001], self.ports())
        self.agent()
        self.assertEqual(10001, self.proxy().open(self.issue(10001)).console.port)

    def test_the_port_is_checked_if_there_is_an_agent(self):
        self.define(10000)
        agent = self.agent()
        agent.answer = lambda asked: False
        self.assert_refused('console_gone', self.proxy().open, self.issue())

    def test_an_agent_that_defines_the_guest_later(self):
        """A compute host is moved over: tokens and sessions of its guests stay, and get its name."""
        kept, other = self.issue(), self.issue()
        proxy = self.proxy()
        session = proxy.open(kept)
        self.define(10000, 10001)
        self.assertEqual(base.COMPUTE_HOST, self.api.validate(self.context, other).compute_host)
        self.assertEqual({}, self.api.renew_lease(self.context, proxy.id).cut)
        revoked = self.api.revoke(self.context, 'test', compute_host=base.COMPUTE_HOST)
        self.assertEqual(Revocation(tokens=2, sessions=1), revoked)
        self.assertEqual({session.id: 'test'}, self.api.renew_lease(self.context, proxy.id).cut)

    def test_the_agents_description_of_the_console_wins(self):
        token = self.issue(internal_access_path='/there')
        self.api.validate(self.context, token)
        found = objects.ConsoleConnectionList(objects=[base.a_console(self.instance, 10000)])
        self.api.define_consoles(self.context, self.instance, base.COMPUTE_HOST, found, wait=True)
        self.assertEqual({}, self.api.validate(self.context, token).options)

    def test_single_use(self):
        self.set(consoleauth__single_use=True)
        token = self.issue()
        proxy = self.proxy()
        session = proxy.open(token)
        self.api.close_session(self.context, Closing(session.id, 'left'))
        self.assert_invalid(token)

    # revocation

    def test_a_revoked_token_does_not_come_back(self):
        used, unused = self.issue(), self.issue(10001)
        self.api.validate(self.context, used)
        for available in (False, True):  # the source could not be reached at first
            self.source.available = available
            self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        self.assertEqual({}, self.source.issued)
        self.source.issued = {
            token: Issued(self.instance, 'serial', base.ADDRESS, 10000, None, None, time.time() - 1)
            for token in (used, unused)
        }
        for token in (used, unused):
            self.assert_invalid(token)
        self.api.validate(self.context, self.issue(age=-1))  # issued since

    def test_revoking_a_session(self):
        token, other = self.issue(), self.issue(10001)
        session = self.proxy().open(token)
        self.api.revoke(self.context, 'test', session_id=session.id)
        self.assertEqual([other], list(self.source.issued))
        self.source.issued[token] = self.source.issued[other]
        self.assert_invalid(token)
        self.api.validate(self.context, other)

    def test_invariant_11_the_tokens_of_a_deleted_guest(self):
        token = self.issue()
        self.api.validate(self.context, token)
        self.api.clean_console_auths_for_instance(self.context, self.instance, wait=True)
        self.assertEqual({}, self.source.issued)
        self.assertEqual(0, self.count('instances'))
        self.source.issued[token] = Issued(
            self.instance, 'serial', base.ADDRESS, 10000, None, None, time.time() - 1
        )
        self.assert_invalid(token)

    def test_a_guest_that_was_stopped_and_started(self):
        """Its consoles have the same ports again, but earlier tokens do not open them."""
        token = self.issue(age=1)
        self.define(10000)
        self.api.validate(self.context, token)
        self.define()
        self.define(10000)
        self.assert_invalid(token)

    def test_revoking_all_of_a_compute_host(self):
        token = self.issue(age=1)
        self.define(10000)
        self.api.revoke(self.context, 'test', compute_host=base.COMPUTE_HOST)
        self.assertEqual({}, self.source.issued)
        self.source.issued[token] = Issued(
            self.instance, 'serial', base.ADDRESS, 10000, None, None, time.time() - 1
        )
        self.assert_invalid(token)

    def test_revocations_are_remembered_for_a_time(self):
        self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        self.assertEqual(0, legacy.delete_revocations(self.cell.db, older_than=100))
        self.cell.db.single(
            lambda conn: conn.execute(
                sa.update(models.legacy_void).values(since=sa.text("'2026-01-01 00:00:00'"))
            )
        )
        self.assertEqual(1, legacy.delete_revocations(self.cell.db, older_than=100))

    # writing through

    def test_tokens_are_written_through_only_if_that_is_configured(self):
        self.authorize()
        self.assertEqual({}, self.source.stored)
        self.set(workarounds__consoleauth_write_through=True)
        granted = self.authorize()
        self.assertEqual([granted.token], list(self.source.stored))
        self.assertEqual(granted.access_url, self.source.stored[granted.token].access_url)


class MariaDBSourcesTest(_Sources, SourceCase):
    engine = 'mariadb'


class PostgreSQLSourcesTest(_Sources, SourceCase):
    engine = 'postgresql'


class SQLiteSourcesTest(_Sources, SourceCase):
    engine = 'sqlite'
