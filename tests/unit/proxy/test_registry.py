# SPDX-License-Identifier: Apache-2.0
"""The sessions of a process: found, joined, cut, and checked once a second."""

import asyncio
import uuid
from unittest import mock

import fixtures
import testtools
from hypothesis import given, settings, stateful
from hypothesis import strategies as st

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy.quota import SessionQuota
from consoled.proxy.registry import SessionRegistry
from consoled.proxy.security.rfb import UserHandshake
from consoled.proxy.session import State, Timeouts
from tests.unit.proxy import relay_base as relays
from tests.unit.proxy.session_base import (
    ADDRESS,
    OTHER,
    PATIENT,
    TIMEOUTS,
    TOKEN,
    Process,
    Recorder,
    SessionCase,
    granted,
)

unhurried = settings(deadline=None)


class JoinTest(SessionCase):
    def test_a_spice_client_has_one_session_for_all_its_websockets(self):
        async def work():
            process = Process()
            session, first = process.open('spice-html5')
            second = process.join()
            self.assertEqual({first.channel, second.channel}, session.channels)
            self.assertEqual(1, len(process.registry))
            first.guest.sends(b'12345')
            second.guest.sends(b'123')
            second.send(b'12')
            self.assertEqual((2, 8), (session.bytes_in, session.bytes_out))

        relays.run(work)

    def test_only_the_same_token_from_the_same_address_joins(self):
        async def work():
            process = Process()
            process.open('spice-html5')
            for token, address in ((OTHER, ADDRESS), (TOKEN, '192.0.2.2'), (TOKEN, None), (OTHER, None)):
                self.assertIsNone(process.registry.find(token, address))
            self.assertIsNotNone(process.registry.find(TOKEN, ADDRESS))

        relays.run(work)

    def test_only_spice_sessions_can_be_joined(self):
        async def work():
            for console_type in ('novnc', 'serial', 'webmks'):
                process = Process()
                process.open(console_type)
                self.assertIsNone(process.registry.find(TOKEN, ADDRESS), console_type)

        relays.run(work)

    def test_a_session_can_be_joined_before_its_first_channel_is_up(self):
        async def work():
            process = Process()
            session = process.granted('spice-html5')
            self.assertIs(session, process.registry.find(TOKEN, ADDRESS))

        relays.run(work)

    def test_invariant_1_the_clear_token_is_not_kept(self):
        async def work():
            process = Process()
            session, _ = process.open('spice-html5')
            self.assertNotIn(
                TOKEN, repr([[getattr(session, name) for name in session.__slots__], vars(process.registry)])
            )

        relays.run(work)

    def test_a_session_ends_with_its_last_channel(self):
        async def work():
            process = Process()
            session, first = process.open('spice-html5')
            second = process.join()
            first.guest.sends(b'12345')
            first.user.ends()
            await relays.settle()
            self.assertEqual([], process.over)
            self.assertIsNone(session.end_reason)
            self.assertIsNotNone(process.registry.find(TOKEN, ADDRESS))
            second.guest.fails()
            await relays.settle()
            self.assertEqual([(session, EndReason.GUEST_CLOSED)], process.over)
            self.assertEqual((0, 5), (session.bytes_in, session.bytes_out))
            self.assertIsNone(process.registry.find(TOKEN, ADDRESS))

        relays.run(work)

    def test_a_session_that_is_ending_cannot_be_joined(self):
        async def work():
            process = Process()
            old, wire = process.open('spice-html5')
            process.registry.cut({old.id: 'revoked'})
            self.assertIsNone(process.registry.find(TOKEN, ADDRESS))
            new, _ = process.open('spice-html5')
            await relays.settle()
            self.assertEqual([(old, 'revoked')], process.over)
            self.assertIs(new, process.registry.find(TOKEN, ADDRESS), 'the old one must not remove it')

        relays.run(work)

    def test_input_on_one_channel_keeps_the_session_from_being_idle(self):
        async def work():
            loop = asyncio.get_running_loop()
            process = Process()
            timeouts = Timeouts(idle=600, ping_interval=10**9, ping_timeout=10**9, greeting=10)
            session, _ = process.open('spice-html5')
            second = process.join()
            await asyncio.sleep(500)
            second.send(b'x')
            await asyncio.sleep(500)
            session.check(timeouts, loop.time())
            self.assertIsNone(session.end_reason)

        relays.run(work)

    def test_a_cut_ends_all_channels_of_the_session(self):
        async def work():
            process = Process()
            session, first = process.open('spice-html5')
            second = process.join()
            process.registry.cut({session.id: 'revoked'})
            self.assertEqual([[4403]] * 2, [self.codes(first), self.codes(second)])
            await relays.settle()
            self.assertEqual([(session, 'revoked')], process.over)

        relays.run(work)


