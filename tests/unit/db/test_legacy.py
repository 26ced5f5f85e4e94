# SPDX-License-Identifier: Apache-2.0
"""Tokens that were issued elsewhere: their copies, their revocations, their uses."""

import datetime
import time

import fixtures
import sqlalchemy as sa

from consoled import objects
from consoled.db import cleanup, clock, legacy, models
from tests.unit.db import base

_I = models.instances.c
_C = models.console_connection.c
_T = models.console_auth_token.c
_V = models.legacy_void.c
HASH = 'a' * 64
TTL = 600


class AdoptTests:
    def adopt(self, token_hash=HASH, age=10, ttl=TTL, port=10000, expires_in=None, **changes):
        """Copy a token that was issued ``age`` seconds ago; None: one that is being issued now."""
        values = {'compute_host': models.UNKNOWN_HOST, 'user_id': None, 'project_id': None}
        grant = base.a_grant(self.instance, port, **(values | changes))
        issued_at = None if age is None else clock.now(self.db).timestamp() - age
        provenance = legacy.Provenance('memcached', ttl, issued_at, expires_in)
        return legacy.adopt(self.db, token_hash, grant, provenance, 'req-1')

    def console_row(self):
        return self.rows(_C.port, _C.console_type, _C.options, _C.access_url_base)

    def test_a_copy_has_the_rest_of_its_life(self):
        stored = self.adopt(age=100)
        self.assertTrue(400 < -self.ago(stored.expires) <= 501)
        self.assertEqual([], stored.cut)
        self.assertEqual(
            [('memcached', 'req-1', models.UNKNOWN_HOST)],
            self.rows(_T.source, _T.request_id, _T.compute_host),
        )
        self.assertTrue(self.is_valid(HASH))

    def test_a_clock_of_the_issuer_that_is_ahead_does_not_prolong_it(self):
        self.assertTrue(-self.ago(self.adopt(age=-3600).expires) <= TTL)

    def test_a_token_that_is_being_issued_has_all_of_its_life(self):
        self.assertTrue(500 < -self.ago(self.adopt(age=None).expires) <= TTL)

    def test_an_expired_token_leaves_nothing(self):
        self.assertIsNone(self.adopt(age=TTL + 1))
        self.assertEqual(0, self.count(models.instances))

    def test_a_repetition_is_harmless(self):
        for age in (10, None):
            first, again = self.adopt(age=age), self.adopt(age=age)
            self.assertEqual(first, again)
            self.assertEqual(1, self.count(models.console_auth_token))

    # what the database knows takes precedence

    def test_a_known_compute_host_is_the_tokens_too(self):
        self.define(10000)
        self.adopt()
        self.assertEqual([(base.COMPUTE_HOST,)], self.rows(_T.compute_host))

    def test_a_defined_instance_has_no_other_consoles(self):
        """The port of a token that was issued earlier may belong to another guest now."""
        self.define(10001)
        self.assertIsNone(self.adopt(port=10000))
        self.assertIsNone(self.adopt(port=10001, console_type='novnc'))
        self.assertIsNotNone(self.adopt(port=10001))
        self.assertEqual([10001], self.ports())

    def test_a_token_that_is_being_issued_may_be_ahead_of_the_agent(self):
        self.define(10001)
        self.assertIsNotNone(self.adopt(age=None, port=10000))
        self.assertEqual([10000, 10001], self.ports())
        self.assertIsNone(self.adopt('b' * 64, age=None, port=10001, console_type='novnc'))

    def test_the_description_of_a_known_console_stays(self):
        self.define(10000, mode='view')
        before = self.console_row()
        for token_hash, age in ((HASH, 10), ('b' * 64, None)):
            self.adopt(token_hash, age=age, options={'internal_access_path': '/x'}, access_url_base=None)
        self.assertEqual(before, self.console_row())

    def test_without_an_agent_a_token_being_issued_completes_the_description(self):
        self.adopt(age=None, options={'a': '1', 'b': '1'})
        self.adopt('b' * 64, age=None, options={'b': '2'}, access_url_base=None)
        self.assertEqual([(10000, 'serial', '{"a":"1","b":"2"}', base.BASE_URL)], self.console_row())
        self.assertTrue(self.is_valid(HASH))

    def test_without_an_agent_a_token_being_issued_may_replace_the_console(self):
        self.adopt(age=None)
        session = self.open(HASH, self.proxy())
        stored = self.adopt('b' * 64, age=None, console_type='novnc', options={})
        self.assertEqual([session.id], stored.cut)
        self.assertEqual((False, True), (self.is_valid(HASH), self.is_valid('b' * 64)))
        # a token that was issued earlier does not replace it
        self.assertIsNone(self.adopt('c' * 64, age=10, console_type='serial'))

    # revocations

    def test_revoked_tokens_are_not_copied(self):
        legacy.record_revocations(self.db, {self.instance: [HASH]})
        self.assertIsNone(self.adopt())
        self.assertIsNotNone(self.adopt('b' * 64))

    def test_all_tokens_of_an_instance_that_were_issued_before(self):
        legacy.record_revocations(self.db, {self.instance: None})
        self.assertIsNone(self.adopt(age=1))
        self.assertIsNotNone(self.adopt('b' * 64, age=-10))
        self.assertIsNotNone(self.adopt('c' * 64, age=None))

    def test_tokens_of_a_project_or_host_that_nobody_had_used(self):
        known = {'compute_host': 'node-1', 'project_id': 'project-1'}
        here = {'instance_uuid': self.instance}
        for number, (filters, voided) in enumerate(
            (
                ({'project_id': 'project-1'}, True),
                ({'compute_host': 'node-1'}, True),
                (known, True),
                (known | here, True),
                (here, True),
                ({'project_id': 'Project-1'}, False),
                ({'project_id': 'node-1'}, False),
                ({'compute_host': 'node-1', 'project_id': 'project-2'}, False),
                ({'user_id': 'user-1'}, False),
                (known | {'user_id': 'user-1'}, False),
                ({'session_id': base.new_uuid()}, False),
            )
        ):
            self.execute(sa.delete(models.legacy_void))
            legacy.record_scope(self.db, filters)
            token_hash = f'{number}'.rjust(64, 'e')
            for age, expected in ((10, voided), (-10, False)):
                adopted = self.adopt(f'{age}{token_hash}'[:64], age=age, **known)
                self.assertEqual(expected, adopted is None, (filters, age))

    def test_tokens_whose_revocation_may_be_forgotten(self):
        """Nova's tokens may live longer than revocations are remembered."""
        kept = legacy.revocations_kept_for(TTL)
        self.assertIsNone(self.adopt(age=kept + 1, expires_in=3600))
        self.assertIsNotNone(self.adopt('b' * 64, age=kept - 60, expires_in=3600))

    def test_a_revocation_during_the_copy_wins(self):
        """It is recorded after the check of the copy, and deletes tokens before the copy is stored."""
        check, checks = legacy._check_not_revoked, []

        def late(conn, *arguments):
            checks.append(1)
            check(conn, *arguments)
            if len(checks) == 1:
                self.useFixture(fixtures.MockPatchObject(legacy, '_check_not_revoked', second))

        def second(conn, token_hash, grant, issued_at):
            # now the copy is in the database
            legacy.record_revocations(self.db, {grant.instance_uuid: None})
            check(conn, token_hash, grant, issued_at)

        self.useFixture(fixtures.MockPatchObject(legacy, '_check_not_revoked', late))
        self.assertIsNone(self.adopt())
        self.assertFalse(self.is_valid(HASH))


