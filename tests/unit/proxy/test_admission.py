# SPDX-License-Identifier: Apache-2.0
"""From a request to a connected console: the order of things, and that nothing is kept of what failed."""

import asyncio
import time

import prometheus_client
import testtools

from consoled import exception, objects
from consoled import token as tokens
from consoled.proxy import admission, authorizer, close_codes
from consoled.proxy.forwarded import Client
from consoled.proxy.handshake import Refusal, Upgrade
from consoled.proxy.metrics import Metrics
from consoled.proxy.origin import Origin
from consoled.proxy.sessions import Rules, Sessions
from consoled.proxy.targets import Target
from consoled.testing import fixtures
from tests.unit.proxy import test_relay as relays
from tests.unit.proxy import test_sessions

TOKEN, OTHER = tokens.mint(), tokens.mint()
ADDRESS = '192.0.2.1'
OURS, EVILS = Origin('https', 'console.example', 443), Origin('https', 'evil.example', 443)
RULES = Rules(idle=0, ping_interval=10**9, ping_timeout=10**9, greeting=10**9)


def upgrade(token=TOKEN, address=ADDRESS, origin=None):
    return Upgrade(token, Client(address, 'https', 'proxy.example'), 'accept', None, origin)


class Managers:
    """What Authorizer has for the admission.

    :ivar answers: to the next opens: a ConsoleSession or an error; then new sessions of ``console_type``
    :ivar opened: (token, session id, address) of each open
    :ivar wait: what an open waits for
    :ivar age: of their answers, in seconds
    """

    def __init__(self, log):
        self._log = log
        self.console_type = 'novnc'
        self.options = {}
        self.access_url_base = 'https://console.example/novnc.html'
        self.answers = []
        self.opened = []
        self.age = 0
        self.unknown = set()
        self.wait = asyncio.Event()
        self.wait.set()

    async def validate(self, token):
        self._log.append('validate')
        if token in self.unknown:
            raise exception.InvalidToken()
        return objects.ConsoleAuthToken(access_url_base=self.access_url_base)

    async def open(self, token, session_id, client_address):
        asked = time.monotonic() - self.age
        self._log.append('open')
        self.opened.append((token, session_id, client_address))
        await self.wait.wait()
        if token in self.unknown:
            raise exception.InvalidToken()
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        granted = answer or test_sessions.granted(self.console_type)
        granted.console.access_url_base = self.access_url_base
        granted.console.options = self.options
        granted.id = session_id
        return authorizer.Granted(granted, asked)

    def close(self, session_id, reason, bytes_in=0, bytes_out=0):
        self._log.append(('close', reason, bytes_in, bytes_out))


class Guests:
    """What Connector has for the admission.

    :ivar errors: of the next connections
    :ivar wait: what a connection waits for
    :ivar sent: how often the handshakes with a console have begun
    :ivar made: transports of the connections
    """

    def __init__(self, log):
        self._log = log
        self.errors = []
        self.made = []
        self.sent = 0
        self.wait = asyncio.Event()
        self.wait.set()

    async def connect(self, console, reached):
        self._log.append('connect')
        await self.wait.wait()
        if self.errors:
            raise self.errors.pop(0)
        await reached()
        self.sent += 1
        transport = relays.Transport()
        transport.set_protocol(asyncio.BufferedProtocol())
        self.made.append(transport)
        return Target(transport, b'')


class Notes:
    """What Audit has for the admission."""

    def __init__(self):
        self.noted = []

    def opened(self, session):
        self.noted.append(('opened', session.id))

    def closed(self, session, reason, seconds):
        self.noted.append(('closed', session.id, reason))

    def refused(self, error, client_address, session=None):
        self.noted.append(('refused', error.code, client_address, None if session is None else session.id))