class TickTest(SessionCase):
    def test_sessions_are_checked_every_second(self):
        async def work():
            process = Process()
            process.registry.start()
            session, wire = process.open(lasts=60)
            await asyncio.sleep(59)
            self.assertIsNone(session.end_reason)
            await asyncio.sleep(3)
            self.assertEqual(EndReason.TIME_OVER, session.end_reason)
            await process.registry.stop()

        relays.run(work)

    def test_new_timeouts_apply_to_open_sessions(self):
        async def work():
            process = Process()
            process.registry.start()
            session, _ = process.open()
            await asyncio.sleep(100)
            self.assertIsNone(session.end_reason)
            process.registry.timeouts = Timeouts(
                idle=50, ping_interval=10**9, ping_timeout=10**9, greeting=10
            )
            await asyncio.sleep(2)
            self.assertEqual(EndReason.IDLE, session.end_reason)
            await process.registry.stop()

        relays.run(work)

    def test_a_failing_check_does_not_keep_others_from_ending(self):
        self.useFixture(fixtures.FakeLogger())  # each check logs a traceback

        async def work():
            process = Process()
            process.registry.start()
            broken, _ = process.open()
            other, _ = process.open(lasts=10)
            broken.ends_at = 'not a number'
            await asyncio.sleep(20)
            self.assertEqual(EndReason.TIME_OVER, other.end_reason)
            await process.registry.stop()

        relays.run(work)

    def test_a_silent_user_is_pinged_once_and_lost_without_an_answer(self):
        async def work():
            process = Process(TIMEOUTS)
            process.registry.start()
            session, wire = process.open()
            await asyncio.sleep(18)
            self.assertEqual(b'', bytes(wire.user.received))
            await asyncio.sleep(10)
            self.assertEqual(b'\x89\0', bytes(wire.user.received), 'one ping')
            await asyncio.sleep(5)
            self.assertIsNone(session.end_reason)
            await asyncio.sleep(4)
            self.assertEqual(EndReason.USER_LOST, session.end_reason)
            await process.registry.stop()

        relays.run(work)

    def test_a_silent_user_who_answers_is_pinged_again(self):
        async def work():
            process = Process(TIMEOUTS)
            process.registry.start()
            session, wire = process.open()
            for _ in range(5):
                await asyncio.sleep(25)
                wire.receive()
            self.assertIsNone(session.end_reason)
            self.assertEqual(5, len(wire.control))
            await process.registry.stop()

        relays.run(work)

    def test_a_user_who_reads_nothing_is_lost_without_a_ping(self):
        async def work():
            process = Process(TIMEOUTS)
            process.registry.start()
            session = process.granted()
            wire = process.connect(session, user_room=0)
            wire.guest.sends(b'x' * 1000)
            await asyncio.sleep(34)
            self.assertIsNone(session.end_reason)
            await asyncio.sleep(3)
            self.assertEqual(EndReason.USER_LOST, session.end_reason)
            await process.registry.stop()

        relays.run(work)

    def test_a_guest_that_accepts_no_input_ends_the_session(self):
        async def work():
            process = Process(TIMEOUTS)
            process.registry.start()
            session = process.granted()
            wire = process.connect(session, guest_room=0)
            await asyncio.sleep(0.5)
            wire.send(b'x' * 100000)
            await asyncio.sleep(14)
            self.assertIsNone(wire.channel.reason)
            await asyncio.sleep(3)
            self.assertEqual([1011], self.codes(wire))
            await asyncio.sleep(relays.CLOSE_TIMEOUT)
            self.assertEqual([(session, EndReason.GUEST_STALLED)], process.over)
            await process.registry.stop()

        relays.run(work)

    def test_the_user_of_a_stalled_guest_is_not_lost(self):
        """Nothing is read from the user meanwhile, so silence means nothing."""

        async def work():
            process = Process(Timeouts(idle=0, ping_interval=1, ping_timeout=100, greeting=10))
            process.registry.start()
            session = process.granted()
            wire = process.connect(session, guest_room=0)
            wire.send(b'x' * 100000)
            await asyncio.sleep(95)
            self.assertIsNone(session.end_reason)
            wire.guest.takes()
            self.assertTrue(wire.user.reading)
            await process.registry.stop()

        relays.run(work)

    def test_a_user_who_does_not_complete_the_greeting_in_time_is_lost(self):
        async def work():
            process = Process(TIMEOUTS)
            process.registry.start()
            session = process.granted()
            process.connect(session, greeting=UserHandshake())
            await asyncio.sleep(9)
            self.assertIsNone(session.end_reason)
            await asyncio.sleep(3)
            self.assertEqual(EndReason.USER_LOST, session.end_reason)
            await process.registry.stop()

        relays.run(work)


