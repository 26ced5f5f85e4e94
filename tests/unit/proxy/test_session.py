# SPDX-License-Identifier: Apache-2.0
"""One session: its transitions, its timeouts, and its end."""

import asyncio
import datetime
import itertools
import time
from unittest import mock

import testtools
from hypothesis import given, settings
from hypothesis import strategies as st

from consoled.objects import EndReason
from consoled.proxy.session import TRANSITIONS, Event, InvalidTransition, Session, State, Timeouts
from tests.unit.proxy import relay_base as relays
from tests.unit.proxy.session_base import (
    ADDRESS,
    PATIENT,
    TIMEOUTS,
    TOKEN,
    Process,
    Recorder,
    SessionCase,
    granted,
)

unhurried = settings(deadline=None)


class EndTimeTest(SessionCase):
    @unhurried
    @given(
        st.datetimes(
            datetime.datetime(1990, 1, 1), datetime.datetime(2090, 1, 1), timezones=st.just(datetime.UTC)
        ),
        st.integers(1, 10**6),
        st.floats(0, 10**6),
    )
    def test_invariant_2_the_duration_does_not_depend_on_the_clock_of_the_proxy(
        self, connected_at, lasts, now
    ):
        session = Session(('hash', ADDRESS), Recorder())
        session.grant(granted(connected_at=connected_at, lasts=lasts), now)
        self.assertAlmostEqual(now + lasts, session.ends_at, places=3)

    def test_a_session_without_an_end_time_has_none(self):
        session = Session(('hash', ADDRESS), Recorder())
        session.grant(granted(), 1.0)
        self.assertIsNone(session.ends_at)

    def test_a_session_ends_at_its_end_time(self):
        async def work():
            process = Process()
            session, wire = process.open(lasts=60)
            session.check(PATIENT, session.ends_at - 0.1)
            self.assertIsNone(session.end_reason)
            session.check(PATIENT, session.ends_at)
            self.assertEqual([4408], self.codes(wire))
            await relays.settle()
            self.assertEqual([(session, EndReason.TIME_OVER)], process.over)

        relays.run(work)


class SerialPortTest(SessionCase):
    def test_the_number_comes_from_the_managers_answer(self):
        for option, number in (
            (None, None),
            ('2', 2),
            ('256', 256),
            ('x', None),
            ('-1', None),
            ('٢', None),
            ('9' * 1000, None),
        ):
            answer = granted('serial')
            answer.console.options = {'serial_port': option}
            session = Process().registry.create(TOKEN, ADDRESS)
            session.serial_port = 7
            session.grant(answer, 0.0)
            self.assertEqual(number, session.serial_port)


class IdleTest(SessionCase):
    def test_a_session_without_input_is_idle_whatever_else_is_sent(self):
        async def work():
            loop = asyncio.get_running_loop()
            process = Process()
            timeouts = Timeouts(idle=600, ping_interval=10**9, ping_timeout=10**9, greeting=10)
            session, wire = process.open('serial')
            await asyncio.sleep(500)
            wire.send(b'x')
            wire.guest.sends(b'output of the guest is not input')
            await asyncio.sleep(599)
            session.check(timeouts, loop.time())
            self.assertIsNone(session.end_reason)
            wire.channel.ping()
            wire.receive()  # a pong is not input
            await asyncio.sleep(2)
            session.check(timeouts, loop.time())
            self.assertEqual([4408], self.codes(wire))
            self.assertEqual(EndReason.IDLE, session.end_reason)

        relays.run(work)

    def test_without_an_idle_timeout_no_session_is_idle(self):
        async def work():
            process = Process()
            session, _ = process.open()
            session.check(PATIENT, asyncio.get_running_loop().time() + 10**8)
            self.assertIsNone(session.end_reason)

        relays.run(work)

    def test_a_session_without_a_channel_is_not_idle(self):
        """Connecting has its own deadline."""

        async def work():
            process = Process()
            session = process.granted(lasts=10**6)
            session.check(TIMEOUTS, session.granted_at + 10000)
            self.assertIsNone(session.end_reason)
            session.check(TIMEOUTS, session.granted_at + 10**6)
            self.assertEqual(EndReason.TIME_OVER, session.end_reason)

        relays.run(work)