class Place:
    """An admission with everything around it."""

    def __init__(self, **overrides):
        with fixtures.Conf(**overrides) as config:
            self.log = []
            self.managers, self.guests, self.notes = Managers(self.log), Guests(self.log), Notes()
            self.registry = prometheus_client.CollectorRegistry()
            self.sessions = Sessions(
                lambda: RULES, lambda session, seconds: self.admission.over(session, seconds)
            )
            self.admission = admission.Admission(
                config.conf,
                self.managers,
                self.guests,
                self.sessions,
                Metrics('cell', self.registry),
                self.notes,
            )

    async def open(self, *args, **values):
        return await self.admission.open(upgrade(*args, **values))

    async def connected(self, *args, **values):
        """Open, and bring the channel up as a connection does."""
        opened = await self.open(*args, **values)
        wire = relays.Wire()
        wire.channel._released = lambda channel: self.sessions.released(opened.session, channel)
        self.sessions.connected(opened.session, wire.channel)
        return opened, wire

    def count(self, name, **labels):
        return self.registry.get_sample_value(name, {'cell': 'cell', **labels})


class OpeningCase(testtools.TestCase):
    async def refused(self, error, work):
        try:
            await work
        except error as exc:
            self.assertIs(error, type(exc))
            return exc
        raise AssertionError(f'{error.__name__} was not raised')

    def assert_nothing_left(self, place):
        self.assertEqual(0, len(place.sessions))
        self.assertEqual(0, place.admission._places.count)
        self.assertEqual([], [transport for transport in place.guests.made if not transport.lost])


class OrderTest(OpeningCase):
    def test_the_console_is_connected_after_the_managers_have_said_yes(self):
        async def work():
            place = Place()
            opened = await place.open()
            self.assertEqual(['open', 'connect'], place.log)
            self.assertIs(place.guests.made[0], opened.target.transport)
            self.assertEqual([('opened', opened.session.id)], place.notes.noted)
            self.assertEqual(1, place.count('consoled_proxy_opened_total', type='novnc'))
            self.assertEqual(1, place.count('consoled_proxy_sessions', type='novnc'))

        relays.run(work)

    def test_a_page_of_another_origin_is_compared_before_anything_is_opened(self):
        async def work():
            place = Place()
            await place.open(origin=OURS)
            self.assertEqual(['validate', 'open', 'connect'], place.log)
            place = Place()
            await self.refused(exception.OriginRefused, place.open(origin=EVILS))
            self.assertEqual(['validate'], place.log)
            self.assert_nothing_left(place)

        relays.run(work)

    def test_a_console_without_an_access_url_is_for_no_page_of_another_origin(self):
        async def work():
            place = Place()
            place.managers.access_url_base = None
            await self.refused(exception.OriginRefused, place.open(origin=OURS))

        relays.run(work)

    def test_a_refusal_of_the_managers_reaches_no_hypervisor(self):
        async def work():
            for error in (
                exception.InvalidToken(),
                exception.ConsoleInUse(since='noon'),
                exception.ConsoleGone(),
                exception.ManagerUnreachable(reason='x'),
            ):
                place = Place()
                place.managers.answers = [error]
                self.assertIs(error, await self.refused(type(error), place.open()))
                self.assertEqual(['open'], place.log)
                self.assertEqual([('refused', error.code, ADDRESS, None)], place.notes.noted)
                self.assertEqual(1, place.count('consoled_proxy_refused_total', code=error.code))
                self.assert_nothing_left(place)

        relays.run(work)

    def test_a_console_that_can_not_be_reached_is_closed_again(self):
        async def work():
            for error in (exception.TargetFailed(), exception.TargetTimeout(), exception.TargetForbidden()):
                place = Place()
                place.guests.errors = [error]
                await self.refused(type(error), place.open())
                self.assertEqual(('close', close_codes.OPEN_FAILED, 0, 0), place.log[-1])
                self.assertEqual(['refused'], [note[0] for note in place.notes.noted], 'it was never opened')
                self.assertEqual('refused', place.notes.noted[0][0])
                self.assert_nothing_left(place)

        relays.run(work)

    def test_what_is_unexpected_leaves_nothing_behind(self):
        async def work():
            place = Place()
            place.managers.answers = [ValueError('x')]
            await self.refused(ValueError, place.open())
            self.assert_nothing_left(place)
            place.guests.errors = [ZeroDivisionError('x')]
            await self.refused(ZeroDivisionError, place.open())
            self.assert_nothing_left(place)

        relays.run(work)

    def test_a_mode_that_can_not_be_kept_is_refused_before_the_console_is_reached(self):
        async def work():
            place = Place()
            place.managers.console_type = 'spice-html5'
            place.managers.options = {'mode': 'view'}
            await self.refused(exception.ModeUnsupported, place.open())
            self.assertEqual(['open', ('close', close_codes.OPEN_FAILED, 0, 0)], place.log)
            self.assert_nothing_left(place)

        relays.run(work)

    def test_a_user_who_leaves_leaves_nothing_behind(self):
        async def work():
            for waiting in ('managers', 'guests'):
                place = Place()
                getattr(place, waiting).wait.clear()
                task = asyncio.create_task(place.open())
                await relays.settle()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self.assertTrue(task.cancelled())
                self.assert_nothing_left(place)
                if waiting == 'guests':
                    self.assertEqual(('close', close_codes.USER_LEFT, 0, 0), place.log[-1])

        relays.run(work)

    def test_when_it_stops_nothing_more_is_asked(self):
        async def work():
            place = Place()
            place.admission.stopping = True
            await self.refused(exception.ProxyStopping, place.open())
            self.assertEqual([], place.log)

        relays.run(work)

    def test_the_end_is_told_to_the_managers_with_its_bytes(self):
        async def work():
            place = Place()
            opened, wire = await place.connected()
            wire.send(b'12')
            wire.guest.sends(b'12345')
            wire.user.fails()
            await relays.settle()
            self.assertEqual(('close', close_codes.USER_LEFT, 2, 5), place.log[-1])
            self.assertEqual(('closed', opened.session.id, close_codes.USER_LEFT), place.notes.noted[-1])
            self.assertEqual(0, place.count('consoled_proxy_sessions', type='novnc'))
            self.assertEqual(1, place.count('consoled_proxy_closed_total', reason=close_codes.USER_LEFT))
            self.assertEqual(5, place.count('consoled_proxy_bytes_total', direction='out'))
            self.assertEqual(0, place.admission._places.count)

        relays.run(work)