class RevocationTests:
    def subjects(self):
        return {subject.strip() for (subject,) in self.rows(_V.subject)}

    def test_instances_and_hashes_are_recorded(self):
        other = base.new_uuid()
        legacy.record_revocations(self.db, {self.instance: None, other: {HASH, 'b' * 64}})
        self.assertEqual({self.instance, HASH, 'b' * 64}, self.subjects())

    def test_the_last_revocation_of_a_subject_counts(self):
        legacy.record_revocations(self.db, {self.instance: None})
        self.age(_V.since, 100)
        legacy.record_revocations(self.db, {self.instance: None})
        ((since,),) = self.rows(_V.since)
        self.assertTrue(self.ago(clock.aware(since)) < 60)

    def test_many_are_recorded_in_batches(self):
        self.useFixture(fixtures.MockPatchObject(cleanup, 'BATCH', 2))
        hashes = {letter * 64 for letter in 'abcde'}
        legacy.record_revocations(self.db, {self.instance: hashes})
        self.assertEqual(hashes, self.subjects())
        legacy.record_revocations(self.db, {})

    def test_old_revocations_are_deleted(self):
        legacy.record_revocations(self.db, {self.instance: [HASH]})
        self.age(_V.since, 100)
        legacy.record_revocations(self.db, {self.instance: ['b' * 64]})
        self.assertEqual(0, legacy.delete_revocations(self.db, older_than=200))
        self.assertEqual(1, legacy.delete_revocations(self.db, older_than=50))
        self.assertEqual({'b' * 64}, self.subjects())

    def test_what_a_revocation_revokes(self):
        token_hash = self.store()
        session = self.open(token_hash, self.proxy())
        instance, self.instance = self.instance, base.new_uuid()
        self.store(compute_host='node-2', user_id='user-2', project_id='project-2')
        for filters, expected in (
            ({'instance_uuid': instance}, {instance: None}),
            ({'compute_host': base.COMPUTE_HOST}, {instance: None}),
            ({'compute_host': 'node-9'}, {}),
            ({'user_id': 'user-1'}, {instance: {token_hash}}),
            ({'project_id': 'project-1', 'instance_uuid': instance}, {instance: {token_hash}}),
            ({'session_id': session.id}, {instance: {token_hash}}),
            ({'user_id': 'nobody'}, {}),
        ):
            self.assertEqual(expected, legacy.find_revoked(self.db, filters), filters)


