# SPDX-License-Identifier: Apache-2.0
"""Other serial ports of an instance: who may open which, when the port of a token is taken."""

import sqlalchemy as sa

from consoled import exception, objects
from consoled.db import models
from consoled.objects import EndReason
from tests.functional import base as functional_base
from tests.unit.manager import base

_T = models.console_auth_token.c


class OtherPortsCase(base.ManagerCase):
    """A guest with four serial ports and a screen. ``token`` is for the first port, which is connected."""

    ports = (10000, 10001, 10002, 10003)
    other_ports = 'offer'

    def setUp(self):
        super().setUp()
        self.config.set(serial_console__other_ports=self.other_ports)
        self.define_guest(*self.ports)
        self.proxy_id = self.proxy()
        self.token = self.authorize(10000).token
        self.first = self.open(self.proxy_id, self.token)

    def define_guest(self, *ports, screen=5900):
        consoles = [functional_base.a_console(self.instance, port, 'serial') for port in ports]
        consoles.append(functional_base.a_console(self.instance, screen, 'novnc'))
        wanted = objects.ConsoleConnectionList(objects=consoles)
        self.api.define_consoles(self.context, self.instance, base.COMPUTE_HOST, wanted)

    def choose(self, number, token=None, session_id=None):
        return self.open(self.proxy_id, token or self.token, session_id, number)

    def refused(self, error, *args, **kwargs):
        return self.assertRaises(error, self.open, self.proxy_id, *args, **kwargs)

    def in_use(self, token=None, **kwargs):
        """Return what a refusal says of other ports: how many there are, and which are free."""
        kwargs = self.refused(exception.ConsoleInUse, token or self.token, **kwargs).kwargs
        self.assertIn('since', kwargs)
        return kwargs.get('serial_ports'), kwargs.get('free_ports')

    def contest(self, *ports):
        """Let another compute host define a guest at the same addresses."""
        other = functional_base.new_uuid()
        consoles = [
            functional_base.a_console(
                other, port, 'serial', host=functional_base.ADDRESS, compute_host='node-2'
            )
            for port in ports
        ]
        wanted = objects.ConsoleConnectionList(objects=consoles)
        self.api.define_consoles(self.context, other, 'node-2', wanted)


