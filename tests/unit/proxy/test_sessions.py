# SPDX-License-Identifier: Apache-2.0
"""Sessions: when they end, who joins them, and that they are over once."""

import asyncio
import datetime
import time
import uuid

import testtools
from hypothesis import given, settings
from hypothesis import strategies as st

from consoled import objects
from consoled import token as tokens
from consoled.proxy import close_codes
from consoled.proxy.security.rfb import UserHandshake
from consoled.proxy.sessions import Rules, Session, Sessions
from tests.unit.proxy import test_relay as relays

unhurried = settings(deadline=None)

TOKEN, OTHER = tokens.mint(), tokens.mint()
ADDRESS = '192.0.2.1'
NOON = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)

RULES = Rules(idle=600, ping_interval=20, ping_timeout=15, greeting=10)
PATIENT = Rules(idle=0, ping_interval=10**9, ping_timeout=10**9, greeting=10**9)


def granted(console_type='novnc', *, limited=False, lasts=None, connected_at=NOON, cut_reason=None):
    """A ConsoleSession; ``lasts``: seconds until it ends, or None."""
    instance = str(uuid.uuid4())
    console = objects.ConsoleConnection(
        instance_uuid=instance,
        console_type=console_type,
        host='10.0.0.1',
        port=5900,
        compute_host='compute',
        access_url_base=None,
        options={},
    )
    return objects.ConsoleSession(
        id=str(uuid.uuid4()),
        proxy_id=str(uuid.uuid4()),
        console=console,
        user_id='user',
        project_id='project',
        client_address=ADDRESS,
        limited=limited,
        connected_at=connected_at,
        ends_at=None if lasts is None else connected_at + datetime.timedelta(seconds=lasts),
        cut_reason=cut_reason,
    )


class Place:
    """All sessions of a process, with users and guests in memory."""

    def __init__(self, rules=PATIENT):
        self.rules = rules
        self.over = []  # (session, reason)
        self.seconds = []
        self.sessions = Sessions(lambda: self.rules, self._ended)

    def _ended(self, session, seconds):
        self.over.append((session, session.reason))
        self.seconds.append(seconds)

    def open(self, console_type='novnc', token=TOKEN, address=ADDRESS, **values):
        """A session with one channel."""
        session = self.sessions.add(granted(console_type, **values), token, address)
        return session, self.connect(session)

    def join(self, token=TOKEN, address=ADDRESS, **values):
        """Another channel of a session; None if there is none to join."""
        session = self.sessions.to_join(token, address)
        if session is None:
            return None
        session.connecting += 1
        return self.connect(session, **values)

    def connect(self, session, **values):
        wire = relays.Wire(**values)
        wire.channel._released = lambda channel: self.sessions.released(session, channel)
        self.sessions.connected(session, wire.channel)
        return wire


class SessionCase(testtools.TestCase):
    def codes(self, wire):
        return [close.code for close in wire.close_frames()]


class EndsTest(SessionCase):
    @unhurried
    @given(
        st.datetimes(
            datetime.datetime(1990, 1, 1), datetime.datetime(2090, 1, 1), timezones=st.just(datetime.UTC)
        ),
        st.integers(1, 10**6),
        st.floats(0, 10**6),
    )
    def test_only_the_clock_of_the_database_says_how_long_it_lasts(self, connected_at, lasts, now):
        """Ours, and how far off it is, makes no difference (DESIGN invariant 2)."""
        session = Session(granted(connected_at=connected_at, lasts=lasts), ('hash', ADDRESS), now)
        self.assertAlmostEqual(now + lasts, session.ends, places=3)

    def test_one_without_an_end_has_none(self):
        self.assertIsNone(Session(granted(), ('hash', ADDRESS), 1.0).ends)

    def test_it_ends_when_its_time_is_over(self):
        async def work():
            place = Place()
            session, wire = place.open(lasts=60)
            session.check(PATIENT, session.ends - 0.1)
            self.assertIsNone(session.reason)
            session.check(PATIENT, session.ends)
            self.assertEqual([4408], self.codes(wire))
            await relays.settle()
            self.assertEqual([(session, close_codes.TIME_OVER)], place.over)

        relays.run(work)

    def test_somebody_looks_at_it_every_second(self):
        async def work():
            place = Place()
            place.sessions.start()
            session, wire = place.open(lasts=60)
            await asyncio.sleep(59)
            self.assertIsNone(session.reason)
            await asyncio.sleep(3)
            self.assertEqual(close_codes.TIME_OVER, session.reason)
            await place.sessions.stop()

        relays.run(work)

    def test_rules_may_change_meanwhile(self):
        async def work():
            place = Place()
            place.sessions.start()
            session, _ = place.open()
            await asyncio.sleep(100)
            self.assertIsNone(session.reason)
            place.rules = Rules(idle=50, ping_interval=10**9, ping_timeout=10**9, greeting=10)
            await asyncio.sleep(2)
            self.assertEqual(close_codes.IDLE, session.reason)
            await place.sessions.stop()

        relays.run(work)

    def test_one_that_can_not_be_looked_at_does_not_keep_the_others_from_ending(self):
        async def work():
            place = Place()
            place.sessions.start()
            broken, _ = place.open()
            other, _ = place.open(lasts=10)
            broken.check = None
            await asyncio.sleep(20)
            self.assertEqual(close_codes.TIME_OVER, other.reason)
            await place.sessions.stop()

        relays.run(work)