class CutTest(SessionCase):
    def test_only_sessions_that_managers_may_know_end_with_a_life_of_the_proxy(self):
        async def work():
            process = Process()
            validating, known = process.registry.create(TOKEN, ADDRESS), process.granted()
            process.registry.cut_stored(EndReason.LEASE_LOST)
            self.assertIsNone(validating.end_reason)
            self.assertEqual(EndReason.LEASE_LOST, known.end_reason)

        relays.run(work)

    def test_cuts_of_sessions_of_other_processes_are_ignored(self):
        async def work():
            process = Process()
            session, _ = process.open()
            process.registry.cut({str(uuid.uuid4()): 'revoked', 'nonsense': 'revoked'})
            self.assertIsNone(session.end_reason)

        relays.run(work)

    def test_only_limited_sessions_are_cut_when_the_lease_is_lost(self):
        async def work():
            process = Process()
            limited, first = process.open('serial', limited=True)
            unlimited, second = process.open()
            waiting = process.granted('serial', limited=True)
            process.registry.cut_limited(EndReason.LEASE_LOST)
            self.assertEqual([[1013], []], [self.codes(first), self.codes(second)])
            self.assertEqual(EndReason.LEASE_LOST, waiting.end_reason)
            self.assertIsNone(unlimited.end_reason)
            await relays.settle()
            self.assertEqual([(limited, EndReason.LEASE_LOST)], process.over)

        relays.run(work)

    def test_all_sessions_can_be_cut(self):
        async def work():
            process = Process()
            wires = [process.open()[1] for _ in range(3)]
            process.registry.cut_all(EndReason.DRAINED)
            self.assertEqual([[1012]] * 3, [self.codes(wire) for wire in wires])
            await relays.settle()
            self.assertEqual(3, len(process.over))
            self.assertEqual(0, len(process.registry))

        relays.run(work)

    @settings(deadline=None, max_examples=150)
    @given(st.data())
    def test_each_session_ends_once_and_leaves_nothing_behind(self, data):
        async def work():
            process = Process()
            all_sessions, wires, connecting = [], [], []

            def draw_from(items):
                return data.draw(st.sampled_from(items)) if items else None

            for _ in range(data.draw(st.integers(0, 25))):
                step = data.draw(steps)
                session, wire = draw_from(all_sessions), draw_from(wires)
                if step == 'open':
                    session = process.granted(data.draw(types), data.draw(some_token))
                    all_sessions.append(session)
                    connecting.append(session)
                elif step == 'join':
                    joined = process.registry.find(data.draw(some_token), ADDRESS)
                    if joined is not None:
                        self.assertIsNone(joined.end_reason)
                        joined.join()
                        connecting.append(joined)
                elif step in ('connect', 'fail') and connecting:
                    session = connecting.pop(data.draw(st.integers(0, len(connecting) - 1)))
                    if step == 'fail' or session.end_reason is not None:  # as Admission does
                        session.abandon(EndReason.OPEN_FAILED)
                    else:
                        wires.append(
                            process.connect(session, guest_room=data.draw(st.sampled_from([0, 10**6])))
                        )
                elif step == 'cut' and session is not None:
                    process.registry.cut({session.id: 'revoked'})
                elif step == 'settle':
                    await relays.settle()
                elif wire is not None:
                    {'user': wire.user.fails, 'guest': wire.guest.fails, 'close': wire.user.ends}.get(
                        step, lambda wire=wire: wire.send(b'x')
                    )()
                self.check_registry(process, all_sessions)
            for session in connecting:
                session.abandon(EndReason.USER_LEFT)
            process.registry.cut_all(EndReason.DRAINED)
            await asyncio.sleep(relays.CLOSE_TIMEOUT * 4)
            self.check_registry(process, all_sessions)
            self.assertEqual(len(all_sessions), len(process.over))
            self.assertEqual(
                ([], {}, {}), (process.registry.ids(), process.registry._by_id, process.registry._joinable)
            )
            for session, reason in process.over:
                self.assertIsNotNone(reason)
                self.assertEqual(0, session.connecting)

        relays.run(work)

    def check_registry(self, process, all_sessions):
        over = [session for session, _ in process.over]
        self.assertEqual(len(set(over)), len(over))
        for session in all_sessions:
            self.assertEqual(session not in over, session.id in process.registry.ids())