class OfferTest(OtherPortsCase):
    def test_a_refusal_names_the_free_ports(self):
        self.assertEqual((4, [2, 3, 4]), self.in_use())
        self.choose(3)
        self.assertEqual((4, [2, 4]), self.in_use())

    def test_a_chosen_port_is_opened(self):
        session = self.choose(2)
        self.assertEqual((self.instance, 10001), (session.console.instance_uuid, session.console.port))
        self.assertEqual('2', session.console.options['serial_port'])
        self.assertEqual((self.instance, 10001), self.agents.asked[-1])
        self.assertEqual({self.first.id, session.id}, self.sessions())

    def test_nothing_is_switched_that_the_user_has_not_chosen(self):
        self.in_use()
        self.assertEqual({self.first.id}, self.sessions())

    def test_the_tokens_own_port_may_be_named(self):
        self.config.set(serial_console__other_ports='refuse')
        self.close(self.first)
        session = self.choose(1)
        self.assertEqual((10000, None), (session.console.port, session.console.options.get('serial_port')))

    def test_a_chosen_port_that_is_taken_is_refused_with_what_is_free_now(self):
        self.choose(2)
        self.assertEqual((4, [3, 4]), self.in_use(serial_port=2))
        self.close(self.first)
        self.assertEqual((4, [1, 3, 4]), self.in_use(serial_port=2))

    def test_a_refusal_does_not_spend_a_single_use_token(self):
        self.config.set(consoleauth__single_use=True)
        self.close(self.first)
        self.open(self.proxy_id, self.token)
        token = self.authorize(10000).token
        before = self.used_tokens()
        self.assertEqual((4, [2, 3, 4]), self.in_use(token))
        self.assertEqual(before, self.used_tokens())
        session = self.choose(2, token)
        self.assertEqual(session.id, self.choose(2, token, session.id).id)
        self.refused(exception.InvalidToken, token, serial_port=3)
        self.refused(exception.InvalidToken, token)

    def used_tokens(self):
        rows = self.db.single(lambda conn: conn.execute(sa.select(_T.used_at)).scalars().all())
        return sum(moment is not None for moment in rows)

    def test_ports_that_do_not_exist(self):
        for number in (5, 256):
            self.refused(exception.ConsoleGone, self.token, serial_port=number)
        for number in (0, -1, 257, True, '2', 2.0):
            self.refused(exception.InvalidArgument, self.token, serial_port=number)
        self.assertEqual({self.first.id}, self.sessions())

    def test_only_serial_ports_open_serial_ports(self):
        self.refused(
            exception.InvalidArgument, self.authorize(5900, console_type='novnc').token, serial_port=2
        )
        self.config.set(vnc__max_sessions=1)
        token = self.authorize(5900, console_type='novnc').token
        self.open(self.proxy_id, token)
        self.assertEqual((None, None), self.in_use(token))

    def test_a_token_of_another_instance_opens_its_own_ports_only(self):
        other = functional_base.new_uuid()
        token = self.authorize(20000, instance=other).token
        self.refused(exception.InvalidArgument, token, serial_port=2)
        consoles = [functional_base.a_console(other, port, 'serial') for port in (20000, 20001)]
        self.api.define_consoles(
            self.context, other, base.COMPUTE_HOST, objects.ConsoleConnectionList(objects=consoles)
        )
        session = self.choose(2, self.authorize(20000, instance=other).token)
        self.assertEqual((other, 20001), (session.console.instance_uuid, session.console.port))

    def test_unknown_tokens_learn_nothing(self):
        self.refused(exception.InvalidToken, 'x' * 43, serial_port=2)

    def test_a_guest_that_no_agent_has_defined_has_the_port_of_its_token(self):
        self.instance = functional_base.new_uuid()
        for port in (11000, 11001):
            self.authorize(port)
        token = self.authorize(11000).token
        self.open(self.proxy_id, token)
        self.assertEqual((None, None), self.in_use(token))
        self.refused(exception.InvalidArgument, token, serial_port=2)

    def test_a_guest_on_another_compute_host(self):
        self.define(10000, 10001, compute_host='node-2')
        self.refused(exception.InvalidToken, self.token, serial_port=2)

    def test_the_agent_is_asked_about_the_chosen_port(self):
        for answer, error in (
            (False, exception.ConsoleGone),
            (exception.ComputeUnreachable(reason='no answer in time'), exception.ComputeUnreachable),
        ):
            self.agents.answer = answer
            self.refused(error, self.token, serial_port=2)
        self.assertEqual({self.first.id}, self.sessions())

    def test_contested_ports_are_not_offered_and_not_opened(self):
        self.contest(10001, 10002)
        self.assertEqual((4, [4]), self.in_use())
        self.refused(exception.ConsoleContested, self.token, serial_port=2)
        self.contest(10000)
        self.refused(exception.ConsoleContested, self.token, serial_port=4)
        self.assertEqual({self.first.id}, self.sessions())

    def test_limits_count_other_ports_too(self):
        for scope in ('token', 'instance', 'project'):
            self.config.set(**{f'manager__max_sessions_per_{scope}': 1})
            self.refused(exception.TooManySessions, self.token, serial_port=2)
            self.config.set(**{f'manager__max_sessions_per_{scope}': 0})
        self.choose(2)

    def test_an_offered_port_is_not_taken_over(self):
        self.choose(2)
        self.config.set(serial_console__takeover='steal')
        self.assertEqual((4, [3, 4]), self.in_use(serial_port=2))
        self.assertEqual([], self.proxies.cuts)

    def test_a_takeover_that_the_operator_wants_comes_before_an_offer(self):
        self.config.set(serial_console__takeover='steal')
        self.proxies.on_cut = lambda session_ids: self.close(self.first)
        self.assertEqual(10000, self.open(self.proxy_id, self.token).console.port)

    def test_a_repeated_request_gets_the_same_session(self):
        session = self.choose(2)
        self.close(self.first)
        for number in (2, None, 3):
            repeated = self.choose(number, session_id=session.id)
            self.assertEqual((session.id, 10001), (repeated.id, repeated.console.port))
            self.assertEqual('2', repeated.console.options['serial_port'])
            self.assertEqual((self.instance, 10001), self.agents.asked[-1])
        self.assertEqual({session.id}, self.sessions())

    def test_the_session_id_of_another_token_opens_nothing(self):
        session = self.choose(2)
        other = self.authorize(10002).token
        for number in (None, 2, 4):
            self.refused(exception.InvalidArgument, other, session.id, number)

    def test_revoking_cuts_the_session_of_the_other_port(self):
        for filters in ({'instance_uuid': self.instance}, {'project_id': 'project-1'}, None):
            token = self.authorize(10000).token
            session = self.choose(2, token)
            self.api.revoke(self.context, 'test', **(filters or {'session_id': session.id}))
            self.assertIn((session.id, 'test'), self.proxies.cuts)
            self.refused(exception.InvalidToken, token, serial_port=2)
            self.close(session)

    def test_a_port_that_vanishes_takes_its_session_along(self):
        session = self.choose(2)
        self.define_guest(10000, 10002, 10003)
        self.assertIn((session.id, EndReason.CONSOLE_GONE), self.proxies.cuts)
        self.refused(exception.ConsoleGone, self.token, session.id, 2)