class SilenceTest(SessionCase):
    def test_idle_is_without_input(self):
        async def work():
            loop = asyncio.get_running_loop()
            place = Place()
            rules = Rules(idle=600, ping_interval=10**9, ping_timeout=10**9, greeting=10)
            session, wire = place.open('serial')
            await asyncio.sleep(500)
            wire.send(b'x')
            wire.guest.sends(b'a picture is no input')
            await asyncio.sleep(599)
            session.check(rules, loop.time())
            self.assertIsNone(session.reason)
            wire.channel.ping()
            wire.hear()  # nor is a pong
            await asyncio.sleep(2)
            session.check(rules, loop.time())
            self.assertEqual([4408], self.codes(wire))
            self.assertEqual(close_codes.IDLE, session.reason)

        relays.run(work)

    def test_nobody_is_idle_where_there_is_no_limit(self):
        async def work():
            place = Place()
            session, _ = place.open()
            session.check(PATIENT, asyncio.get_running_loop().time() + 10**8)
            self.assertIsNone(session.reason)

        relays.run(work)

    def test_one_who_has_not_connected_yet_is_not_idle(self):
        """Connecting has a deadline of its own."""

        async def work():
            place = Place()
            session = place.sessions.add(granted(lasts=10**6), TOKEN, ADDRESS)
            session.check(RULES, session.opened + 10000)
            self.assertIsNone(session.reason)
            session.check(RULES, session.opened + 10**6)
            self.assertEqual(close_codes.TIME_OVER, session.reason)

        relays.run(work)

    def test_the_silent_are_asked_once_and_lost_if_they_do_not_answer(self):
        async def work():
            place = Place(RULES)
            place.sessions.start()
            session, wire = place.open()
            await asyncio.sleep(18)
            self.assertEqual(b'', bytes(wire.user.received))
            await asyncio.sleep(10)
            self.assertEqual(b'\x89\0', bytes(wire.user.received), 'one ping')
            await asyncio.sleep(5)
            self.assertIsNone(session.reason)
            await asyncio.sleep(4)
            self.assertEqual(close_codes.USER_LOST, session.reason)
            await place.sessions.stop()

        relays.run(work)

    def test_those_who_answer_are_asked_again_and_again(self):
        async def work():
            place = Place(RULES)
            place.sessions.start()
            session, wire = place.open()
            for _ in range(5):
                await asyncio.sleep(25)
                wire.hear()
            self.assertIsNone(session.reason)
            self.assertEqual(5, len(wire.control))
            await place.sessions.stop()

        relays.run(work)

    def test_one_who_takes_nothing_is_lost_without_being_asked(self):
        async def work():
            place = Place(RULES)
            place.sessions.start()
            session = place.sessions.add(granted(), TOKEN, ADDRESS)
            wire = place.connect(session, user_room=0)
            wire.guest.sends(b'x' * 1000)
            await asyncio.sleep(34)
            self.assertIsNone(session.reason)
            await asyncio.sleep(3)
            self.assertEqual(close_codes.USER_LOST, session.reason)
            await place.sessions.stop()

        relays.run(work)

    def test_a_guest_that_takes_no_input_ends_it(self):
        async def work():
            place = Place(RULES)
            place.sessions.start()
            session = place.sessions.add(granted(), TOKEN, ADDRESS)
            wire = place.connect(session, guest_room=0)
            await asyncio.sleep(0.5)
            wire.send(b'x' * 100000)
            await asyncio.sleep(14)
            self.assertIsNone(wire.channel.reason)
            await asyncio.sleep(3)
            self.assertEqual([1011], self.codes(wire))
            await asyncio.sleep(relays.CLOSE_TIMEOUT)
            self.assertEqual([(session, close_codes.GUEST_STALLED)], place.over)
            await place.sessions.stop()

        relays.run(work)

    def test_its_user_is_not_taken_for_lost(self):
        """Who is not read can not be heard."""

        async def work():
            place = Place(Rules(idle=0, ping_interval=1, ping_timeout=100, greeting=10))
            place.sessions.start()
            session = place.sessions.add(granted(), TOKEN, ADDRESS)
            wire = place.connect(session, guest_room=0)
            wire.send(b'x' * 100000)
            await asyncio.sleep(95)
            self.assertIsNone(session.reason)
            wire.guest.takes()
            self.assertTrue(wire.user.reading)
            await place.sessions.stop()

        relays.run(work)

    def test_who_does_not_greet_in_time_is_lost(self):
        async def work():
            place = Place(RULES)
            place.sessions.start()
            session = place.sessions.add(granted(), TOKEN, ADDRESS)
            place.connect(session, greeting=UserHandshake())
            await asyncio.sleep(9)
            self.assertIsNone(session.reason)
            await asyncio.sleep(3)
            self.assertEqual(close_codes.USER_LOST, session.reason)
            await place.sessions.stop()

        relays.run(work)


