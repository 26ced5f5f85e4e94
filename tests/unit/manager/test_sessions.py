# SPDX-License-Identifier: Apache-2.0
"""Opening a session: checks, limits, and taking a console over."""

import time
import types

import fixtures as fixtures_library
import sqlalchemy as sa

from consoled import exception
from consoled import token as tokens
from consoled.db import clock, models
from consoled.manager import sessions
from consoled.rpc.replies import Closing
from tests.functional import base as functional_base
from tests.unit.manager import base


class OpenTest(base.ManagerCase):
    def setUp(self):
        super().setUp()
        self.proxy_id = self.proxy()

    def test_the_session_has_what_the_token_grants(self):
        session = self.open(self.proxy_id, self.authorize(user_id='u', project_id='p').token)
        self.assertEqual(
            (self.instance, 10000, 'serial', 'u', 'p', '192.0.2.1', self.proxy_id),
            (
                session.console.instance_uuid,
                session.console.port,
                session.console.console_type,
                session.user_id,
                session.project_id,
                session.client_address,
                session.proxy_id,
            ),
        )

    def test_an_unknown_token(self):
        self.assertRaises(exception.InvalidToken, self.open, self.proxy_id, tokens.mint())

    def test_an_unregistered_proxy(self):
        token = self.authorize().token
        self.assertRaises(exception.ProxyUnknown, self.open, functional_base.new_uuid(), token)

    def test_a_repeated_request_gets_the_same_session(self):
        token = self.authorize().token
        session = self.open(self.proxy_id, token)
        self.assertEqual(session.connected_at, self.open(self.proxy_id, token, session.id).connected_at)
        self.assertEqual({session.id}, self.sessions())

    def test_a_single_use_token_opens_one_session(self):
        self.config.set(consoleauth__single_use=True)
        token = self.authorize(console_type='novnc').token
        session = self.open(self.proxy_id, token)
        self.assertEqual(session.id, self.open(self.proxy_id, token, session.id).id)
        self.assertRaises(exception.InvalidToken, self.open, self.proxy_id, token)

    def test_a_single_use_token_that_was_spent_long_ago_gives_its_session_no_further_channel(self):
        for single_use, allowed in ((True, False), (False, True)):
            self.config.set(consoleauth__single_use=True)
            token = self.authorize(console_type='spice-html5').token
            session = self.open(self.proxy_id, token)
            self.assertEqual(session.id, self.open(self.proxy_id, token, session.id).id)
            spent = sa.update(models.console_auth_token).values(used_at=clock.utc_after(-61))
            self.db.single(lambda conn, spent=spent: conn.execute(spent))
            self.config.set(consoleauth__single_use=single_use)
            if allowed:
                self.assertEqual(session.id, self.open(self.proxy_id, token, session.id).id)
            else:
                self.assertRaises(exception.InvalidToken, self.open, self.proxy_id, token, session.id)

    def test_an_expired_token_gives_its_session_no_further_channel(self):
        token = self.authorize(console_type='spice-html5').token
        session = self.open(self.proxy_id, token)
        expired = sa.update(models.console_auth_token).values(expires=clock.utc_after(-1))
        self.db.single(lambda conn: conn.execute(expired))
        self.assertRaises(exception.InvalidToken, self.open, self.proxy_id, token, session.id)
        self.assertEqual({session.id}, self.sessions())

    def test_a_type_without_a_proxy(self):
        token = self.authorize(console_type='rdp-html5').token
        self.assertRaises(exception.ConsoleGone, self.open, self.proxy_id, token)

    def test_a_session_that_ends_with_its_token(self):
        token = self.authorize(console_type='novnc').token
        self.assertIsNone(self.open(self.proxy_id, token).ends_at)
        self.config.set(consoleauth__enforce_session_timeout=True)
        self.assertIsNotNone(self.open(self.proxy_id, token).ends_at)

    def test_limits_are_read_at_each_open(self):
        for scope in ('token', 'instance', 'project'):
            token = self.authorize(10000, console_type='novnc').token
            self.open(self.proxy_id, token)
            option = f'manager__max_sessions_per_{scope}'
            self.config.set(**{option: 1})
            error = self.assertRaises(exception.TooManySessions, self.open, self.proxy_id, token)
            self.assertEqual({'limit': 1, 'scope': scope}, error.kwargs)
            self.config.set(**{option: 0})
            self.api.revoke(self.context, 'test', instance_uuid=self.instance)
            self.api.renew_lease(
                self.context,
                self.proxy_id,
                closed=[Closing(session_id, 'revoked') for session_id in self.sessions()],
            )