class EndTest(SessionCase):
    def test_a_session_whose_only_websocket_fails_to_connect_ends(self):
        async def work():
            process = Process()
            session = process.granted()
            self.assertEqual([session.id], process.registry.ids())
            session.abandon(EndReason.OPEN_FAILED)
            self.assertEqual([(session, EndReason.OPEN_FAILED)], process.over)
            self.assertEqual([], process.registry.ids())

        relays.run(work)

    def test_a_further_websocket_that_fails_to_connect_does_not_end_the_session(self):
        async def work():
            process = Process()
            session, _ = process.open('spice-html5')
            session.join()
            session.abandon(EndReason.OPEN_FAILED)
            self.assertEqual(([], None), (process.over, session.end_reason))

        relays.run(work)

    def test_a_session_does_not_end_while_another_websocket_is_connecting(self):
        """A reloaded page opens its new websockets before the old ones have ended."""

        async def work():
            process = Process()
            session, wire = process.open('spice-html5')
            session.join()
            wire.guest.fails()
            await relays.settle()
            self.assertEqual(([], None), (process.over, session.end_reason))
            self.assertIs(session, process.registry.find(TOKEN, ADDRESS))
            session.abandon(EndReason.OPEN_FAILED)
            self.assertEqual([(session, EndReason.GUEST_CLOSED)], process.over)

        relays.run(work)

    def test_the_first_websocket_that_fails_to_connect_does_not_end_the_others(self):
        async def work():
            process = Process()
            session = process.granted('spice-html5')
            session.join()
            session.abandon(EndReason.OPEN_FAILED)
            self.assertIsNone(session.end_reason)
            wire = process.connect(session)
            wire.user.fails()
            await relays.settle()
            self.assertEqual([(session, EndReason.USER_LEFT)], process.over)

        relays.run(work)

    def test_a_session_that_is_cut_before_its_first_channel_keeps_the_reason(self):
        async def work():
            process = Process()
            session = process.granted()
            process.registry.cut({session.id: 'instance_gone'})
            session.abandon(EndReason.OPEN_FAILED)
            self.assertEqual([(session, 'instance_gone')], process.over)

        relays.run(work)

    def test_a_session_that_is_granted_and_cut_at_once_keeps_the_reason(self):
        async def work():
            process = Process()
            session = process.granted(cut_reason='revoked')
            self.assertEqual('revoked', session.end_reason)

        relays.run(work)

    def test_the_first_reason_counts(self):
        async def work():
            process = Process()
            session, wire = process.open(lasts=1)
            process.registry.cut({session.id: 'taken_over'})
            session.check(TIMEOUTS, session.ends_at + 10**6)
            process.registry.cut_all(EndReason.DRAINED)
            await relays.settle()
            self.assertEqual([(session, 'taken_over')], process.over)
            self.assertEqual([4409], self.codes(wire))

        relays.run(work)

    def test_observers_see_the_duration(self):
        async def work():
            process = Process()
            session, wire = process.open()
            session.granted_at = time.monotonic() - 100
            wire.guest.fails()
            await relays.settle()
            self.assertTrue(99 < process.recorder.seconds[0] < 200)

        relays.run(work)


class TransitionTest(testtools.TestCase):
    """Each event in each state."""

    LEGAL = {
        (State.OPENING, Event.GRANTED): State.CONNECTING,
        (State.OPENING, Event.END): State.ENDING,
        (State.OPENING, Event.RELEASED): State.ENDED,
        (State.CONNECTING, Event.CONNECTED): State.OPEN,
        (State.CONNECTING, Event.END): State.ENDING,
        (State.CONNECTING, Event.RELEASED): State.ENDED,
        (State.OPEN, Event.CONNECTED): State.OPEN,
        (State.OPEN, Event.END): State.ENDING,
        (State.OPEN, Event.RELEASED): State.ENDED,
        (State.ENDING, Event.GRANTED): State.ENDING,
        (State.ENDING, Event.END): State.ENDING,
        (State.ENDING, Event.RELEASED): State.ENDED,
        (State.ENDED, Event.END): State.ENDED,
    }

    def session(self, state):
        """Return a session in this state, reached by calls of its methods, and its observer."""
        recorder = Recorder()
        session = Session(('hash', ADDRESS), recorder)
        if state in (State.CONNECTING, State.OPEN):
            session.grant(granted(), 1.0)
        if state is State.OPEN:
            session.connected(mock.Mock(bytes_in=0, bytes_out=0, reason=None))
        if state is State.ENDING:
            session.end('revoked')
        if state is State.ENDED:
            session.abandon(EndReason.OPEN_FAILED)
        self.assertIs(state, session.state)
        return session, recorder

    def fire(self, session, event):
        """Call the method of the session that fires the event."""
        if event is Event.GRANTED:
            session.grant(granted(), 1.0)
        elif event is Event.CONNECTED:
            session.join()
            session.connected(mock.Mock(bytes_in=0, bytes_out=0, reason=None))
        elif event is Event.END:
            session.end('revoked')
        elif session.channels:
            session.connecting = 0
            session.channel_released(*session.channels)
        else:
            session.connecting = 1
            session.abandon(EndReason.OPEN_FAILED)

    def test_each_event_in_each_state_changes_the_state_or_is_invalid(self):
        for state, event in itertools.product(State, Event):
            session, recorder = self.session(state)
            before = list(recorder.calls)
            if (state, event) in self.LEGAL:
                self.fire(session, event)
                self.assertIs(self.LEGAL[state, event], session.state, (state, event))
            else:
                self.assertRaises(InvalidTransition, self.fire, session, event)
                self.assertIs(state, session.state)
            calls = [name for name, _ in recorder.calls[len(before) :]]
            opens = (state, event) == (State.CONNECTING, Event.CONNECTED)
            ends = session.state is State.ENDED and state is not State.ENDED
            joins = (state, event) == (State.OPEN, Event.CONNECTED)
            expected = ['opened'] * opens + ['joined'] * joins + ['ended'] * ends
            self.assertEqual(expected, calls, (state, event))

    def test_the_table_has_no_other_transitions(self):
        self.assertEqual(
            self.LEGAL,
            {(state, event): to for state, events in TRANSITIONS.items() for event, to in events.items()},
        )

    def test_each_state_is_reachable_and_only_ended_is_final(self):
        self.assertEqual(set(State) - {State.OPENING}, set(self.LEGAL.values()))
        for state in State:
            leaves = {to for (at, _), to in self.LEGAL.items() if at is state} - {state}
            self.assertEqual(state is State.ENDED, not leaves, state)
            self.assertEqual(state is State.ENDED, Event.RELEASED not in TRANSITIONS[state], state)

    def test_a_session_that_is_cut_before_it_is_granted_keeps_the_reason(self):
        session, recorder = self.session(State.OPENING)
        session.end('revoked')
        session.grant(granted(cut_reason='instance_gone'), 1.0)
        session.abandon(EndReason.OPEN_FAILED)
        self.assertEqual([(session, 'revoked')], recorder.over)

    def test_a_session_that_is_not_granted_has_no_console(self):
        session, _ = self.session(State.OPENING)
        self.assertFalse(session.granted)
        self.assertRaises(RuntimeError, lambda: session.console)