class JoinTest(SessionCase):
    def test_a_spice_client_has_one_session_for_all_its_websockets(self):
        async def work():
            place = Place()
            session, first = place.open('spice-html5')
            second = place.join()
            self.assertEqual({first.channel, second.channel}, session.channels)
            self.assertEqual(1, len(place.sessions))
            first.guest.sends(b'12345')
            second.guest.sends(b'123')
            second.send(b'12')
            self.assertEqual((2, 8), (session.bytes_in, session.bytes_out))

        relays.run(work)

    def test_only_one_of_the_same_token_and_address_joins(self):
        async def work():
            place = Place()
            place.open('spice-html5')
            for token, address in ((OTHER, ADDRESS), (TOKEN, '192.0.2.2'), (TOKEN, None), (OTHER, None)):
                self.assertIsNone(place.sessions.to_join(token, address))
            self.assertIsNotNone(place.sessions.to_join(TOKEN, ADDRESS))

        relays.run(work)

    def test_only_spice_is_joined(self):
        async def work():
            for console_type in ('novnc', 'serial', 'webmks'):
                place = Place()
                place.open(console_type)
                self.assertIsNone(place.sessions.to_join(TOKEN, ADDRESS), console_type)

        relays.run(work)

    def test_one_can_be_joined_before_its_first_channel_is_up(self):
        async def work():
            place = Place()
            session = place.sessions.add(granted('spice-html5'), TOKEN, ADDRESS)
            self.assertIs(session, place.sessions.to_join(TOKEN, ADDRESS))

        relays.run(work)

    def test_the_clear_token_is_not_kept(self):
        async def work():
            place = Place()
            session, _ = place.open('spice-html5')
            self.assertNotIn(TOKEN, repr([vars(session), vars(place.sessions)]))

        relays.run(work)

    def test_it_is_over_with_its_last_channel(self):
        async def work():
            place = Place()
            session, first = place.open('spice-html5')
            second = place.join()
            first.guest.sends(b'12345')
            first.user.ends()
            await relays.settle()
            self.assertEqual([], place.over)
            self.assertIsNone(session.reason)
            self.assertIsNotNone(place.sessions.to_join(TOKEN, ADDRESS))
            second.guest.fails()
            await relays.settle()
            self.assertEqual([(session, close_codes.GUEST_CLOSED)], place.over)
            self.assertEqual((0, 5), (session.bytes_in, session.bytes_out))
            self.assertIsNone(place.sessions.to_join(TOKEN, ADDRESS))

        relays.run(work)

    def test_one_that_is_ending_is_not_joined(self):
        async def work():
            place = Place()
            old, wire = place.open('spice-html5')
            place.sessions.cut({old.id: 'revoked'})
            self.assertIsNone(place.sessions.to_join(TOKEN, ADDRESS))
            new, _ = place.open('spice-html5')
            await relays.settle()
            self.assertEqual([(old, 'revoked')], place.over)
            self.assertIs(
                new, place.sessions.to_join(TOKEN, ADDRESS), 'the end of the old one is not its end'
            )

        relays.run(work)

    def test_one_channel_is_active_for_all(self):
        async def work():
            loop = asyncio.get_running_loop()
            place = Place()
            rules = Rules(idle=600, ping_interval=10**9, ping_timeout=10**9, greeting=10)
            session, _ = place.open('spice-html5')
            second = place.join()
            await asyncio.sleep(500)
            second.send(b'x')
            await asyncio.sleep(500)
            session.check(rules, loop.time())
            self.assertIsNone(session.reason)

        relays.run(work)

    def test_a_cut_ends_all_its_channels(self):
        async def work():
            place = Place()
            session, first = place.open('spice-html5')
            second = place.join()
            place.sessions.cut({session.id: 'revoked'})
            self.assertEqual([[4403]] * 2, [self.codes(first), self.codes(second)])
            await relays.settle()
            self.assertEqual([(session, 'revoked')], place.over)

        relays.run(work)