steps = st.sampled_from(
    ['open', 'join', 'connect', 'connect', 'fail', 'cut', 'user', 'guest', 'close', 'send', 'settle']
)
types = st.sampled_from(['novnc', 'spice-html5', 'spice-html5'])
some_token = st.sampled_from([TOKEN, OTHER])


class Channel:
    """Fake of a channel, which the test releases itself."""

    def __init__(self):
        self.reason = None
        self.bytes_in = self.bytes_out = 1

    def end(self, reason):
        self.reason = self.reason or reason


class RegistryMachine(stateful.RuleBasedStateMachine):
    """Opens, joins, cuts, lost leases, drains and closes, in any order."""

    SLOTS = 6

    def __init__(self):
        super().__init__()
        self.process = Process(max_sessions=self.SLOTS)
        self.registry = self.process.registry
        self.created = []
        self.asking = []  # sessions for which a manager is being asked
        self.connecting = []  # one item for each websocket that may become a channel: its session
        self.first_reason = {}  # by session

    def _pick(self, data, items):
        return items.pop(data.draw(st.integers(0, len(items) - 1)))

    def _note_cut(self, sessions, reason):
        for session in sessions:
            self.first_reason.setdefault(session, session.end_reason or reason)

    @stateful.rule(token=st.sampled_from([TOKEN, OTHER]))
    def create(self, token):
        if len(self.registry) == self.SLOTS:
            try:
                self.registry.create(token, ADDRESS)
            except exception.ProxyBusy:
                return
            raise AssertionError('one slot too many')
        session = self.registry.create(token, ADDRESS)
        self.created.append(session)
        self.asking.append(session)

    @stateful.precondition(lambda self: self.asking)
    @stateful.rule(data=st.data(), limited=st.booleans(), cut=st.booleans())
    def grant(self, data, limited, cut):
        session = self._pick(data, self.asking)
        console_type = data.draw(st.sampled_from(['serial', 'spice-html5']))
        session.may_be_stored = True
        reason = 'revoked' if cut else None
        session.grant(granted(console_type, limited=limited, cut_reason=reason), 0.0)
        if cut:
            self._note_cut([session], reason)
        self.registry.make_joinable(session)
        self.connecting.append(session)

    @stateful.precondition(lambda self: self.asking)
    @stateful.rule(data=st.data())
    def refuse(self, data):
        self._pick(data, self.asking).abandon(EndReason.OPEN_FAILED)

    @stateful.rule(token=st.sampled_from([TOKEN, OTHER]))
    def join(self, token):
        session = self.registry.find(token, ADDRESS)
        if session is not None:
            assert session.end_reason is None
            assert session.console.console_type == 'spice-html5'
            session.join()
            self.connecting.append(session)

    @stateful.precondition(lambda self: self.connecting)
    @stateful.rule(data=st.data(), fails=st.booleans())
    def connect(self, data, fails):
        session = self._pick(data, self.connecting)
        if fails or session.end_reason is not None:  # as Admission does
            session.abandon(EndReason.OPEN_FAILED)
        else:
            session.connected(Channel())

    @stateful.precondition(lambda self: any(session.channels for session in self.created))
    @stateful.rule(data=st.data())
    def release(self, data):
        session = data.draw(st.sampled_from([session for session in self.created if session.channels]))
        channel = data.draw(st.sampled_from(sorted(session.channels, key=id)))
        session.channel_released(channel)

    @stateful.precondition(lambda self: self.created)
    @stateful.rule(data=st.data(), reason=st.sampled_from(['revoked', 'instance_gone']))
    def cut(self, data, reason):
        session = data.draw(st.sampled_from(self.created))
        if session.state is not State.ENDED:
            self._note_cut([session], reason)
        self.registry.cut({session.id: reason, 'another': reason})

    @stateful.rule()
    def lose_lease(self):
        self._note_cut([session for session in self.registry if session.limited], EndReason.LEASE_LOST)
        self.registry.cut_limited(EndReason.LEASE_LOST)

    @stateful.rule()
    def drain(self):
        self._note_cut(self.registry, EndReason.DRAINED)
        self.registry.cut_all(EndReason.DRAINED)

    @stateful.invariant()
    def each_session_is_registered_until_it_has_ended(self):
        live = {session.id for session in self.created if session.state is not State.ENDED}
        assert set(self.registry.ids()) == live
        assert self.process.quota.taken == len(live) == len(self.registry)
        assert self.registry.opening_ids() == {session.id for session in self.asking}

    @stateful.invariant()
    def observers_are_notified_once(self):
        # a session may be joined any number of times
        calls = [(event, session) for event, session in self.process.recorder.calls if event != 'joined']
        assert len(set(calls)) == len(calls)
        for session in self.created:
            assert (('ended', session) in calls) == (session.state is State.ENDED)
            assert (('opened', session) in calls) == session.was_open
            if session.was_open and session.state is State.ENDED:
                assert calls.index(('opened', session)) < calls.index(('ended', session))

    @stateful.invariant()
    def the_first_reason_counts(self):
        for session, reason in self.first_reason.items():
            assert session.end_reason == reason
            assert all(channel.reason is not None for channel in session.channels)

    def teardown(self):
        for session in self.asking:
            session.abandon(EndReason.OPEN_FAILED)
        self.asking = []
        for session in self.connecting:
            session.abandon(EndReason.USER_LEFT)
        for session in self.created:
            for channel in list(session.channels):
                session.channel_released(channel)
        self.each_session_is_registered_until_it_has_ended()
        self.observers_are_notified_once()
        assert (len(self.registry), self.process.quota.taken) == (0, 0)
        assert self.registry._joinable == {}
        assert {session for session, _ in self.process.over} == set(self.created)
        assert all(reason is not None for _, reason in self.process.over)


