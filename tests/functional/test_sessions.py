# SPDX-License-Identifier: Apache-2.0
"""Sessions and leases over a real bus, on each database."""

import functools
import itertools
import threading

import sqlalchemy as sa

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.rpc.replies import Closing, Revocation
from consoled.testing.fixtures import wait_until
from tests.functional import base


class _Sessions:
    options = {'manager__check_port': False}

    def end_lease(self, proxy):
        """End the lease of a proxy, as if it had not renewed it for a long time."""
        self.rows_of_change(
            "UPDATE console_proxy SET lease_expires = '2020-01-01 00\\:00\\:00.000000' WHERE id = :id",
            id=proxy.id,
        )

    def age(self, session_id):
        """Make a session look as if it had been opened long ago."""
        self.rows_of_change(
            "UPDATE console_session SET connected_at = '2020-01-01 00\\:00\\:00.000000' WHERE id = :id",
            id=session_id,
        )

    def rows_of_change(self, statement, **values):
        self.cell.db.transaction(lambda conn: conn.execute(sa.text(statement), values))

    def sessions(self):
        return {row[0] for row in self.rows('SELECT id FROM console_session')}

    # open and close

    def test_open_list_close(self):
        granted = self.authorize(console_type='novnc', options={'mode': 'view'})
        proxy = self.proxy()
        session = proxy.open(granted.token)
        self.assertEqual('novnc', session.console.console_type)
        self.assertEqual((base.ADDRESS, 10000), (session.console.host, session.console.port))
        self.assertEqual({'mode': 'view'}, session.console.options)
        self.assertIsNone(session.ends_at)
        listed = self.api.list_sessions(self.context, instance_uuid=self.instance).objects
        self.assertEqual([session.id], [each.id for each in listed])
        self.assertEqual(
            ('user-1', '192.0.2.1', base.COMPUTE_HOST),
            (listed[0].user_id, listed[0].client_address, listed[0].console.compute_host),
        )
        self.api.close_session(self.context, Closing(session.id, 'left', 10, 20))
        self.assertEqual([], self.api.list_sessions(self.context).objects)

    def test_lists_are_paged_and_filtered(self):
        granted = self.authorize(console_type='novnc')
        proxy = self.proxy()
        ids = sorted(proxy.open(granted.token).id for _ in range(5))
        first = self.api.list_sessions(self.context, limit=3).objects
        rest = self.api.list_sessions(self.context, limit=3, marker=first[-1].id).objects
        self.assertEqual(ids, [session.id for session in [*first, *rest]])
        self.assertEqual([], self.api.list_sessions(self.context, user_id='user-2').objects)
        self.assertEqual(5, len(self.api.list_sessions(self.context, proxy_id=proxy.id).objects))
        self.assert_refused('invalid_argument', self.api.list_sessions, self.context, limit=1001)
        self.assert_refused('invalid_argument', self.api.list_sessions, self.context, colour='red')

    def test_a_session_that_ends_with_its_token(self):
        self.set(consoleauth__enforce_session_timeout=True)
        granted = self.authorize()
        self.assertEqual(granted.expires, self.proxy().open(granted.token).ends_at)

    def test_invariant_6_each_call_repeated_with_the_same_ids(self):
        self.define(10000)
        granted = self.authorize(10000)
        proxy = self.proxy()
        session = proxy.open(granted.token)
        for _ in range(2):
            self.assertEqual(session.id, proxy.open(granted.token, session.id).id)
            self.assertEqual({session.id}, self.sessions())
            self.api.register_proxy(self.context, proxy.id, proxy.name)
            self.assertEqual({}, self.api.renew_lease(self.context, proxy.id).cut)
            self.assertEqual({session.id}, self.sessions())
        closing = Closing(session.id, 'left', bytes_in=1, bytes_out=2)
        for _ in range(2):
            self.api.renew_lease(self.context, proxy.id, closed=[closing])
            self.api.close_session(self.context, closing)
            self.assertEqual(set(), self.sessions())

    def test_a_session_id_cannot_be_used_twice(self):
        granted = self.authorize(console_type='novnc')
        other = self.authorize(10001, console_type='novnc')
        session = self.proxy().open(granted.token)
        self.assert_refused('invalid_argument', self.proxy().open, granted.token, session.id)
        self.assert_refused('invalid_argument', self.proxy().open, other.token, session.id)

    def test_bad_arguments_change_nothing(self):
        granted = self.authorize()
        proxy = self.proxy()
        good = {
            'token': granted.token,
            'session_id': base.new_uuid(),
            'proxy_id': proxy.id,
            'client_address': '192.0.2.1',
        }
        for name, value in (
            ('session_id', 'x'),
            ('session_id', None),
            ('proxy_id', 5),
            ('client_address', 'x' * 256),
            ('client_address', 'a\nb'),
            ('colour', 'red'),
        ):
            values = {**good, name: value}
            error = self.assert_refused(
                'invalid_argument', self.api._call, self.context, 'open_session', **values
            )
            self.assertEqual(name, error.kwargs['argument'])
        closing = Closing(base.new_uuid(), 'x', bytes_in=-1)
        self.assert_refused('invalid_argument', self.api.close_session, self.context, closing)
        self.assert_refused('invalid_argument', self.api.renew_lease, self.context, proxy.id, [closing])
        self.assert_refused('invalid_argument', self.api.renew_lease, self.context, proxy.id, None, [])
        self.assertEqual(set(), self.sessions())

    # limits

    def test_invariant_3_a_serial_port_has_one_session(self):
        first = self.authorize(user_id='user-1')
        second = self.authorize(user_id='user-2')
        proxy = self.proxy()
        session = proxy.open(first.token)
        error = self.assert_refused('console_in_use', self.proxy().open, second.token)
        self.assertIn(session.connected_at.strftime('%Y-%m-%d %H:%M'), str(error))
        self.assertNotIn('user-1', str(error))
        self.api.close_session(self.context, Closing(session.id, 'left'))
        self.assertEqual(10000, self.proxy().open(second.token).console.port)

    def test_a_limit_of_more_than_one(self):
        self.set(serial_console__max_sessions=3)
        granted = self.authorize()
        proxy = self.proxy()
        opened = [proxy.open(granted.token) for _ in range(3)]
        self.assert_refused('console_in_use', proxy.open, granted.token)
        self.api.close_session(self.context, Closing(opened[1].id, 'left'))
        proxy.open(granted.token)
        self.assert_refused('console_in_use', proxy.open, granted.token)
        slots = [row[0] for row in self.rows('SELECT slot FROM console_session ORDER BY slot')]
        self.assertEqual([0, 1, 2], slots)

    def test_a_console_without_a_limit(self):
        granted = self.authorize(console_type='novnc')
        proxy = self.proxy()
        self.assertEqual(10, len({proxy.open(granted.token).id for _ in range(10)}))

    def test_limits_per_token_instance_and_project(self):
        proxy = self.proxy()
        for option, scope in (('token', 'token'), ('instance', 'instance'), ('project', 'project')):
            name = f'manager__max_sessions_per_{option}'
            self.api.revoke(self.context, 'test', project_id='project-1')
            self.api.renew_lease(
                self.context,
                proxy.id,
                closed=[Closing(session_id, 'x') for session_id in self.sessions()],
            )
            granted = self.authorize(console_type='novnc')
            for _ in range(2):
                proxy.open(granted.token)
            self.set(**{name: 2})
            error = self.assert_refused('too_many_sessions', proxy.open, granted.token)
            self.assertEqual(scope, error.kwargs['scope'])
            self.assertEqual(2, len(self.sessions()))
            self.set(**{name: 0})

    def test_a_single_use_token_opens_one_session(self):
        self.set(consoleauth__single_use=True)
        granted = self.authorize(console_type='novnc')
        proxy = self.proxy()
        self.assertEqual(10000, self.api.validate(self.context, granted.token).port)
        session = proxy.open(granted.token)
        self.assert_refused('invalid_token', proxy.open, granted.token)
        self.assert_refused('invalid_token', self.api.validate, self.context, granted.token)
        self.assertEqual(
            session.id, proxy.open(granted.token, session.id).id
        )  # a repeated request is not another use

    def test_a_refused_open_does_not_spend_the_token(self):
        self.set(consoleauth__single_use=True)
        first, second = self.authorize(), self.authorize()
        proxy = self.proxy()
        session = proxy.open(first.token)
        self.assert_refused('console_in_use', proxy.open, second.token)
        self.api.close_session(self.context, Closing(session.id, 'left'))
        self.assertEqual(10000, proxy.open(second.token).console.port)

    def test_an_open_of_a_dead_proxy_does_not_spend_the_token(self):
        self.set(consoleauth__single_use=True)
        granted = self.authorize()
        dead = self.proxy()
        self.end_lease(dead)
        self.assert_refused('proxy_unknown', dead.open, granted.token)
        self.assertEqual(10000, self.proxy().open(granted.token).console.port)

    def test_a_type_without_a_proxy(self):
        granted = self.authorize(console_type='rdp-html5')
        self.assertEqual('rdp-html5', self.api.validate(self.context, granted.token).console_type)
        self.assert_refused('console_gone', self.proxy().open, granted.token)

    # takeover

    def test_stealing_waits_for_the_cut(self):
        self.set(serial_console__takeover='steal')
        granted = self.authorize()
        proxy = self.proxy(receive_cuts=True)
        old = proxy.open(granted.token)
        stolen = []
        thief = threading.Thread(target=lambda: stolen.append(proxy.open(granted.token)))
        thief.start()
        self.addCleanup(thief.join)
        self.assertEqual((old.id, 'taken_over'), proxy.cuts.get(timeout=30))
        self.assertEqual([], stolen)  # the port is never used twice
        self.assertEqual({old.id}, self.sessions())
        self.api.close_session(self.context, Closing(old.id, 'taken_over'))
        thief.join(30)
        self.assertEqual({stolen[0].id}, self.sessions())

    def test_stealing_from_a_proxy_that_does_not_cut(self):
        self.set(serial_console__takeover='steal', manager__takeover_timeout=1)
        granted = self.authorize()
        proxy = self.proxy()
        old = proxy.open(granted.token)
        self.assert_refused('console_in_use', proxy.open, granted.token)
        self.assertEqual({old.id}, self.sessions())
        self.assertEqual({old.id: 'taken_over'}, self.api.renew_lease(self.context, proxy.id).cut)

    # leases

    def test_invariant_4_a_dead_proxy_holds_nothing(self):
        """Its lease ends although nobody closes its sessions."""
        self.set(manager__lease=3)
        granted = self.authorize()
        dead = self.proxy()
        dead.open(granted.token)
        self.set(manager__lease=60)
        alive = self.proxy()

        def opened():
            try:
                return alive.open(granted.token)
            except exception.ConsoleInUse:
                return None

        session = wait_until(opened, what='the end of the lease')
        self.assertEqual({session.id}, self.sessions())

    def test_invariant_4_an_ended_lease_counts_nowhere(self):
        self.define(10000)
        granted = self.authorize(10000)
        dead = self.proxy()
        dead.open(granted.token)
        self.end_lease(dead)
        self.assertEqual([], self.api.list_sessions(self.context).objects)
        free = self.api.list_free_ports(self.context, self.instance).objects
        self.assertEqual([10000], [console.port for console in free])
        self.assert_refused('proxy_unknown', dead.open, granted.token)
        self.assertEqual(10000, self.proxy().open(granted.token).console.port)

    def test_invariant_4_a_new_life_ends_the_old_ones(self):
        granted = self.authorize()
        old = self.proxy('proxy-a')
        old.open(granted.token)
        new = self.proxy('proxy-a')
        self.assertEqual(set(), self.sessions())
        self.assert_refused('proxy_unknown', self.api.renew_lease, self.context, old.id)
        self.assert_refused('proxy_unknown', old.open, granted.token)
        new.open(granted.token)

    def test_a_late_renewal_keeps_unlimited_sessions_and_ends_limited_ones(self):
        serial, screen = self.authorize(10000), self.authorize(5900, console_type='novnc')
        proxy = self.proxy()
        limited, unlimited = proxy.open(serial.token), proxy.open(screen.token)
        self.end_lease(proxy)
        renewed = self.api.renew_lease(self.context, proxy.id)
        self.assertEqual({limited.id: 'lease_lost'}, renewed.cut)
        self.assertEqual({unlimited.id}, self.sessions())
        self.assertEqual(1, len(self.api.list_sessions(self.context).objects))

    def test_an_unregistered_proxy(self):
        granted = self.authorize()
        unknown = base.new_uuid()
        self.assert_refused('proxy_unknown', self.api.renew_lease, self.context, unknown)
        self.assert_refused(
            'proxy_unknown', self.api.open_session, self.context, granted.token, base.new_uuid(), unknown
        )
        self.assertEqual(set(), self.sessions())

    def test_invariant_4_lost_answers_keep_no_port(self):
        """The proxy never got the answer to an open, so it does not know of the session."""
        granted = self.authorize()
        proxy = self.proxy()
        lost = proxy.open(granted.token)
        self.age(lost.id)
        now = proxy.registered.now
        self.api.renew_lease(self.context, proxy.id)
        self.assertEqual({lost.id}, self.sessions())
        self.api.renew_lease(self.context, proxy.id, sessions=[], as_of=now)
        self.assertEqual(set(), self.sessions())

    def test_an_old_list_of_sessions_does_not_end_younger_ones(self):
        granted = self.authorize()
        proxy = self.proxy()
        session = proxy.open(granted.token)
        for as_of in (proxy.registered.now, '2020-01-01T00:00:00+00:00'):
            self.api.renew_lease(self.context, proxy.id, sessions=[], as_of=as_of)
            self.assertEqual({session.id}, self.sessions())

    def test_a_proxy_is_told_of_sessions_it_has_lost(self):
        proxy = self.proxy()
        ghost = base.new_uuid()
        now = proxy.registered.now
        renewed = self.api.renew_lease(self.context, proxy.id, sessions=[ghost], as_of=now)
        self.assertEqual({ghost: 'lease_lost'}, renewed.cut)

    def test_a_proxy_closes_its_own_sessions_only(self):
        granted = self.authorize(console_type='novnc')
        session = self.proxy().open(granted.token)
        closing = [Closing(session.id, 'x')]
        self.api.renew_lease(self.context, self.proxy().id, closed=closing)
        self.assertEqual({session.id}, self.sessions())

    # revocation

    def test_invariant_5_revocation_reaches_live_sessions(self):
        granted = self.authorize(console_type='novnc')
        proxy = self.proxy(receive_cuts=True)
        sessions = {proxy.open(granted.token).id for _ in range(3)}
        revoked = self.api.revoke(self.context, 'abuse', instance_uuid=self.instance)
        self.assertEqual(Revocation(tokens=1, sessions=3), revoked)
        pushed = {proxy.cuts.get(timeout=30) for _ in range(3)}
        self.assertEqual({(session_id, 'abuse') for session_id in sessions}, pushed)
        pulled = self.api.renew_lease(self.context, proxy.id).cut
        self.assertEqual(dict.fromkeys(sessions, 'abuse'), pulled)
        again = self.api.revoke(self.context, 'abuse', instance_uuid=self.instance)
        self.assertEqual(Revocation(tokens=0, sessions=0), again)

    def test_invariant_5_one_session_and_its_token(self):
        granted = self.authorize(console_type='novnc')
        other = self.authorize(console_type='novnc')
        proxy = self.proxy()
        session, kept = proxy.open(granted.token), proxy.open(other.token)
        revoked = self.api.revoke(self.context, 'cut', session_id=session.id)
        self.assertEqual(Revocation(tokens=1, sessions=1), revoked)
        self.assert_refused('invalid_token', proxy.open, granted.token)
        self.assertEqual({session.id: 'cut'}, self.api.renew_lease(self.context, proxy.id).cut)
        self.assertEqual(kept.id, proxy.open(other.token, kept.id).id)

    def test_invariant_5_a_redefined_console_cuts_its_session(self):
        self.define(10000, 10001)
        proxy = self.proxy()
        gone, kept = (proxy.open(self.authorize(port).token) for port in (10000, 10001))
        self.define(10001)
        self.assertEqual({gone.id: 'console_gone'}, self.api.renew_lease(self.context, proxy.id).cut)
        self.assertEqual({gone.id, kept.id}, self.sessions())
        self.define(10001, compute_host='node-2')
        cut = {gone.id: 'console_gone', kept.id: 'console_moved'}
        wait_until(lambda: self.api.renew_lease(self.context, proxy.id).cut == cut, what='the move')

    def test_invariant_5_sessions_that_outlived_their_token(self):
        granted = self.authorize(console_type='novnc')
        proxy = self.proxy()
        session = proxy.open(granted.token)
        self.rows_of_change("UPDATE console_auth_token SET expires = '2020-01-01 00\\:00\\:00.000000'")
        self.api.clean_expired_console_auths_for_host(self.context, base.COMPUTE_HOST)
        wait_until(lambda: self.count('console_auth_token') == 0, what='the cleaning')
        self.assertEqual({session.id}, self.sessions())
        revoked = self.api.revoke(self.context, 'late', compute_host=base.COMPUTE_HOST)
        self.assertEqual(Revocation(tokens=0, sessions=1), revoked)