class CutMeanwhileTest(OpeningCase):
    def test_one_that_is_cut_while_its_console_is_connected_is_refused(self):
        async def work():
            for reason, error in (
                ('console_gone', exception.ConsoleGone),
                ('console_moved', exception.ConsoleGone),
                ('instance_gone', exception.ConsoleGone),
                (close_codes.DRAINED, exception.ProxyStopping),
                (close_codes.LEASE_LOST, exception.ProxyBusy),
                ('revoked', exception.InvalidToken),
                (close_codes.TIME_OVER, exception.InvalidToken),
            ):
                place = Place()
                place.guests.wait.clear()
                task = asyncio.create_task(place.open())
                await relays.settle()
                (session,) = place.sessions
                place.sessions.cut({session.id: reason})
                place.guests.wait.set()
                await self.refused(error, task)
                await relays.settle()
                self.assertEqual(('close', reason, 0, 0), place.log[-1])
                self.assert_nothing_left(place)

        relays.run(work)

    def test_one_that_comes_cut_is_not_connected(self):
        async def work():
            place = Place()
            place.managers.answers = [test_sessions.granted(cut_reason='instance_gone')]
            await self.refused(exception.ConsoleGone, place.open())
            self.assertNotIn('connect', place.log)
            self.assert_nothing_left(place)

        relays.run(work)