class CheckPortTest(base.ManagerCase):
    def setUp(self):
        super().setUp()
        self.proxy_id = self.proxy()
        self.define(10000)
        self.token = self.authorize().token

    def test_the_agent_is_asked_for_a_repeated_request_too(self):
        session = self.open(self.proxy_id, self.token)
        self.open(self.proxy_id, self.token, session.id)
        self.assertEqual([(self.instance, 10000)] * 2, self.agents.asked)
        self.agents.answer = False
        self.assertRaises(exception.ConsoleGone, self.open, self.proxy_id, self.token, session.id)

    def test_a_port_that_is_no_longer_the_guests(self):
        for answer in (
            False,
            exception.ConsoleGone(),
            exception.InstanceNotFound(instance_uuid=self.instance),
        ):
            self.agents.answer = answer
            self.assertRaises(exception.ConsoleGone, self.open, self.proxy_id, self.token)
        self.assertEqual(set(), self.sessions())

    def test_an_agent_that_does_not_say(self):
        for answer in (
            exception.ComputeUnreachable(),
            exception.HypervisorUnreachable(),
            exception.InstanceNotReady(instance_uuid=self.instance, reason='it is being migrated'),
        ):
            self.agents.answer = answer
            self.assertRaises(type(answer), self.open, self.proxy_id, self.token)
        self.assertEqual(set(), self.sessions())

    def test_the_agent_is_not_asked_if_there_is_none_or_check_port_is_off(self):
        self.agents.answer = False
        other = functional_base.new_uuid()
        self.open(self.proxy_id, self.authorize(instance=other).token)
        self.config.set(manager__check_port=False)
        self.open(self.proxy_id, self.token)
        self.assertEqual([], self.agents.asked)


class Clock:
    """Stands in for the module ``time``; sleeping takes none."""

    def __init__(self):
        self.now = 0.0
        self.during_sleep = lambda: None

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.during_sleep()