class RegistryMachineTest(testtools.TestCase):
    def test_every_session_ends_once_and_gives_its_slot_back(self):
        stateful.run_state_machine_as_test(
            RegistryMachine, settings=settings(deadline=None, max_examples=200, stateful_step_count=40)
        )


class BrokenSessionTest(SessionCase):
    def test_a_session_that_cannot_be_ended_does_not_keep_others_alive(self):
        """Those that come after it are cut too, and the lease goes on."""
        reasons = []
        for cut in (
            lambda registry: registry.cut({session.id: 'revoked' for session in registry}),
            lambda registry: registry.cut_limited(EndReason.LEASE_LOST),
            lambda registry: registry.cut_all(EndReason.DRAINED),
        ):
            process = Process()
            broken, other = (process.granted('serial', limited=True) for _ in range(2))
            broken.channels.add(mock.Mock(end=mock.Mock(side_effect=ZeroDivisionError('x'))))
            with fixtures.FakeLogger() as log:
                cut(process.registry)
            reasons.append(other.end_reason)
            self.assertIn(broken.id, log.output)
        self.assertEqual(['revoked', EndReason.LEASE_LOST, EndReason.DRAINED], reasons)


class BrokenObserverTest(SessionCase):
    def test_an_observer_that_fails_does_not_keep_the_others_from_being_notified(self):
        self.useFixture(fixtures.FakeLogger())
        recorder, broken = Recorder(), mock.Mock()
        for method in (broken.opened, broken.joined, broken.ended):
            method.side_effect = ZeroDivisionError('x')
        quota = SessionQuota(1, 1)
        registry = SessionRegistry(quota, [broken, recorder], PATIENT)
        session = registry.create(TOKEN, ADDRESS)
        session.grant(granted(), 0.0)
        channels = [Channel(), Channel()]
        session.join()
        for channel in channels:
            session.connected(channel)
        for channel in channels:
            session.channel_released(channel)
        self.assertEqual(['opened', 'joined', 'ended'], [name for name, _ in recorder.calls])
        self.assertEqual((0, 0), (len(registry), quota.taken))