class OverTest(SessionCase):
    def test_one_that_did_not_connect(self):
        async def work():
            place = Place()
            session = place.sessions.add(granted(), TOKEN, ADDRESS)
            self.assertEqual([session.id], place.sessions.ids())
            place.sessions.failed(session, close_codes.OPEN_FAILED)
            self.assertEqual([(session, close_codes.OPEN_FAILED)], place.over)
            self.assertEqual([], place.sessions.ids())

        relays.run(work)

    def test_a_further_channel_that_did_not_connect_ends_nothing(self):
        async def work():
            place = Place()
            session, _ = place.open('spice-html5')
            session.connecting += 1
            place.sessions.failed(session, close_codes.OPEN_FAILED)
            self.assertEqual(([], None), (place.over, session.reason))

        relays.run(work)

    def test_it_is_not_over_while_another_channel_is_on_its_way(self):
        """As when a page is loaded again: its websockets overtake the end of the old ones."""

        async def work():
            place = Place()
            session, wire = place.open('spice-html5')
            session.connecting += 1
            wire.guest.fails()
            await relays.settle()
            self.assertEqual(([], None), (place.over, session.reason))
            self.assertIs(session, place.sessions.to_join(TOKEN, ADDRESS))
            place.sessions.failed(session, close_codes.OPEN_FAILED)
            self.assertEqual([(session, close_codes.GUEST_CLOSED)], place.over)

        relays.run(work)

    def test_the_first_of_several_that_did_not_connect_does_not_end_the_others(self):
        async def work():
            place = Place()
            session = place.sessions.add(granted('spice-html5'), TOKEN, ADDRESS)
            session.connecting += 1
            place.sessions.failed(session, close_codes.OPEN_FAILED)
            self.assertIsNone(session.reason)
            wire = place.connect(session)
            wire.user.fails()
            await relays.settle()
            self.assertEqual([(session, close_codes.USER_LEFT)], place.over)

        relays.run(work)

    def test_one_that_was_cut_before_it_had_a_channel_keeps_that_reason(self):
        async def work():
            place = Place()
            session = place.sessions.add(granted(), TOKEN, ADDRESS)
            place.sessions.cut({session.id: 'instance_gone'})
            place.sessions.failed(session, close_codes.OPEN_FAILED)
            self.assertEqual([(session, 'instance_gone')], place.over)

        relays.run(work)

    def test_one_that_came_cut_has_its_reason(self):
        async def work():
            place = Place()
            session = place.sessions.add(granted(cut_reason='revoked'), TOKEN, ADDRESS)
            self.assertEqual('revoked', session.reason)

        relays.run(work)

    def test_the_first_reason_stays(self):
        async def work():
            place = Place()
            session, wire = place.open(lasts=1)
            place.sessions.cut({session.id: 'taken_over'})
            session.check(RULES, session.ends + 10**6)
            place.sessions.cut_all(close_codes.DRAINED)
            await relays.settle()
            self.assertEqual([(session, 'taken_over')], place.over)
            self.assertEqual([4409], self.codes(wire))

        relays.run(work)

    def test_its_length_is_told(self):
        async def work():
            place = Place()
            session, wire = place.open()
            session.opened = time.monotonic() - 100
            wire.guest.fails()
            await relays.settle()
            self.assertTrue(99 < place.seconds[0] < 200)

        relays.run(work)

    def test_cuts_of_others_are_not_ours(self):
        async def work():
            place = Place()
            session, _ = place.open()
            place.sessions.cut({str(uuid.uuid4()): 'revoked', 'nonsense': 'revoked'})
            self.assertIsNone(session.reason)

        relays.run(work)

    def test_without_a_lease_only_the_limited_end(self):
        async def work():
            place = Place()
            limited, first = place.open('serial', limited=True)
            unlimited, second = place.open()
            waiting = place.sessions.add(granted('serial', limited=True), TOKEN, ADDRESS)
            place.sessions.cut_limited()
            self.assertEqual([[1013], []], [self.codes(first), self.codes(second)])
            self.assertEqual(close_codes.LEASE_LOST, waiting.reason)
            self.assertIsNone(unlimited.reason)
            await relays.settle()
            self.assertEqual([(limited, close_codes.LEASE_LOST)], place.over)

        relays.run(work)

    def test_all_can_be_cut(self):
        async def work():
            place = Place()
            wires = [place.open()[1] for _ in range(3)]
            place.sessions.cut_all(close_codes.DRAINED)
            self.assertEqual([[1012]] * 3, [self.codes(wire) for wire in wires])
            await relays.settle()
            self.assertEqual(3, len(place.over))
            self.assertEqual(0, len(place.sessions))

        relays.run(work)

    @settings(deadline=None, max_examples=150)
    @given(st.data())
    def test_each_is_over_once_and_nothing_of_it_is_left(self, data):
        async def work():
            place = Place()
            all_sessions, wires, connecting = [], [], []

            def some(of):
                return data.draw(st.sampled_from(of)) if of else None

            for _ in range(data.draw(st.integers(0, 25))):
                step = data.draw(steps)
                session, wire = some(all_sessions), some(wires)
                if step == 'open':
                    session = place.sessions.add(granted(data.draw(types)), data.draw(whose), ADDRESS)
                    all_sessions.append(session)
                    connecting.append(session)
                elif step == 'join':
                    joined = place.sessions.to_join(data.draw(whose), ADDRESS)
                    if joined is not None:
                        self.assertIsNone(joined.reason)
                        joined.connecting += 1
                        connecting.append(joined)
                elif step in ('connect', 'fail') and connecting:
                    session = connecting.pop(data.draw(st.integers(0, len(connecting) - 1)))
                    if step == 'fail' or session.reason is not None:  # as Admission does
                        place.sessions.failed(session, close_codes.OPEN_FAILED)
                    else:
                        wires.append(
                            place.connect(session, guest_room=data.draw(st.sampled_from([0, 10**6])))
                        )
                elif step == 'cut' and session is not None:
                    place.sessions.cut({session.id: 'revoked'})
                elif step == 'settle':
                    await relays.settle()
                elif wire is not None:
                    {'user': wire.user.fails, 'guest': wire.guest.fails, 'close': wire.user.ends}.get(
                        step, lambda wire=wire: wire.send(b'x')
                    )()
                self.check(place, all_sessions)
            for session in connecting:
                place.sessions.failed(session, close_codes.USER_LEFT)
            place.sessions.cut_all(close_codes.DRAINED)
            await asyncio.sleep(relays.CLOSE_TIMEOUT * 4)
            self.check(place, all_sessions)
            self.assertEqual(len(all_sessions), len(place.over))
            self.assertEqual(
                ([], {}, {}), (place.sessions.ids(), place.sessions._by_id, place.sessions._joinable)
            )
            for session, reason in place.over:
                self.assertIsNotNone(reason)
                self.assertEqual(0, session.connecting)

        relays.run(work)

    def check(self, place, all_sessions):
        over = [session for session, _ in place.over]
        self.assertEqual(len(set(over)), len(over))
        for session in all_sessions:
            self.assertEqual(session not in over, session.id in place.sessions.ids())


steps = st.sampled_from(
    ['open', 'join', 'connect', 'connect', 'fail', 'cut', 'user', 'guest', 'close', 'send', 'settle']
)
types = st.sampled_from(['novnc', 'spice-html5', 'spice-html5'])
whose = st.sampled_from([TOKEN, OTHER])
