# SPDX-License-Identifier: Apache-2.0
"""Sessions that are cut because of what Nova's database says, and those that go on."""

import contextlib
import logging

import fixtures as fixtures_library
import sqlalchemy as sa

from consoled import exception
from consoled.db import clock, models
from consoled.nova import watch
from tests.functional.base import new_uuid
from tests.unit.nova import base, test_source

_S = models.console_session.c
_T = models.console_auth_token.c


class WatchTests:
    """A mixin of ``NovaCase``; ``watcher`` is that of its manager."""

    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(fixtures_library.FakeLogger('consoled.nova', level=logging.INFO))
        self.passes = []
        self.on_pause = lambda seconds: None
        self.watcher = self.new_watcher('manager-1')

    def new_watcher(self, manager):
        return watch.Watcher(
            self.db,
            self.nova,
            lambda session_ids, reason: self.proxies.cut_sessions(None, session_ids, reason),
            manager=manager,
            interval=2.0,
            observe=lambda outcome, seconds: self.passes.append(outcome),
            pause=lambda seconds: self.on_pause(seconds),
        )

    def in_cell(self, statement):
        self.db.single(lambda conn: conn.execute(statement))

    def open_guest(self, **values):
        """Open a session of a new guest; return the guest and the session."""
        guest = self.add_instance(**values)
        return guest, self.open(self.proxy_id, self.add_token(guest))

    def expire(self):
        """Let all tokens expire, and Nova delete them."""
        self.in_cell(sa.update(models.console_auth_token).values(expires=clock.utc_after(-1)))
        self.run_in_nova(sa.delete(base.TOKENS))

    @contextlib.contextmanager
    def queries(self):
        """Collect the statements that are sent to Nova's database."""
        sent, engine = [], self.tables._autocommit

        def note(conn, cursor, statement, *rest):
            sent.append(statement)

        sa.event.listen(engine, 'before_cursor_execute', note)
        try:
            yield sent
        finally:
            sa.event.remove(engine, 'before_cursor_execute', note)

    def changes(self):
        """Return what may happen to a guest and its token, each with the reason that it is for a cut."""
        gone, elsewhere = {'deleted': 7}, {'host': 'cmp2'}
        return {
            'deleted': ('instance_gone', lambda: self.update_instance(self.guest, **gone)),
            'purged': ('instance_gone', lambda: self.run_in_nova(sa.delete(base.INSTANCES))),
            'shelved': ('instance_gone', lambda: self.update_instance(self.guest, host=None)),
            'moved': ('console_moved', lambda: self.update_instance(self.guest, **elsewhere)),
            'rebuilt': (
                'console_gone',
                lambda: self.update_instance(self.guest, launched_at=base.now(2)),
            ),
            'token deleted': ('console_gone', lambda: self.delete_token(self.token)),
        }

    def test_what_is_true_goes_on(self):
        session = self.open(self.proxy_id, self.token)
        for _ in range(3):
            self.watcher.run()
        self.assertEqual(([], {session.id}), (self.proxies.cuts, self.sessions()))
        self.assertEqual(['ok'] * 3, self.passes)

    def test_what_is_not_true_any_more_is_cut_with_its_reason(self):
        for change in self.changes():
            for looked_before in (True, False):
                self.in_cell(sa.delete(models.instances))
                self.in_cell(sa.delete(models.console_session))
                self.run_in_nova(sa.delete(base.TOKENS))
                self.run_in_nova(sa.delete(base.INSTANCES))
                self.guest = self.add_instance()
                self.token = self.add_token(self.guest)
                watcher = self.new_watcher('manager-1')
                session = self.open(self.proxy_id, self.token)
                if looked_before:
                    watcher.run()
                self.proxies.cuts.clear()
                reason, happen = self.changes()[change]
                happen()
                watcher.run()
                with self.subTest(change=change, looked_before=looked_before):
                    self.assertEqual([(session.id, reason)], self.proxies.cuts)
                    marked = self.db.single(
                        lambda conn: conn.execute(sa.select(_S.cut_reason)).scalars().all()
                    )
                    self.assertEqual([reason], marked)
                    watcher.run()
                    self.assertEqual(1, len(self.proxies.cuts))
                    self.assertIn(f'Cut session {session.id} of instance {self.guest}', self.logged.output)

    def test_a_token_that_is_cut_does_not_open_again(self):
        self.open(self.proxy_id, self.token)
        self.update_instance(self.guest, host='cmp2')
        self.watcher.run()
        self.refused(exception.InvalidToken)

    def test_a_token_that_expires_ends_nothing(self):
        self.open(self.proxy_id, self.token)
        self.expire()
        self.watcher.run()
        self.in_cell(sa.delete(models.console_auth_token))  # the copy
        self.watcher.run()
        self.assertEqual([], self.proxies.cuts)

    def test_a_token_that_is_deleted_in_its_last_minute_may_have_expired(self):
        """Nova's services have clocks of their own."""
        token = self.add_token(self.guest, ttl=55)
        self.open(self.proxy_id, token)
        self.watcher.run()
        self.delete_token(token)
        self.watcher.run()
        self.assertEqual([], self.proxies.cuts)

    def test_a_launch_by_a_clock_that_is_behind(self):
        session = self.open(self.proxy_id, self.token)
        self.watcher.run()
        self.expire()
        self.update_instance(self.guest, launched_at=base.now(-30))
        self.watcher.run()
        self.assertEqual([(session.id, 'console_gone')], self.proxies.cuts)

    def test_a_session_that_was_opened_after_the_move_goes_on(self):
        """Also if the watch did not see the move before that session."""
        self.update_instance(self.guest, host='cmp2')
        moved = self.open(self.proxy_id, self.add_token(self.guest, host='192.0.2.20'))
        self.watcher.run()
        self.watcher.run()
        self.assertEqual([], self.proxies.cuts)
        self.update_instance(self.guest, host='cmp1')
        self.watcher.run()
        self.assertEqual([(moved.id, 'console_moved')], self.proxies.cuts)

    def test_a_session_that_begins_after_a_launch_hides_none_from_before(self):
        before = self.open(self.proxy_id, self.token)
        self.watcher.run()
        self.update_instance(self.guest, launched_at=base.now(1))
        self.open(self.proxy_id, self.add_token(self.guest, created_at=base.now(1)))
        self.watcher.run()
        self.assertEqual([(before.id, 'console_gone')], self.proxies.cuts)

    def test_sessions_of_our_own_tokens_are_not_watched(self):
        self.open(self.proxy_id, self.authorize(instance=new_uuid()).token)
        self.run_in_nova(sa.delete(base.INSTANCES))
        self.watcher.run()
        self.assertEqual([], self.proxies.cuts)

    def open_migrated(self):
        """Open a session on the host that Nova and the agent there name."""
        token = self.add_token(self.guest, host='192.0.2.20')
        self.assertEqual('cmp2', self.open(self.proxy_id, token).console.compute_host)

    def test_an_agent_that_is_told_of_a_migration_before_nova(self):
        """Each cuts what it knows to be over; neither cuts what was opened on the new host."""
        self.define(5900, compute_host='cmp1', console_type='novnc')
        old = self.open(self.proxy_id, self.token)
        self.watcher.run()
        self.define(5900, compute_host='cmp2', console_type='novnc')
        cuts = list(self.proxies.cuts)
        self.assertEqual([old.id], [session_id for session_id, _ in cuts])
        self.watcher.run()
        self.update_instance(self.guest, host='cmp2')
        self.open_migrated()
        for _ in range(2):
            self.watcher.run()
        self.assertEqual(cuts, self.proxies.cuts)

    def test_an_agent_that_is_told_of_a_migration_after_nova(self):
        self.define(5900, compute_host='cmp1', console_type='novnc')
        old = self.open(self.proxy_id, self.token)
        self.update_instance(self.guest, host='cmp2')
        self.watcher.run()
        self.define(5900, compute_host='cmp2', console_type='novnc')
        self.open_migrated()
        for _ in range(2):
            self.watcher.run()
        self.assertEqual([(old.id, 'console_moved')], self.proxies.cuts)

    def test_what_is_untrue_once_only_is_not_cut(self):
        """A node that is behind has not yet what another one had at the open."""
        self.open(self.proxy_id, self.token)
        self.watcher.run()
        for wrong, right in (({'deleted': 3}, {'deleted': 0}), ({'host': 'cmp2'}, {'host': 'cmp1'})):
            self.update_instance(self.guest, **wrong)
            self.on_pause = lambda seconds, right=right: self.update_instance(self.guest, **right)
            self.watcher.run()
        self.assertEqual([], self.proxies.cuts)

    def test_the_reason_is_what_is_read_the_second_time(self):
        session = self.open(self.proxy_id, self.token)
        self.delete_token(self.token)
        self.on_pause = lambda seconds: self.update_instance(self.guest, host='cmp2')
        self.watcher.run()
        self.assertEqual([(session.id, 'console_moved')], self.proxies.cuts)

    def test_a_database_of_nova_that_is_away_cuts_nobody(self):
        session = self.open(self.proxy_id, self.token)
        self.watcher.run()
        self.watcher.run()
        gone = base.METADATA.drop_all
        gone(self.tables.transactional_engine)
        for _ in range(3):
            self.watcher.run()
        self.assertEqual((['ok', 'ok'] + ['unavailable'] * 3, []), (self.passes, self.proxies.cuts))
        self.assertEqual(1, self.logged.output.count('This manager cannot watch'))
        base.METADATA.create_all(self.tables.transactional_engine)  # and the instance was deleted meanwhile
        self.watcher.run()
        self.assertEqual([(session.id, 'instance_gone')], self.proxies.cuts)
        self.assertIn('watches the sessions of Nova again', self.logged.output)

    def test_a_second_look_that_fails_is_made_up_for(self):
        session = self.open(self.proxy_id, self.token)
        self.watcher.run()
        self.update_instance(self.guest, host='cmp2')
        self.on_pause = lambda seconds: self.fail_next()
        self.watcher.run()
        self.assertEqual((['ok', 'unavailable'], []), (self.passes, self.proxies.cuts))
        self.on_pause = lambda seconds: None
        self.watcher.run()
        self.assertEqual([(session.id, 'console_moved')], self.proxies.cuts)

    def fail_next(self):
        find = self.nova.find_instances

        def fail(uuids):
            self.nova.find_instances = find
            raise exception.DatabaseUnavailable()

        self.nova.find_instances = fail

    def test_only_what_has_changed_is_read(self):
        self.patch(watch, '_BATCH', 2)
        opened = dict(self.open_guest() for _ in range(5))
        self.watcher.run()
        with self.queries() as sent:
            self.watcher.run()
        self.assertEqual(6, len(sent))  # three batches of guests, three of tokens
        self.assertEqual(6, sum('count' in statement for statement in sent))
        guest = list(opened)[3]
        self.update_instance(guest, deleted=9)
        with self.queries() as sent:
            self.watcher.run()
        self.assertEqual([(opened[guest].id, 'instance_gone')], self.proxies.cuts)
        self.assertTrue(len(sent) < 15, sent)

    def test_a_guest_that_was_never_launched_makes_no_others_be_read(self):
        """Its first launch ends no session; the next one does."""
        guest, session = self.open_guest(launched_at=None)
        self.open(self.proxy_id, self.token)
        self.watcher.run()
        with self.queries() as sent:
            self.watcher.run()
        self.assertEqual(2, sum('count' in statement for statement in sent))
        self.assertEqual(4, len(sent))
        for launched_at in (base.now(1), None, base.now(5)):
            self.assertEqual([], self.proxies.cuts)
            self.update_instance(guest, launched_at=launched_at)
            self.watcher.run()
        self.assertEqual([(session.id, 'console_gone')], self.proxies.cuts)

    def test_sessions_that_ended_are_forgotten(self):
        session = self.open(self.proxy_id, self.token)
        self.watcher.run()
        self.close(session)
        self.patch(watch, '_LIST_ALL', -1)
        self.watcher.run()
        with self.queries() as sent:
            self.watcher.run()
        self.assertEqual([], sent)

    def test_one_manager_at_a_time(self):
        other = self.new_watcher('manager-2')
        session = self.open(self.proxy_id, self.token)
        self.watcher.run()
        self.update_instance(self.guest, deleted=1)
        other.run()
        self.assertEqual((['ok'], []), (self.passes, self.proxies.cuts))
        self.watcher.end()
        self.watcher.run()  # a last pass that was about to begin
        other.run()
        self.assertEqual((['ok', 'ok'], [(session.id, 'instance_gone')]), (self.passes, self.proxies.cuts))

    def test_a_manager_that_cannot_reach_nova_leaves_the_turn_to_another_one(self):
        session = self.open(self.proxy_id, self.token)
        lonely = watch.Watcher(self.db, Unreachable(), None, manager='manager-2', interval=2.0)
        lonely.run()
        self.update_instance(self.guest, deleted=1)
        self.watcher.run()
        self.assertEqual([(session.id, 'instance_gone')], self.proxies.cuts)

    def test_the_next_pass_begins_an_interval_after_this_one(self):
        self.watcher.interval = 600.0  # a busy machine takes seconds for a pass
        self.assertTrue(0 < self.watcher.run() < 600)

    def test_a_database_of_the_previous_release(self):
        self.db.transaction(models.session_watch.drop)
        for _ in range(2):
            self.watcher.run()
        self.assertEqual(['failed'] * 2, self.passes)
        self.assertEqual(1, self.logged.output.count('consoled-manage db upgrade'))
        self.db.transaction(models.session_watch.create)
        self.watcher.run()
        self.assertEqual('ok', self.passes[-1])

    def test_a_fault_does_not_end_the_daemon(self):
        self.open(self.proxy_id, self.token)
        self.nova.find_instances = lambda uuids: 1 / 0
        for _ in range(2):
            self.watcher.run()
        self.assertEqual(['failed'] * 2, self.passes)
        self.assertEqual(1, self.logged.output.count('Traceback'))


class Unreachable:
    """A database of Nova that does not answer."""

    def __getattr__(self, name):
        raise exception.DatabaseUnavailable()


class SQLiteWatchTest(WatchTests, test_source.NovaCase):
    pass
