# SPDX-License-Identifier: Apache-2.0
"""Watched sessions, and the turn to watch them."""

import sqlalchemy as sa

from consoled.db import migration, models, sessions, watch
from consoled.db.engine import Database
from tests.unit.db import base

_S = models.console_session.c
_T = models.console_auth_token.c
_W = models.session_watch.c


class WatchTests:
    def open_watched(self, token_hash=None, source='nova'):
        """Open a session with a token of a source."""
        token_hash = token_hash or self.store()
        self.execute(sa.update(models.console_auth_token).values(source=source))
        return self.claim(self.request(token_hash, self.proxy()), watched=True)

    def watched(self, **options):
        return {each.id: each for each in watch.list_watched(self.db, 'nova', **options)}

    def test_a_watched_session_with_its_token(self):
        token_hash = self.store(ttl=600)
        session = self.open_watched(token_hash)
        [found] = self.watched().values()
        self.assertEqual(
            (session.id, self.instance, base.COMPUTE_HOST, token_hash),
            (found.id, found.instance_uuid, found.compute_host, found.token_hash),
        )
        self.assertTrue(540 < found.token_life <= 600)
        self.assertEqual(session.connected_at.replace(tzinfo=None), found.connected_at)

    def test_neither_those_of_other_sources_nor_those_that_are_being_cut(self):
        self.open_watched(source='memcached')
        self.open(self.store(), self.proxy())
        self.assertEqual({}, self.watched())
        session = self.open_watched()
        watch.mark(self.db, [session.id], 'instance_gone')
        self.assertEqual({}, self.watched())

    def test_it_outlives_its_token(self):
        token_hash = self.store()
        session = self.open_watched(token_hash)
        self.age(_T.expires, 5)
        self.assertTrue(-60 < self.watched()[session.id].token_life <= -5)
        self.execute(sa.delete(models.console_auth_token))
        [found] = self.watched().values()
        self.assertEqual((session.id, None, 0), (found.id, found.token_hash, found.token_life))

    def test_the_newest(self):
        old, new = self.open_watched(), self.open_watched()
        self.age(_S.connected_at, 100, _S.id == old.id)
        self.assertEqual({new.id}, set(self.watched(within=60)))
        self.assertEqual({old.id, new.id}, set(self.watched()))

    def test_marking(self):
        first, second, third = (self.open_watched() for _ in range(3))
        self.assertEqual([first.id], watch.mark(self.db, [first.id], 'console_moved'))
        marked = watch.mark(self.db, [first.id, second.id, base.new_uuid()], 'instance_gone')
        self.assertEqual([second.id], marked)
        reasons = [self.cut_reason(each.id) for each in (first, second, third)]
        self.assertEqual(['console_moved', 'instance_gone', None], reasons)
        self.assertEqual(3, self.count(models.console_auth_token))

    def take(self, manager, source='nova', seconds=60):
        return watch.take_turn(self.db, source, manager, seconds)

    def test_one_manager_has_the_turn_until_it_expires(self):
        self.assertTrue(self.take('one'))
        self.assertFalse(self.take('two'))
        self.assertTrue(self.take('one'))
        self.assertTrue(self.take('two', source='other'))
        self.age(_W.expires, 1, _W.source == 'nova')
        self.assertTrue(self.take('two'))
        self.assertFalse(self.take('one'))

    def test_a_manager_that_ends_its_turn_leaves_it_to_the_next(self):
        self.take('one')
        watch.end_turn(self.db, 'nova', 'two')  # not its own
        self.assertFalse(self.take('two'))
        watch.end_turn(self.db, 'nova', 'one')
        self.assertTrue(self.take('two'))

    def test_a_schema_of_the_previous_release(self):
        """Tokens that are not watched open there."""
        db = Database(self.new_url(), pool_size=2)
        self.addCleanup(db.dispose)
        migration.upgrade(db, '0005')
        self.assertFalse(watch.has_tables(db))
        current, self.db = self.db, db
        try:
            request = self.request(self.store(), self.proxy())
            self.claim(request)
            self.assertIsNotNone(sessions.load(db, request))
        finally:
            self.db = current
        migration.upgrade(db)
        self.assertTrue(watch.has_tables(db))

    def test_a_session_that_the_previous_release_opens_is_not_watched(self):
        token_hash = self.store()
        self.execute(sa.update(models.console_auth_token).values(source='nova'))
        self.claim(self.request(token_hash, self.proxy()))
        self.assertEqual({}, self.watched())


class SQLiteWatchTest(WatchTests, base.DatabaseTestCase):
    pass
