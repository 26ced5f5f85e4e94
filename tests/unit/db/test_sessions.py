# SPDX-License-Identifier: Apache-2.0
"""Sessions: lookups, listing, closing."""

from consoled import exception
from consoled.db import models, revocation, sessions
from tests.unit.db import base

_S = models.console_session.c
_T = models.console_auth_token.c


class SessionsTests:
    # find_for_open

    def test_a_request_has_the_console_and_the_user_of_its_token(self):
        self.define(10000, mode='view')
        token_hash = self.store(options={'mode': 'view'})
        found = self.request(token_hash, 'a proxy', 'an id', '192.0.2.77')
        self.assertEqual(('an id', 'a proxy', '192.0.2.77'), (
            found.session_id, found.proxy_id, found.client_address
        ))  # fmt: skip
        expected = base.a_console(self.instance, 10000)
        expected.options = {'mode': 'view'}
        self.assertEqual(expected.obj_to_primitive(), found.console.obj_to_primitive())
        self.assertEqual(('user-1', 'project-1', None), (found.user_id, found.project_id, found.source))
        self.assertEqual((False, True, False), (found.spent, found.defined, found.already_open))

    def test_only_live_tokens_are_found(self):
        token_hash = self.store()
        self.assertIsNone(self.request('0' * 64, self.proxy()))
        self.age(_T.expires, 0)
        self.assertIsNone(self.request(token_hash, self.proxy()))

    def test_an_instance_that_no_agent_has_defined(self):
        self.assertFalse(self.request(self.store(), self.proxy()).defined)

    def test_a_compute_host_that_was_unknown_when_the_token_was_stored(self):
        token_hash = self.store(compute_host=models.UNKNOWN_HOST)
        self.define(10000)
        self.assertEqual(base.COMPUTE_HOST, self.request(token_hash, self.proxy()).console.compute_host)

    def test_a_request_that_was_carried_out_already(self):
        token_hash, proxy_id = self.store(), self.proxy()
        request = self.request(token_hash, proxy_id)
        self.claim(request, single_use=True)
        again = self.request(token_hash, proxy_id, request.session_id)
        self.assertEqual((True, True), (again.already_open, again.spent))

    # load

    def test_the_session_of_a_request(self):
        request = self.request(self.store(), self.proxy())
        self.assertIsNone(sessions.load(self.db, request))
        session = self.claim(request)
        self.assertEqual(session.obj_to_primitive(), sessions.load(self.db, request).obj_to_primitive())

    def test_it_is_found_after_its_token_was_revoked(self):
        request = self.request(self.store(), self.proxy())
        self.claim(request)
        revocation.revoke(self.db, {'session_id': request.session_id}, 'test')
        self.assertEqual('test', sessions.load(self.db, request).cut_reason)

    def test_the_session_of_another_token_or_proxy_is_refused(self):
        proxy_id = self.proxy()
        session = self.open(self.store(), proxy_id)
        for request in (
            self.request(self.store(10001), proxy_id, session.id),
            self.request(f'{1:064x}', self.proxy(), session.id),
        ):
            self.assertRaises(exception.InvalidArgument, sessions.load, self.db, request)

    # close, mark_taken_over

    def test_a_session_is_closed_once(self):
        session = self.open(self.store(), self.proxy())
        self.assertEqual([True, False], [sessions.close(self.db, session.id) for _ in range(2)])
        self.assertEqual(0, self.count(models.console_session))

    def test_a_proxy_closes_its_own_sessions_only(self):
        proxy_id = self.proxy()
        session = self.open(self.store(), proxy_id)
        self.assertFalse(sessions.close(self.db, session.id, self.proxy()))
        self.assertTrue(sessions.close(self.db, session.id, proxy_id))

    def test_a_session_that_is_taken_over_is_marked_and_keeps_its_slot(self):
        session = self.open(self.store(), self.proxy(), limit=1)
        sessions.mark_taken_over(self.db, session.id, 'taken_over')
        sessions.mark_taken_over(self.db, session.id, 'another')
        self.assertEqual([('taken_over', 0)], self.rows(_S.cut_reason, _S.slot))

    # list_live

    def ids(self, filters=None, **arguments):
        found = sessions.list_live(self.db, filters or {}, **({'limit': 100} | arguments))
        return [session.id for session in found]

    def test_pages_in_the_order_of_ids(self):
        token_hash, proxy_id = self.store(), self.proxy()
        expected = sorted(self.open(token_hash, proxy_id).id for _ in range(5))
        self.assertEqual(expected, self.ids())
        found, marker = [], None
        while page := self.ids(limit=2, marker=marker):
            self.assertTrue(len(page) <= 2)
            found += page
            marker = page[-1]
        self.assertEqual(expected, found)

    def test_filters_must_all_match(self):
        proxy_id = self.proxy()
        mine = self.open(self.store(), proxy_id)
        instance, self.instance = self.instance, base.new_uuid()
        others = {'user_id': 'user-2', 'project_id': 'project-2', 'compute_host': 'node-2'}
        self.open(self.store(**others), self.proxy())
        for name, value in {
            'instance_uuid': instance,
            'user_id': 'user-1',
            'project_id': 'project-1',
            'compute_host': base.COMPUTE_HOST,
            'proxy_id': proxy_id,
        }.items():
            self.assertEqual([mine.id], self.ids({name: value}), name)
        self.assertEqual([], self.ids({'user_id': 'user-1', 'project_id': 'project-2'}))

    def test_sessions_of_dead_proxies_are_not_live(self):
        proxy_id = self.proxy()
        self.open(self.store(), proxy_id)
        self.end_lease(proxy_id)
        self.assertEqual([], self.ids())

    def test_a_listed_session_has_its_console_even_if_that_is_gone(self):
        self.define(10000)
        session = self.open(self.store(), self.proxy())
        self.define()
        (found,) = sessions.list_live(self.db, {}, limit=1)
        self.assertEqual(session.id, found.id)
        self.assertEqual('console_gone', found.cut_reason)
        console = found.console
        self.assertEqual(
            (self.instance, 'serial', base.ADDRESS, 10000, base.COMPUTE_HOST),
            (console.instance_uuid, console.console_type, console.host, console.port, console.compute_host),
        )
        self.assertEqual((None, {}), (console.access_url_base, console.options))


class SQLiteSessionsTest(SessionsTests, base.DatabaseTestCase):
    pass