class LateTest(OpeningCase):
    """A console that is connected late may be another guest's by then: the managers are asked again."""

    LATE = admission._FRESH + 0.01

    def place(self, age=LATE):
        place = Place()
        place.managers.age = age
        return place

    def test_the_same_is_asked_again_before_anything_is_sent(self):
        async def work():
            place = self.place()
            sent = []
            real = place.managers.open

            async def counted(*asked):
                sent.append(place.guests.sent)
                return await real(*asked)

            place.managers.open = counted
            opened = await place.open()
            self.assertEqual(['open', 'connect', 'open'], place.log)
            self.assertEqual([(TOKEN, opened.session.id, ADDRESS)] * 2, place.managers.opened)
            self.assertEqual([0, 0], sent)
            self.assertEqual(1, place.guests.sent)

        relays.run(work)

    def test_a_slow_connection_counts_as_slow_managers_do(self):
        async def work():
            place = self.place(age=0)
            place.guests.wait.clear()
            task = asyncio.create_task(place.open())
            await relays.settle()
            time.sleep(self.LATE)  # the real clock is asked, not that of this event loop
            place.guests.wait.set()
            await task
            self.assertEqual(['open', 'connect', 'open'], place.log)

        relays.run(work)

    def test_a_refusal_is_that_of_an_open_and_ends_the_session(self):
        async def work():
            for error in (
                exception.ConsoleGone(),
                exception.InvalidToken(),
                exception.ComputeUnreachable(reason='x'),
                exception.ManagerUnreachable(reason='x'),
            ):
                place = self.place()
                place.managers.answers = [test_sessions.granted(), error]
                self.assertIs(error, await self.refused(type(error), place.open()))
                self.assertEqual(('close', close_codes.OPEN_FAILED, 0, 0), place.log[-1])
                self.assertEqual(['refused'], [note[0] for note in place.notes.noted])
                self.assertEqual(0, place.guests.sent)
                self.assert_nothing_left(place)

        relays.run(work)

    def test_one_that_comes_cut_is_refused(self):
        async def work():
            place = self.place()
            place.managers.answers = [test_sessions.granted(), test_sessions.granted(cut_reason='revoked')]
            await self.refused(exception.InvalidToken, place.open())
            self.assertEqual(('close', 'revoked', 0, 0), place.log[-1])
            self.assertEqual(0, place.guests.sent)
            self.assert_nothing_left(place)

        relays.run(work)

    def test_one_that_was_cut_meanwhile_is_not_asked_for_again(self):
        async def work():
            place = self.place()
            place.guests.wait.clear()
            task = asyncio.create_task(place.open())
            await relays.settle()
            (session,) = place.sessions
            session.end('instance_gone')
            place.guests.wait.set()
            await self.refused(exception.ConsoleGone, task)
            self.assertEqual(1, place.log.count('open'))
            self.assertEqual(0, place.guests.sent)

        relays.run(work)

    def test_a_user_who_leaves_while_they_are_asked_again_leaves_nothing_behind(self):
        async def work():
            place = self.place()
            place.guests.wait.clear()
            task = asyncio.create_task(place.open())
            await relays.settle()
            place.managers.wait.clear()
            place.guests.wait.set()
            await relays.settle()
            self.assertEqual(2, place.log.count('open'))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.assertTrue(task.cancelled())
            self.assertEqual(0, place.guests.sent)
            self.assert_nothing_left(place)

        relays.run(work)

    def test_websockets_of_one_spice_client_that_come_at_once_ask_once(self):
        async def work():
            place = self.place()
            place.managers.console_type = 'spice-html5'
            place.guests.wait.clear()
            first = asyncio.create_task(place.open())
            await relays.settle()
            second = asyncio.create_task(place.open())
            await relays.settle()
            place.managers.age = 0
            place.guests.wait.set()
            await asyncio.gather(first, second)
            self.assertEqual(['open', 'connect', 'connect', 'open'], place.log)

        relays.run(work)

    def test_a_session_with_a_channel_is_at_its_guest(self):
        async def work():
            place = self.place()
            place.managers.console_type = 'spice-html5'
            await place.connected()
            await place.connected()
            self.assertEqual(['open', 'connect', 'open', 'connect'], place.log)

        relays.run(work)


class LimitTest(OpeningCase):
    def test_sessions_of_a_process(self):
        async def work():
            place = Place(proxy__max_sessions=2)
            _, wire = await place.connected(address='192.0.2.1')
            await place.connected(address='192.0.2.2')
            await self.refused(exception.ProxyBusy, place.open(address='192.0.2.3'))
            self.assertEqual(2, place.log.count('open'), 'it is not even asked for')
            wire.user.fails()
            await relays.settle()
            await place.open(address='192.0.2.3')

        relays.run(work)

    def test_sessions_of_an_address(self):
        async def work():
            place = Place(proxy__max_sessions_per_address=1)
            await place.connected()
            error = await self.refused(exception.TooManySessions, place.open())
            self.assertIn('1 sessions per address', str(error))
            await place.open(address='192.0.2.2')

        relays.run(work)

    def test_refused_tokens_of_an_address(self):
        async def work():
            place = Place(proxy__max_failed_tokens=3)
            place.managers.unknown = {OTHER}
            for _ in range(3):
                await self.refused(exception.InvalidToken, place.open(token=OTHER))
            error = await self.refused(exception.RateLimited, place.open())
            self.assertTrue(0 < error.kwargs['seconds'] <= 20)
            self.assertEqual(3, place.log.count('open'))
            self.assertEqual(3, len(place.notes.noted), 'who tries many does not fill the log')
            self.assertEqual(1, place.count('consoled_proxy_refused_total', code='rate_limited'))
            await place.open(address='192.0.2.2')

        relays.run(work)

    def test_other_refusals_are_no_attempts(self):
        async def work():
            place = Place(proxy__max_failed_tokens=1)
            for _ in range(5):
                place.managers.answers = [exception.ConsoleInUse(since='noon')]
                await self.refused(exception.ConsoleInUse, place.open())

        relays.run(work)