class TakeoverTest(base.ManagerCase):
    def setUp(self):
        super().setUp()
        clock = Clock()
        fake = types.SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep)
        self.useFixture(fixtures_library.MonkeyPatch(f'{sessions.__name__}.time', fake))
        self.clock = clock
        self.proxy_id = self.proxy()
        self.token = self.authorize().token
        self.session = self.open(self.proxy_id, self.token)

    def test_by_default_the_new_user_is_refused(self):
        error = self.assertRaises(exception.ConsoleInUse, self.open, self.proxy_id, self.token)
        since = self.session.connected_at.strftime('%Y-%m-%d %H:%M:%S UTC')
        self.assertEqual({'since': since}, error.kwargs)
        self.assertEqual([], self.proxies.cuts)

    def test_the_new_user_gets_the_slot_once_the_proxy_has_cut(self):
        self.config.set(serial_console__takeover='steal')
        sleeps = []

        def proxy_is_slow():
            sleeps.append(self.clock.now)
            if len(sleeps) == 3:
                self.close(self.session, 'taken_over')

        self.clock.during_sleep = proxy_is_slow
        session = self.open(self.proxy_id, self.token)
        self.assertEqual([(self.session.id, 'taken_over')], self.proxies.cuts)
        self.assertEqual({session.id}, self.sessions())
        self.assertEqual(3, len(sleeps))

    def test_a_proxy_that_does_not_cut_keeps_the_slot(self):
        self.config.set(serial_console__takeover='steal', manager__takeover_timeout=2)
        self.assertRaises(exception.ConsoleInUse, self.open, self.proxy_id, self.token)
        self.assertEqual({self.session.id}, self.sessions())
        self.assertAlmostEqual(2.0, self.clock.now, delta=0.2)

    def test_one_open_steals_from_one_session(self):
        self.config.set(serial_console__takeover='steal', serial_console__max_sessions=2)
        second = self.open(self.proxy_id, self.token)
        self.clock.during_sleep = lambda: None
        self.assertRaises(exception.ConsoleInUse, self.open, self.proxy_id, self.token)
        self.assertEqual([(self.session.id, 'taken_over')], self.proxies.cuts)
        # The next one steals from the session that nobody has stolen from yet.
        self.assertRaises(exception.ConsoleInUse, self.open, self.proxy_id, self.token)
        self.assertEqual((second.id, 'taken_over'), self.proxies.cuts[-1])

    def steal(self):
        return self.assertRaises(exception.ConsoleInUse, self.open, self.proxy_id, self.token)

    def test_opens_that_wait_for_one_console_leave_threads_for_the_others(self):
        self.config.set(serial_console__takeover='steal')
        self.useFixture(fixtures_library.MonkeyPatch(f'{sessions.__name__}._TAKEOVER_TURN', 0.0))
        other = self.authorize(instance=functional_base.new_uuid()).token
        self.clock.during_sleep = lambda: self.close(in_the_way)
        console = (self.instance, self.session.console.host, 10000)
        in_the_way = self.open(self.proxy_id, other)
        takeovers = self.endpoint._opener._takeovers
        with takeovers.permit({console: 2}), takeovers.permit({console: 2}):
            self.steal()
            self.assertEqual([], self.proxies.cuts)  # nothing was stolen for somebody who does not get it
            self.open(self.proxy_id, other)

    def test_the_takeovers_of_one_project_leave_threads_for_the_others(self):
        self.config.set(serial_console__takeover='steal')
        self.useFixture(fixtures_library.MonkeyPatch(f'{sessions.__name__}._TAKEOVER_TURN', 0.0))
        self.clock.during_sleep = lambda: self.close(self.session)
        takeovers = self.endpoint._opener._takeovers
        with takeovers.permit({'project-1': 2}), takeovers.permit({'project-1': 2}):
            self.steal()
        with takeovers.permit({'project-2': 2}), takeovers.permit({'project-2': 2}):
            self.open(self.proxy_id, self.token)

    def test_nobody_waits_for_takeovers_that_last(self):
        self.config.set(serial_console__takeover='steal')
        self.useFixture(fixtures_library.MonkeyPatch(f'{sessions.__name__}._TAKEOVER_TURN', 60.0))
        permits = self.endpoint._opener._takeovers._permits
        permits._held_since['project-1'] = [time.monotonic() - 61] * 2
        with fixtures_library.MockPatchObject(permits._changed, 'wait', side_effect=AssertionError):
            self.steal()

    def test_without_a_project_the_takeovers_of_an_instance_leave_threads_for_the_others(self):
        self.config.set(serial_console__takeover='steal')
        self.useFixture(fixtures_library.MonkeyPatch(f'{sessions.__name__}._TAKEOVER_TURN', 0.0))
        nobody = self.authorize(10001)
        update = sa.update(models.console_auth_token).values(project_id=None)
        self.db.single(lambda conn: conn.execute(update))
        self.open(self.proxy_id, nobody.token)
        takeovers = self.endpoint._opener._takeovers
        with takeovers.permit({self.instance: 2}), takeovers.permit({self.instance: 2}):
            self.assertRaises(exception.ConsoleInUse, self.open, self.proxy_id, nobody.token)
        self.assertEqual([], self.proxies.cuts)

    def test_a_session_that_no_proxy_cuts_is_not_waited_for_again_at_once(self):
        self.config.set(serial_console__takeover='steal')
        breaker = self.endpoint._opener._hung_cuts
        breaker._clock = self.clock.monotonic
        self.steal()
        waited = self.clock.now
        self.steal()
        self.assertEqual(waited, self.clock.now)
        self.clock.now += 30
        self.close(self.session)
        self.open(self.proxy_id, self.token)


class CheckTest(base.ManagerCase):
    """``SessionOpener.check``, for those who open consoles without a session."""

    def check(self, token):
        return self.endpoint._opener.check(self.context, token)

    def test_the_console_of_a_token_of_any_type(self):
        for port, console_type in enumerate(('serial', 'webmks', 'rdp-html5'), 10000):
            console = self.check(self.authorize(port, console_type=console_type).token)
            self.assertEqual((port, console_type), (console.port, console.console_type))
        self.assertEqual(set(), self.sessions())

    def test_check_refuses_whatever_an_open_refuses(self):
        self.assertRaises(exception.InvalidToken, self.check, tokens.mint())
        self.define(10000)
        token = self.authorize().token
        self.agents.answer = False
        self.assertRaises(exception.ConsoleGone, self.check, token)
        self.agents.answer = True
        self.config.set(consoleauth__single_use=True)
        self.check(token)
        self.open(self.proxy(), token)
        self.assertRaises(exception.InvalidToken, self.check, token)
        self.config.set(consoleauth__single_use=False)
        self.check(token)  # although the console is in use