class MariaDBSessionsTest(_Sessions, base.CellTestCase):
    engine = 'mariadb'


class PostgreSQLSessionsTest(_Sessions, base.CellTestCase):
    engine = 'postgresql'


class SQLiteSessionsTest(_Sessions, base.CellTestCase):
    engine = 'sqlite'


class CheckPortTest(base.CellTestCase):
    """The compute agent is asked about a defined console before a session opens."""

    options = {'manager__check_port_timeout': 1.0}

    def open_defined(self, proxy):
        self.define(10000)
        return proxy.open(self.authorize(10000).token)

    def test_the_agent_is_asked(self):
        agent = self.agent()
        self.open_defined(self.proxy())
        asked = {
            'instance_uuid': self.instance,
            'host': base.ADDRESS,
            'port': 10000,
            'console_type': 'serial',
        }
        self.assertEqual([asked], agent.asked)

    def test_a_port_that_belongs_to_another_guest(self):
        self.agent().answer = lambda asked: False
        self.assertRaises(exception.ConsoleGone, self.open_defined, self.proxy())
        self.assertEqual(0, self.count('console_session'))

    def test_an_agent_that_does_not_know_the_guest(self):
        def unknown(asked):
            raise exception.InstanceNotFound(instance_uuid=asked['instance_uuid'])

        self.agent().answer = unknown
        self.assertRaises(exception.ConsoleGone, self.open_defined, self.proxy())

    def test_an_open_that_is_repeated_asks_again(self):
        """A proxy that was slow to connect asks whether it still may."""
        self.set(consoleauth__single_use=True)
        agent, proxy = self.agent(), self.proxy()
        self.define(10000)
        token = self.authorize(10000).token
        session = proxy.open(token)
        self.assertEqual(session.id, proxy.open(token, session.id).id)
        self.assertEqual(2, len(agent.asked))
        agent.answer = lambda asked: False
        self.assert_refused('console_gone', proxy.open, token, session.id)

    def test_no_agent(self):
        self.define(10000, compute_host='node-none')
        token = self.authorize(10000, compute_host='node-none').token
        self.assertRaises(exception.ComputeUnreachable, self.proxy().open, token)
        self.assertEqual(0, self.count('console_session'))

    def test_a_console_that_was_only_authorized_is_not_asked_about(self):
        agent = self.agent()
        self.proxy().open(self.authorize().token)
        self.assertEqual([], agent.asked)

    def test_a_console_authorized_in_addition_to_the_defined_ones_is_asked_about(self):
        """The instance has an agent, which must confirm a console that it did not define."""
        agent = self.agent()
        self.define(10000)
        self.proxy().open(self.authorize(10005).token)
        self.assertEqual([10005], [asked['port'] for asked in agent.asked])

    def test_the_check_can_be_switched_off(self):
        self.set(manager__check_port=False)
        self.open_defined(self.proxy())
        self.assertEqual(1, self.count('console_session'))