class JoinTest(OpeningCase):
    def test_further_websockets_of_a_spice_client_join_without_being_asked_for(self):
        async def work():
            place = Place()
            place.managers.console_type = 'spice-html5'
            first, _ = await place.connected()
            second, _ = await place.connected()
            self.assertIs(first.session, second.session)
            self.assertEqual(['open', 'connect', 'connect'], place.log)
            self.assertEqual(1, len(place.notes.noted))
            self.assertEqual(1, place.admission._places.count)

        relays.run(work)

    def test_the_origin_of_each_is_compared(self):
        async def work():
            place = Place()
            place.managers.console_type = 'spice-html5'
            await place.connected(origin=OURS)
            await place.connected(origin=OURS)
            await self.refused(exception.OriginRefused, place.open(origin=EVILS))
            self.assertEqual(2, place.log.count('connect'))
            self.assertEqual(1, len(place.sessions), 'the others go on')

        relays.run(work)

    def test_they_are_bounded(self):
        async def work():
            place = Place(proxy__max_channels=2)
            place.managers.console_type = 'spice-html5'
            await place.connected()
            place.guests.wait.clear()
            waiting = asyncio.create_task(place.open())
            await relays.settle()
            await self.refused(exception.TooManySessions, place.open())
            place.guests.wait.set()
            await waiting

        relays.run(work)

    def test_of_two_that_open_at_once_the_failure_of_one_does_not_end_the_other(self):
        async def work():
            place = Place()
            place.managers.console_type = 'spice-html5'
            place.guests.wait.clear()
            place.guests.errors = [exception.TargetFailed()]
            tasks = [asyncio.create_task(place.open()) for _ in range(2)]
            await relays.settle()
            place.guests.wait.set()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            self.assertEqual(
                [exception.TargetFailed, admission.Opened],
                sorted(map(type, done), key=lambda cls: cls.__name__)[::-1],
            )

        relays.run(work)


class ExplainTest(OpeningCase):
    def test_why_it_was_refused_is_told_again(self):
        async def work():
            place = Place()
            place.managers.answers = [exception.ConsoleInUse(since='noon')]
            await self.refused(exception.ConsoleInUse, place.open())
            error = await place.admission.explain(TOKEN, ADDRESS)
            self.assertEqual('The console has been in use since noon.', str(error))
            self.assertEqual(['open'], place.log)

        relays.run(work)

    def test_of_a_token_that_was_not_refused_it_is_asked(self):
        async def work():
            place = Place()
            place.managers.unknown = {OTHER}
            self.assertIsInstance(await place.admission.explain(TOKEN, ADDRESS), exception.UpgradeRequired)
            self.assertIsInstance(await place.admission.explain(OTHER, ADDRESS), exception.InvalidToken)
            self.assertEqual(['validate', 'validate'], place.log)

        relays.run(work)

    def test_who_guesses_by_asking_is_limited_too(self):
        async def work():
            place = Place(proxy__max_failed_tokens=3)
            guesses = [tokens.mint() for _ in range(4)]
            place.managers.unknown = set(guesses)
            errors = [await place.admission.explain(guess, ADDRESS) for guess in guesses]
            self.assertEqual([exception.InvalidToken] * 3 + [exception.RateLimited], list(map(type, errors)))
            await self.refused(exception.RateLimited, place.open())

        relays.run(work)

    def test_a_refusal_for_the_form_alone_is_counted_and_noted(self):
        async def work():
            place = Place()
            place.admission.refused(Refusal(exception.OriginRefused(), Client(ADDRESS, 'https', '')))
            self.assertEqual([('refused', 'origin_refused', ADDRESS, None)], place.notes.noted)
            self.assertEqual(1, place.count('consoled_proxy_refused_total', code='origin_refused'))

        relays.run(work)