class UseTests:
    def test_uses_are_counted_by_source(self):
        self.assertEqual([], legacy.usage(self.db))
        for source in ('memcached', 'consoleauth', 'memcached'):
            legacy.count_use(self.db, source)
        found = legacy.usage(self.db)
        self.assertEqual([('consoleauth', 1), ('memcached', 2)], [(use.source, use.uses) for use in found])
        for use in found:
            self.assertTrue(abs(use.last_used_at.timestamp() - time.time()) < 60)

    def test_the_last_expiry_of_a_live_token_from_elsewhere(self):
        self.assertIsNone(legacy.last_expiry(self.db))
        self.store(ttl=10000)
        self.assertIsNone(legacy.last_expiry(self.db))
        for number, ttl in enumerate((100, 500, 300)):
            grant = base.a_grant(self.instance, 10000)
            stored = legacy.adopt(
                self.db, f'{number}'.rjust(64, 'd'), grant, legacy.Provenance('memcached', ttl)
            )
            if ttl == 500:
                expected = stored.expires
        self.assertEqual(expected, legacy.last_expiry(self.db))
        self.assertEqual(datetime.UTC, expected.tzinfo)
        self.assertEqual(expected, legacy.last_expiry(self.db, ['nova']))
        self.assertIsNone(legacy.last_expiry(self.db, ['nova', 'memcached']))
        self.age(_T.expires, 1)
        self.assertIsNone(legacy.last_expiry(self.db))

    def test_the_source_of_a_token_comes_with_it(self):
        grant = base.a_grant(self.instance, 10000)
        self.assertIsInstance(grant, objects.ConsoleAuthToken)
        legacy.adopt(self.db, HASH, grant, legacy.Provenance('memcached', TTL))
        self.assertEqual('memcached', self.request(HASH, self.proxy()).source)


class SQLiteAdoptTest(AdoptTests, base.DatabaseTestCase):
    pass


class SQLiteRevocationTest(RevocationTests, base.DatabaseTestCase):
    pass


class SQLiteUseTest(UseTests, base.DatabaseTestCase):
    pass