class BackportTest(base.CellTestCase):
    def test_a_manager_gives_the_older_form_of_an_object(self):
        grant = base.a_grant(self.instance, 1)
        older = self.api.object_backport_versions(
            RequestContext(), grant.obj_to_primitive(), {'ConsoleAuthToken': '1.0'}
        )
        self.assertIsInstance(older, objects.ConsoleAuthToken)
        self.assertRaises(
            exception.InvalidArgument,
            self.api.object_backport_versions,
            RequestContext(),
            grant.obj_to_primitive(),
            {'Something': '1.0'},
        )


class OthersTest(base.CellTestCase):
    """A compute host, a console or a project that lets opens wait takes nothing from the others."""

    def in_parallel(self, *calls):
        """Make calls at the same moment; return the list that gets the code of each outcome."""
        barrier, codes = threading.Barrier(len(calls)), []

        def run(call):
            barrier.wait(30)
            try:
                call()
                codes.append('ok')
            except exception.ConsoledException as exc:
                codes.append(exc.code)

        for call in calls:
            thread = threading.Thread(target=run, args=(call,), daemon=True)
            thread.start()
            self.addCleanup(thread.join)
        return codes

    def tokens_of(self, count, *compute_hosts):
        """Define the console of a guest on each of these hosts; return ``count`` tokens for them in turn."""
        consoles = [
            base.a_console(base.new_uuid(), 10000, 'novnc', compute_host=compute_host)
            for compute_host in compute_hosts
        ]
        for console in consoles:
            self.api.define_consoles(
                self.context,
                console.instance_uuid,
                console.compute_host,
                objects.ConsoleConnectionList(objects=[console]),
                wait=True,
            )
        grants = [
            base.a_grant(
                each.instance_uuid, each.port, 'novnc', host=each.host, compute_host=each.compute_host
            )
            for each in itertools.islice(itertools.cycle(consoles), count)
        ]
        return [self.api.authorize(self.context, grant).token for grant in grants]

    def setUp(self):
        super().setUp()
        self.go_on = threading.Event()

    def hang(self, *compute_hosts):
        agents = [self.agent(compute_host) for compute_host in compute_hosts]
        for agent in agents:
            agent.answer = lambda asked: self.go_on.wait(60)
        self.addCleanup(self.go_on.set)  # before the agents are drained
        return agents

    def test_a_burst_of_opens_on_one_host_is_not_refused(self):
        self.set(manager__check_port_timeout=20)  # the agent is in this busy process
        self.agent('node-1')
        proxy = self.proxy()
        opens = [functools.partial(proxy.open, token) for token in self.tokens_of(40, 'node-1')]
        codes = self.in_parallel(*opens)
        wait_until(lambda: len(codes) == 40, what='all answers')
        self.assertEqual(['ok'] * 40, codes)

    def test_hosts_that_hang_leave_the_consoles_of_others(self):
        self.agent('node-8'), self.agent('node-9')
        proxy = self.proxy()
        for hung in (['node-1'], ['node-2', 'node-3', 'node-4']):
            with self.subTest(hung=hung):
                self.hang(*hung)
                bad, good = self.tokens_of(8 * len(hung), *hung), self.tokens_of(40, 'node-8', 'node-9')
                refused = self.in_parallel(*(functools.partial(proxy.open, token) for token in bad))
                codes = self.in_parallel(*(functools.partial(proxy.open, token) for token in good))
                wait_until(lambda: len(codes) == 40, what='all answers')  # noqa: B023
                self.assertEqual(['ok'] * 40, codes)
                wait_until(lambda: len(refused) == len(bad), what='all refusals')  # noqa: B023
                self.assertEqual({'compute_unreachable'}, set(refused))

    def test_a_host_that_hangs_is_left_alone_and_then_tried_again(self):
        (agent,) = self.hang('node-1')
        proxy = self.proxy()
        (token,) = self.tokens_of(1, 'node-1')
        for _ in range(5):
            self.assert_refused('compute_unreachable', proxy.open, token)
        self.assertEqual(1, len(agent.asked))
        self.go_on.set()
        wait_until(
            lambda: base.none_if(exception.ComputeUnreachable, proxy.open, token), what='another attempt'
        )

    def test_a_guest_that_hangs_leaves_the_other_guests_of_its_host(self):
        agent, proxy = self.agent('node-1'), self.proxy()
        granted = self.tokens_of(16, 'node-1', 'node-1')
        hung = self.api.validate(self.context, granted[0]).instance_uuid

        def answer(asked):
            if asked['instance_uuid'] == hung:
                self.go_on.wait(1.5)
                raise exception.HypervisorUnreachable()
            return True

        agent.answer = answer
        refused = self.in_parallel(*(functools.partial(proxy.open, token) for token in granted[::2]))
        wait_until(lambda: len(agent.asked) >= 2, what='the calls that hang')
        for _ in range(2):
            codes = self.in_parallel(*(functools.partial(proxy.open, token) for token in granted[1::2]))
            wait_until(lambda: len(codes) == 8, what='all answers')  # noqa: B023
            self.assertEqual(['ok'] * 8, codes)
            wait_until(lambda: len(refused) == 8, what='all refusals')
        self.assertTrue(set(refused) <= {'hypervisor_unreachable', 'compute_unreachable'}, refused)

    def test_a_console_whose_session_is_not_cut_leaves_those_of_others(self):
        self.set(serial_console__takeover='steal', manager__takeover_timeout=3)
        self.set(manager__check_port_timeout=20)  # the agents are in this busy process
        proxy = self.proxy()
        token = self.authorize(10000).token
        proxy.open(token)
        self.agent('node-8'), self.agent('node-9')
        good = self.tokens_of(60, 'node-8', 'node-9')
        refused = self.in_parallel(*[functools.partial(proxy.open, token)] * 16)
        codes = self.in_parallel(*(functools.partial(proxy.open, token) for token in good))
        wait_until(lambda: len(codes) == 60, what='all answers')
        self.assertEqual(['ok'] * 60, codes)
        wait_until(lambda: len(refused) == 16, what='all refusals')
        self.assertEqual({'console_in_use'}, set(refused))

    def test_a_project_whose_sessions_are_not_cut_leaves_the_takeovers_of_others(self):
        self.set(serial_console__takeover='steal', manager__takeover_timeout=3)
        proxy = self.proxy(receive_cuts=True)
        stuck = [
            self.api.authorize(self.context, base.a_grant(base.new_uuid(), 10100 + number)).token
            for number in range(16)
        ]
        for token in stuck:
            proxy.open(token)
        token = self.authorize(10000, project_id='project-2').token
        session = proxy.open(token)
        refused = self.in_parallel(*(functools.partial(proxy.open, each) for each in stuck))
        codes = self.in_parallel(functools.partial(proxy.open, token))
        while proxy.cuts.get(timeout=30)[0] != session.id:
            pass
        self.api.close_session(self.context, Closing(session.id, 'taken_over'))
        wait_until(lambda: codes, what='the answer')
        self.assertEqual(['ok'], codes)
        wait_until(lambda: len(refused) == 16, what='all refusals')
        self.assertEqual({'console_in_use'}, set(refused))