class ReasonTest(OtherPortsCase):
    """A proxy asks why an open was refused that another process has refused."""

    def explain(self, token=None, serial_port=None):
        return self.api.validate(self.context, token or self.token, to_open=True, serial_port=serial_port)

    def in_use(self, *args, **kwargs):
        kwargs = self.assertRaises(exception.ConsoleInUse, self.explain, *args, **kwargs).kwargs
        self.assertIn('since', kwargs)
        return kwargs.get('serial_ports'), kwargs.get('free_ports')

    def test_the_reason_is_that_of_the_open(self):
        asked = len(self.agents.asked)
        self.assertEqual((4, [2, 3, 4]), self.in_use())
        self.choose(3)
        self.assertEqual((4, [2, 4]), self.in_use(serial_port=3))
        self.config.set(serial_console__other_ports='refuse')
        self.assertEqual((None, None), self.in_use())
        self.assertEqual(asked + 1, len(self.agents.asked), 'only the open asks the agent')

    def test_what_could_be_opened_is_valid(self):
        self.assertEqual(10000, self.explain(serial_port=2).port)
        self.config.set(serial_console__other_ports='next')
        self.assertEqual(10000, self.explain().port)
        self.config.set(serial_console__other_ports='offer', serial_console__takeover='steal')
        self.assertEqual(10000, self.explain().port)
        self.config.set(serial_console__takeover='refuse')
        self.close(self.first)
        self.assertEqual(10000, self.explain().port)
        self.assertEqual(set(), self.sessions())

    def test_consoles_without_a_limit_and_callers_that_do_not_ask(self):
        screen = self.authorize(5900, console_type='novnc').token
        self.open(self.proxy_id, screen)
        self.assertEqual(5900, self.explain(screen).port)
        self.assertEqual(10000, self.api.validate(self.context, self.token).port)

    def test_a_token_that_is_not_valid_learns_nothing(self):
        self.assertRaises(exception.InvalidToken, self.explain, 'x' * 43)
        self.assertRaises(exception.InvalidToken, self.explain, 'x' * 43, 2)


class RefuseTest(OtherPortsCase):
    other_ports = 'refuse'

    def test_nothing_is_offered_and_nothing_can_be_chosen(self):
        self.assertEqual((None, None), self.in_use())
        for number in (2, 9):
            self.refused(exception.InvalidArgument, self.token, serial_port=number)
        self.assertEqual({self.first.id}, self.sessions())


class NextTest(OtherPortsCase):
    other_ports = 'next'

    def next(self, token=None, session_id=None):
        console = self.open(self.proxy_id, token or self.token, session_id).console
        return console.port, console.options.get('serial_port')

    def test_each_user_gets_the_next_free_port_until_none_is_left(self):
        self.assertEqual((10001, '2'), self.next())
        self.assertEqual((10002, '3'), self.next())
        self.assertEqual((10003, '4'), self.next())
        self.assertEqual((None, None), self.in_use())

    def test_the_next_port_is_the_one_after_the_tokens_own(self):
        token = self.authorize(10002).token
        self.assertEqual((10002, None), self.next(token))
        self.assertEqual((10003, '4'), self.next(token))
        self.close(self.first)
        self.assertEqual((10000, '1'), self.next(token))

    def test_the_tokens_own_port_comes_first(self):
        self.close(self.first)
        self.assertEqual((10000, None), self.next())

    def test_ports_that_are_no_longer_the_guests_are_passed_over(self):
        check = self.agents.check_console
        self.agents.check_console = lambda context, console, timeout: (
            check(context, console, timeout) and console.port != 10001
        )
        self.assertEqual((10002, '3'), self.next())

    def test_contested_ports_are_passed_over(self):
        self.contest(10001)
        self.assertEqual((10002, '3'), self.next())

    def test_an_agent_that_does_not_answer_is_a_refusal(self):
        asked = []

        def check(context, console, timeout):
            asked.append(console.port)
            if console.port != 10000:
                raise exception.ComputeUnreachable(reason='no answer in time')
            return True

        self.agents.check_console = check
        self.refused(exception.ComputeUnreachable, self.token)
        self.assertEqual([10000, 10001], asked)

    def test_a_free_port_is_preferred_to_a_takeover(self):
        self.config.set(serial_console__takeover='steal')
        for port in (10001, 10002, 10003):
            self.assertEqual(port, self.next()[0])
        self.assertEqual([], self.proxies.cuts)
        self.proxies.on_cut = lambda session_ids: self.close(self.first)
        self.assertEqual((10000, None), self.next())
        self.assertEqual([(self.first.id, EndReason.TAKEN_OVER)], self.proxies.cuts)

    def test_a_chosen_port_is_opened_or_refused(self):
        self.assertEqual(10002, self.choose(3).console.port)
        self.assertEqual((4, [2, 4]), self.in_use(serial_port=3))

    def test_a_repeated_request_gets_the_same_session(self):
        session_id = functional_base.new_uuid()
        self.assertEqual((10001, '2'), self.next(session_id=session_id))
        self.close(self.first)
        self.assertEqual((10001, '2'), self.next(session_id=session_id))

    def test_a_single_use_token_is_spent_once(self):
        self.config.set(consoleauth__single_use=True)
        token = self.authorize(10000).token
        self.assertEqual((10001, '2'), self.next(token))
        self.refused(exception.InvalidToken, token)

    def test_a_limit_is_a_refusal(self):
        self.config.set(manager__max_sessions_per_instance=1)
        self.refused(exception.TooManySessions, self.token)

    def test_an_instance_with_one_port(self):
        self.define_guest(10000)
        self.assertEqual((None, None), self.in_use())
