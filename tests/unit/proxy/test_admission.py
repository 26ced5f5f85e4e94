# SPDX-License-Identifier: Apache-2.0
"""Admission: the order of the steps, limits, joins, cuts, and that a failure leaves nothing behind."""

import asyncio
import time

import fixtures as fixtures_library
import prometheus_client
import testtools

from consoled import exception, objects
from consoled import token as tokens
from consoled.objects import EndReason
from consoled.proxy import admission
from consoled.proxy.forwarded import Client
from consoled.proxy.handshake import Refusal, Upgrade
from consoled.proxy.metrics import Metrics
from consoled.proxy.origin import Origin
from consoled.proxy.origin_policy import WebPage
from consoled.proxy.quota import SessionQuota
from consoled.proxy.refusals import Refusals
from consoled.proxy.registry import SessionRegistry
from consoled.proxy.targets import Target
from consoled.testing import fixtures
from tests.unit.proxy import relay_base as relays
from tests.unit.proxy import session_base

TOKEN, OTHER = tokens.mint(), tokens.mint()
ADDRESS = '192.0.2.1'
OURS, EVILS = Origin('https', 'console.example', 443), Origin('https', 'evil.example', 443)
OWN = Origin('http', 'proxy.example', 80)  # loaded without TLS


def upgrade(token=TOKEN, address=ADDRESS, origin=None, subprotocol=None, serial_port=None):
    page = WebPage() if origin is None else WebPage(origin, accepted=origin == OWN, plain=origin == OWN)
    return Upgrade(token, Client(address, 'https', 'proxy.example'), 'accept', subprotocol, page, serial_port)


class Managers:
    """Fake of ManagerClient.

    :ivar answers: answers to the next opens, each a ConsoleSession or an error; then come new sessions
    :ivar console_type: console type of the new sessions
    :ivar opened: (token, session id, address) of each open
    :ivar chosen: the serial port of each open
    :ivar wait: event that an open waits for
    :ivar age: seconds since their answers, as the proxy sees it
    :ivar unknown: tokens that are refused
    """

    def __init__(self, log):
        self._log = log
        self.console_type = 'novnc'
        self.options = {}
        self.access_url_base = 'https://console.example/novnc.html'
        self.answers = []
        self.opened = []
        self.chosen = []
        self.age = 0
        self.unknown = set()
        self.wait = asyncio.Event()
        self.wait.set()

    async def validate_doubtful(self, token, client_address):
        self._log.append('doubt')
        return self._validated(token)

    async def validate_to_open(self, token, client_address, serial_port):
        return await self.validate_doubtful(token, client_address)

    async def validate(self, token, client_address):
        self._log.append('validate')
        return self._validated(token)

    def _validated(self, token):
        if token in self.unknown:
            raise exception.InvalidToken()
        return objects.ConsoleAuthToken(access_url_base=self.access_url_base)

    async def open_session(self, session, token):
        asked_at = time.monotonic() - self.age
        self._log.append('open')
        self.opened.append((token, session.id, session.client_address))
        self.chosen.append(session.serial_port)
        await self.wait.wait()
        if token in self.unknown:
            raise exception.InvalidToken()
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        granted = answer or session_base.granted(self.console_type)
        granted.console.access_url_base = self.access_url_base
        granted.console.options = self.options
        session.may_be_stored = True
        session.asked_at = asked_at
        return granted


class Closes:
    """Fake of CloseReports that logs its reports."""

    def __init__(self, log):
        self._log = log

    def opened(self, session):
        """Do nothing."""

    joined = opened

    def ended(self, session):
        if session.may_be_stored:
            self._log.append(('close', session.end_reason, session.bytes_in, session.bytes_out))


class Guests:
    """Fake of Connector.

    :ivar errors: errors of the next connections
    :ivar wait: event that a connection waits for
    :ivar handshakes: number of handshakes with consoles that have begun
    :ivar transports: transports of the connections
    :ivar small_buffers: whether the last connection was to have small buffers
    """

    def __init__(self, log):
        self._log = log
        self.errors = []
        self.transports = []
        self.handshakes = 0
        self.wait = asyncio.Event()
        self.wait.set()

    async def connect(self, console, reached, *, small_buffers):
        self._log.append('connect')
        self.small_buffers = small_buffers
        await self.wait.wait()
        if self.errors:
            raise self.errors.pop(0)
        await reached()
        self.handshakes += 1
        transport = relays.Transport()
        transport.set_protocol(asyncio.BufferedProtocol())
        self.transports.append(transport)
        return Target(transport, b'')


class AuditTrail:
    """Fake of Audit.

    :ivar records: what was recorded, as tuples, in order
    """

    def __init__(self):
        self.records = []

    def opened(self, session):
        self.records.append(('opened', session.id))

    def joined(self, session):
        self.records.append(('joined', session.id))

    def ended(self, session):
        if session.was_open:
            self.records.append(('closed', session.id, session.end_reason))

    def refused(self, error, client_address, session=None):
        self.records.append(('refused', error.code, client_address, None if session is None else session.id))
        return True


class Proxy:
    """An admission, composed with fakes of the managers, the consoles and the audit trail.

    :ivar log: calls of the fakes, in order
    """

    def __init__(self, **overrides):
        with fixtures.Conf(**overrides) as config:
            self.log = []
            self.managers, self.guests, self.audit = Managers(self.log), Guests(self.log), AuditTrail()
            self.counts = prometheus_client.CollectorRegistry()
            options = config.conf.proxy
            metrics = Metrics('cell', self.counts)
            self.quota = SessionQuota(options.max_sessions, options.max_sessions_per_address)
            self.registry = SessionRegistry(
                self.quota, [Closes(self.log), metrics, self.audit], session_base.PATIENT
            )
            self.admission = admission.Admission(
                self.managers,
                self.guests,
                self.registry,
                Refusals(options.max_failed_tokens, metrics, self.audit),
                metrics,
                max_channels=options.max_channels,
            )

    async def open(self, *args, **values):
        return await self.admission.admit(upgrade(*args, **values))

    async def connected(self, *args, **values):
        """Admit a websocket and make a channel of it, as a connection does."""
        opened = await self.open(*args, **values)
        wire = relays.Wire()
        wire.channel._released = opened.session.channel_released
        opened.session.connected(wire.channel)
        return opened, wire

    def count(self, name, **labels):
        return self.counts.get_sample_value(name, {'cell': 'cell', **labels})


class AdmissionCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures_library.MockPatchObject(admission, '_LATE', 0))

    async def refused(self, error, work):
        """Check that an awaitable raises exactly this error, and return it."""
        try:
            await work
        except error as exc:
            self.assertIn(type(exc), error if isinstance(error, tuple) else (error,))
            return exc
        raise AssertionError(f'{error} was not raised')

    def assert_nothing_left(self, proxy):
        """Check that no session, no slot and no connection is left."""
        self.assertEqual(0, len(proxy.registry))
        self.assertEqual(0, proxy.quota.taken)
        self.assertEqual([], [transport for transport in proxy.guests.transports if not transport.lost])


class OrderTest(AdmissionCase):
    def test_the_console_is_connected_after_the_managers_have_granted_the_session(self):
        async def work():
            proxy = Proxy()
            opened, _ = await proxy.connected()
            self.assertEqual(['open', 'connect'], proxy.log)
            self.assertIs(proxy.guests.transports[0], opened.target.transport)
            self.assertEqual([('opened', opened.session.id)], proxy.audit.records)
            self.assertEqual(1, proxy.count('consoled_proxy_opened_total', type='novnc'))
            self.assertEqual(1, proxy.count('consoled_proxy_sessions', type='novnc'))

        relays.run(work)

    def test_little_is_buffered_for_a_user_who_acknowledges(self):
        async def work():
            for subprotocol in (None, 'binary', 'consoled.flow', 'consoled.serial'):
                proxy = Proxy()
                await proxy.open(subprotocol=subprotocol)
                acknowledges = subprotocol in ('consoled.flow', 'consoled.serial')
                self.assertEqual(acknowledges, proxy.guests.small_buffers)

        relays.run(work)

    def test_the_origin_is_checked_before_the_session_is_opened(self):
        async def work():
            proxy = Proxy()
            await proxy.open(origin=OURS)
            self.assertEqual(['validate', 'open', 'connect'], proxy.log)
            proxy = Proxy()
            await self.refused(exception.OriginRefused, proxy.open(origin=EVILS))
            self.assertEqual(['validate'], proxy.log)
            self.assert_nothing_left(proxy)

        relays.run(work)

    def test_a_page_without_tls_is_refused_before_the_session_is_opened_if_the_access_url_has_tls(self):
        async def work():
            proxy = Proxy()
            await self.refused(exception.OriginRefused, proxy.open(origin=OWN))
            self.assertEqual(['validate'], proxy.log)
            self.assert_nothing_left(proxy)
            proxy = Proxy()
            proxy.managers.access_url_base = 'http://console.example/novnc.html'
            await proxy.open(origin=OWN)
            self.assertEqual(['validate', 'open', 'connect'], proxy.log)

        relays.run(work)

    def test_a_console_without_an_access_url_allows_no_other_origin(self):
        async def work():
            proxy = Proxy()
            proxy.managers.access_url_base = None
            await self.refused(exception.OriginRefused, proxy.open(origin=OURS))

        relays.run(work)

    def test_invariant_7_no_console_is_connected_after_a_refusal(self):
        async def work():
            for error in (
                exception.InvalidToken(),
                exception.ConsoleInUse(since='noon'),
                exception.ConsoleGone(),
                exception.ManagerUnreachable(reason='x'),
            ):
                proxy = Proxy()
                proxy.managers.answers = [error]
                self.assertIs(error, await self.refused(type(error), proxy.open()))
                self.assertEqual(['open'], proxy.log)
                self.assertEqual([('refused', error.code, ADDRESS, None)], proxy.audit.records)
                self.assertEqual(1, proxy.count('consoled_proxy_refused_total', code=error.code))
                self.assert_nothing_left(proxy)

        relays.run(work)

    def test_a_session_whose_console_cannot_be_connected_is_closed(self):
        async def work():
            for error in (exception.TargetFailed(), exception.TargetTimeout(), exception.TargetForbidden()):
                proxy = Proxy()
                proxy.guests.errors = [error]
                await self.refused(type(error), proxy.open())
                self.assertEqual(('close', EndReason.OPEN_FAILED, 0, 0), proxy.log[-1])
                self.assertEqual(['refused'], [record[0] for record in proxy.audit.records])
                self.assert_nothing_left(proxy)

        relays.run(work)

    def test_an_unexpected_error_leaves_nothing_behind(self):
        async def work():
            proxy = Proxy()
            proxy.managers.answers = [ValueError('x')]
            await self.refused(ValueError, proxy.open())
            self.assert_nothing_left(proxy)
            proxy.guests.errors = [ZeroDivisionError('x')]
            await self.refused(ZeroDivisionError, proxy.open())
            self.assert_nothing_left(proxy)

        relays.run(work)

    def test_an_unsupported_mode_is_refused_before_connecting(self):
        async def work():
            proxy = Proxy()
            proxy.managers.console_type = 'spice-html5'
            proxy.managers.options = {'mode': 'view'}
            await self.refused(exception.ModeUnsupported, proxy.open())
            self.assertEqual(['open', ('close', EndReason.OPEN_FAILED, 0, 0)], proxy.log)
            self.assert_nothing_left(proxy)

        relays.run(work)

    def test_a_cancelled_request_leaves_nothing_behind(self):
        async def work():
            for waiting in ('managers', 'guests'):
                proxy = Proxy()
                getattr(proxy, waiting).wait.clear()
                task = asyncio.create_task(proxy.open())
                await relays.settle()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self.assertTrue(task.cancelled())
                self.assert_nothing_left(proxy)
                if waiting == 'guests':
                    self.assertEqual(('close', EndReason.USER_LEFT, 0, 0), proxy.log[-1])

        relays.run(work)

    def test_while_stopping_no_manager_is_asked(self):
        async def work():
            proxy = Proxy()
            proxy.admission.stopping = True
            await self.refused(exception.ProxyStopping, proxy.open())
            self.assertEqual([], proxy.log)

        relays.run(work)

    def test_the_end_is_reported_recorded_and_counted(self):
        async def work():
            proxy = Proxy()
            opened, wire = await proxy.connected()
            wire.send(b'12')
            wire.guest.sends(b'12345')
            wire.user.fails()
            await relays.settle()
            self.assertEqual(('close', EndReason.USER_LEFT, 2, 5), proxy.log[-1])
            self.assertEqual(('closed', opened.session.id, EndReason.USER_LEFT), proxy.audit.records[-1])
            self.assertEqual(0, proxy.count('consoled_proxy_sessions', type='novnc'))
            self.assertEqual(1, proxy.count('consoled_proxy_closed_total', reason=EndReason.USER_LEFT))
            self.assertEqual(5, proxy.count('consoled_proxy_bytes_total', direction='out'))
            self.assertEqual(0, proxy.quota.taken)

        relays.run(work)


class CutTest(AdmissionCase):
    def test_a_session_that_is_cut_while_connecting_is_refused_by_its_reason(self):
        async def work():
            for reason, error in (
                ('console_gone', exception.ConsoleGone),
                ('console_moved', exception.ConsoleGone),
                ('instance_gone', exception.ConsoleGone),
                (EndReason.DRAINED, exception.ProxyStopping),
                (EndReason.LEASE_LOST, exception.ProxyBusy),
                ('revoked', exception.InvalidToken),
                (EndReason.TIME_OVER, exception.InvalidToken),
            ):
                proxy = Proxy()
                proxy.guests.wait.clear()
                task = asyncio.create_task(proxy.open())
                await relays.settle()
                (session,) = proxy.registry
                proxy.registry.cut({session.id: reason})
                proxy.guests.wait.set()
                await self.refused(error, task)
                await relays.settle()
                self.assertEqual(('close', reason, 0, 0), proxy.log[-1])
                self.assertEqual(0, proxy.guests.handshakes, 'it was known before the first byte')
                self.assert_nothing_left(proxy)

        relays.run(work)

    def test_a_cut_session_does_not_wait_for_a_console_that_hangs(self):
        """Its port may be another user's before the connection times out (invariant 4)."""

        async def work():
            for reason, error in (
                (EndReason.LEASE_LOST, exception.ProxyBusy),
                (EndReason.DRAINED, exception.ProxyStopping),
                ('taken_over', exception.ConsoleInUse),
                ('revoked', exception.InvalidToken),
            ):
                proxy = Proxy()
                proxy.guests.wait.clear()
                task = asyncio.create_task(proxy.open())
                await relays.settle()
                (session,) = proxy.registry
                proxy.registry.cut({session.id: reason})
                proxy.registry.cut({session.id: 'another'})
                await self.refused(error, task)
                self.assertEqual(('close', reason, 0, 0), proxy.log[-1])
                self.assertEqual(0, task.cancelling())
                self.assert_nothing_left(proxy)

        relays.run(work)

    def test_further_websockets_of_a_cut_session_do_not_wait_either(self):
        async def work():
            proxy = Proxy()
            proxy.managers.console_type = 'spice-html5'
            await proxy.connected()
            proxy.guests.wait.clear()
            tasks = [asyncio.create_task(proxy.open()) for _ in range(2)]
            await relays.settle()
            proxy.registry.cut_all(EndReason.DRAINED)
            for task in tasks:
                await self.refused(exception.ProxyStopping, task)
            await relays.settle()
            self.assertEqual(('close', EndReason.DRAINED, 0, 0), proxy.log[-1])
            self.assertEqual((0, 0), (len(proxy.registry), proxy.quota.taken))

        relays.run(work)

    def test_a_cancellation_during_a_cut_is_not_swallowed(self):
        async def work():
            for first in ('cut', 'leave'):
                proxy = Proxy()
                proxy.guests.wait.clear()
                task = asyncio.create_task(proxy.open())
                await relays.settle()
                (session,) = proxy.registry
                if first == 'cut':
                    session.end('revoked')
                task.cancel()
                session.end('revoked')
                await asyncio.gather(task, return_exceptions=True)
                self.assertTrue(task.cancelled())
                self.assertEqual(('close', 'revoked', 0, 0), proxy.log[-1])
                self.assert_nothing_left(proxy)

        relays.run(work)

    def test_a_cut_session_does_not_wait_for_a_second_answer(self):
        async def work():
            proxy = Proxy()
            proxy.managers.age = LateTest.LATE
            proxy.guests.wait.clear()
            task = asyncio.create_task(proxy.open())
            await relays.settle()
            proxy.managers.wait.clear()
            proxy.guests.wait.set()
            await relays.settle()
            self.assertEqual(2, proxy.log.count('open'))
            proxy.registry.cut_all(EndReason.LEASE_LOST)
            await self.refused(exception.ProxyBusy, task)
            self.assertEqual(0, proxy.guests.handshakes)
            self.assert_nothing_left(proxy)

        relays.run(work)

    def test_the_chosen_serial_port_is_asked_for_each_time(self):
        async def work():
            proxy = Proxy()
            proxy.managers.console_type = 'serial'
            proxy.managers.options = {'serial_port': '2'}
            proxy.managers.age = LateTest.LATE
            opened = await proxy.open(serial_port=2)
            self.assertEqual([2, 2], proxy.managers.chosen)
            self.assertEqual(2, opened.session.serial_port)

        relays.run(work)

    def test_a_serial_port_that_the_manager_has_chosen_stays_that_of_the_session(self):
        async def work():
            proxy = Proxy()
            proxy.managers.console_type = 'serial'
            proxy.managers.options = {'serial_port': '3'}
            proxy.managers.age = LateTest.LATE
            opened = await proxy.open()
            self.assertEqual([None, 3], proxy.managers.chosen)
            self.assertEqual(3, opened.session.serial_port)

        relays.run(work)

    def test_invariant_8_a_session_that_is_elsewhere_at_the_second_answer_is_ended(self):
        """Its row was lost meanwhile, and the manager has opened another console for it."""

        async def work():
            proxy = Proxy()
            proxy.managers.age = LateTest.LATE
            first, second = session_base.granted('serial'), session_base.granted('serial')
            second.console.port = first.console.port + 1
            proxy.managers.answers = [first, second]
            await self.refused(exception.ConsoleGone, proxy.open())
            self.assertEqual(0, proxy.guests.handshakes)
            self.assertEqual(('close', 'console_gone', 0, 0), proxy.log[-1])
            self.assert_nothing_left(proxy)

        relays.run(work)

    def test_a_cut_session_gets_no_further_channel(self):
        """A SPICE session with a channel is not asked for again, but may have been cut."""

        async def work():
            proxy = Proxy()
            proxy.managers.console_type = 'spice-html5'
            opened, _ = await proxy.connected()
            proxy.guests.wait.clear()
            task = asyncio.create_task(proxy.open())
            await relays.settle()
            proxy.registry.cut({opened.session.id: 'revoked'})
            proxy.guests.wait.set()
            await self.refused(exception.InvalidToken, task)
            self.assertEqual(1, proxy.guests.handshakes)
            await relays.settle()
            self.assertEqual(('close', 'revoked', 0, 0), proxy.log[-1])

        relays.run(work)

    def test_a_session_that_is_granted_and_cut_at_once_is_not_connected(self):
        async def work():
            proxy = Proxy()
            proxy.managers.answers = [session_base.granted(cut_reason='instance_gone')]
            await self.refused(exception.ConsoleGone, proxy.open())
            self.assertNotIn('connect', proxy.log)
            self.assert_nothing_left(proxy)

        relays.run(work)


class LateTest(AdmissionCase):
    """A port that is connected late may belong to another guest: the managers are asked again."""

    LATE = admission._FRESH + 0.01

    def proxy(self, age=LATE):
        proxy = Proxy()
        proxy.managers.age = age
        return proxy

    def test_the_same_session_is_asked_for_again_before_the_handshake(self):
        async def work():
            proxy = self.proxy()
            handshakes = []
            real = proxy.managers.open_session

            async def open_session(*args):
                handshakes.append(proxy.guests.handshakes)
                return await real(*args)

            proxy.managers.open_session = open_session
            opened = await proxy.open()
            self.assertEqual(['open', 'connect', 'open'], proxy.log)
            self.assertEqual([(TOKEN, opened.session.id, ADDRESS)] * 2, proxy.managers.opened)
            self.assertEqual([0, 0], handshakes)
            self.assertEqual(1, proxy.guests.handshakes)

        relays.run(work)

    def test_the_time_of_a_slow_connection_counts_too(self):
        async def work():
            proxy = self.proxy(age=0)
            proxy.guests.wait.clear()
            task = asyncio.create_task(proxy.open())
            await relays.settle()
            time.sleep(self.LATE)  # the code reads the real clock, not that of this event loop
            proxy.guests.wait.set()
            await task
            self.assertEqual(['open', 'connect', 'open'], proxy.log)

        relays.run(work)

    def test_a_refusal_of_the_second_question_ends_the_session(self):
        async def work():
            for error in (
                exception.ConsoleGone(),
                exception.InvalidToken(),
                exception.ComputeUnreachable(reason='x'),
                exception.ManagerUnreachable(reason='x'),
            ):
                proxy = self.proxy()
                proxy.managers.answers = [session_base.granted(), error]
                self.assertIs(error, await self.refused(type(error), proxy.open()))
                self.assertEqual(('close', EndReason.OPEN_FAILED, 0, 0), proxy.log[-1])
                self.assertEqual(['refused'], [record[0] for record in proxy.audit.records])
                self.assertEqual(0, proxy.guests.handshakes)
                self.assert_nothing_left(proxy)

        relays.run(work)

    def test_a_session_that_was_cut_according_to_the_second_answer_is_refused(self):
        async def work():
            proxy = self.proxy()
            proxy.managers.answers = [session_base.granted(), session_base.granted(cut_reason='revoked')]
            await self.refused(exception.InvalidToken, proxy.open())
            self.assertEqual(('close', 'revoked', 0, 0), proxy.log[-1])
            self.assertEqual(0, proxy.guests.handshakes)
            self.assert_nothing_left(proxy)

        relays.run(work)

    def test_a_session_that_was_cut_meanwhile_is_not_asked_for_again(self):
        async def work():
            proxy = self.proxy()
            proxy.guests.wait.clear()
            task = asyncio.create_task(proxy.open())
            await relays.settle()
            (session,) = proxy.registry
            session.end('instance_gone')
            proxy.guests.wait.set()
            await self.refused(exception.ConsoleGone, task)
            self.assertEqual(1, proxy.log.count('open'))
            self.assertEqual(0, proxy.guests.handshakes)

        relays.run(work)

    def test_a_request_that_is_cancelled_during_the_second_question_leaves_nothing_behind(self):
        async def work():
            proxy = self.proxy()
            proxy.guests.wait.clear()
            task = asyncio.create_task(proxy.open())
            await relays.settle()
            proxy.managers.wait.clear()
            proxy.guests.wait.set()
            await relays.settle()
            self.assertEqual(2, proxy.log.count('open'))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.assertTrue(task.cancelled())
            self.assertEqual(0, proxy.guests.handshakes)
            self.assert_nothing_left(proxy)

        relays.run(work)

    def test_concurrent_websockets_of_one_spice_client_share_the_second_question(self):
        async def work():
            proxy = self.proxy()
            proxy.managers.console_type = 'spice-html5'
            proxy.guests.wait.clear()
            first = asyncio.create_task(proxy.open())
            await relays.settle()
            second = asyncio.create_task(proxy.open())
            await relays.settle()
            proxy.managers.age = 0
            proxy.guests.wait.set()
            await asyncio.gather(first, second)
            self.assertEqual(['open', 'connect'] * 2 + ['open'], proxy.log)

        relays.run(work)

    def test_a_late_channel_of_a_session_with_another_is_asked_for_once(self):
        async def work():
            proxy = self.proxy()
            proxy.managers.console_type = 'spice-html5'
            await proxy.connected()
            await proxy.connected()
            self.assertEqual(['open', 'connect', 'open', 'open', 'connect'], proxy.log)

        relays.run(work)


class LimitTest(AdmissionCase):
    def test_sessions_of_the_process_are_limited(self):
        async def work():
            proxy = Proxy(proxy__max_sessions=2)
            _, wire = await proxy.connected(address='192.0.2.1')
            await proxy.connected(address='192.0.2.2')
            await self.refused(exception.ProxyBusy, proxy.open(address='192.0.2.3'))
            self.assertEqual(2, proxy.log.count('open'), 'no manager is asked')
            wire.user.fails()
            await relays.settle()
            await proxy.open(address='192.0.2.3')

        relays.run(work)

    def test_sessions_of_an_address_are_limited(self):
        async def work():
            proxy = Proxy(proxy__max_sessions_per_address=1)
            await proxy.connected()
            error = await self.refused(exception.TooManySessions, proxy.open())
            self.assertIn('1 sessions per address', str(error))
            await proxy.open(address='192.0.2.2')

        relays.run(work)

    def test_invalid_tokens_of_an_address_are_limited(self):
        async def work():
            proxy = Proxy(proxy__max_failed_tokens=3)
            proxy.managers.unknown = {OTHER}
            for _ in range(3):
                await self.refused(exception.InvalidToken, proxy.open(token=OTHER))
            error = await self.refused(exception.RateLimited, proxy.open(token=OTHER))
            self.assertTrue(0 < error.kwargs['seconds'] <= 20)
            self.assertEqual(3, proxy.log.count('open'))
            self.assertEqual(3, len(proxy.audit.records), 'a client that guesses must not flood the log')
            self.assertEqual(1, proxy.count('consoled_proxy_refused_total', code='rate_limited'))
            self.assert_nothing_left(proxy)
            await proxy.open(address='192.0.2.2')

        relays.run(work)

    def test_an_invalid_token_of_a_client_in_doubt_is_answered_late_and_holds_nothing_meanwhile(self):
        async def work():
            proxy = Proxy(proxy__max_failed_tokens=1)
            proxy.managers.unknown = {OTHER}
            await self.refused(exception.InvalidToken, proxy.open(token=OTHER))
            with fixtures_library.MockPatchObject(admission, '_LATE', 1000):
                task = asyncio.create_task(proxy.open(token=OTHER))
                await relays.settle()
                self.assertEqual('doubt', proxy.log[-1])
                self.assertFalse(task.done())
                self.assert_nothing_left(proxy)
                await proxy.open()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        relays.run(work)

    def test_a_good_token_opens_however_many_invalid_ones_its_address_has_sent(self):
        async def work():
            proxy = Proxy(proxy__max_failed_tokens=3)
            proxy.managers.unknown = {OTHER}
            for _ in range(10):
                await self.refused((exception.InvalidToken, exception.RateLimited), proxy.open(token=OTHER))
            await proxy.connected()
            self.assertEqual(['doubt', 'open', 'connect'], proxy.log[-3:])

        relays.run(work)

    def test_tokens_that_another_site_sends_do_not_count_against_the_visitor(self):
        async def work():
            proxy = Proxy(proxy__max_failed_tokens=3)
            proxy.managers.unknown = {OTHER}
            for _ in range(10):
                await self.refused(
                    (exception.InvalidToken, exception.RateLimited), proxy.open(token=OTHER, origin=EVILS)
                )
            self.assertEqual(7, proxy.log.count('doubt'), 'they have their own limit')
            proxy.log.clear()
            await self.refused(exception.InvalidToken, proxy.open(token=OTHER))
            await proxy.open()
            self.assertEqual(['open', 'open', 'connect'], proxy.log)
            await proxy.open(origin=OURS)
            self.assertEqual(['doubt', 'validate', 'open', 'connect'], proxy.log[3:])

        relays.run(work)

    def test_other_refusals_do_not_count_as_invalid_tokens(self):
        async def work():
            proxy = Proxy(proxy__max_failed_tokens=1)
            for _ in range(5):
                proxy.managers.answers = [exception.ConsoleInUse(since='noon')]
                await self.refused(exception.ConsoleInUse, proxy.open())

        relays.run(work)


class JoinTest(AdmissionCase):
    def test_further_websockets_of_a_spice_client_join_when_a_manager_agrees(self):
        async def work():
            proxy = Proxy()
            proxy.managers.console_type = 'spice-html5'
            first, _ = await proxy.connected()
            second, _ = await proxy.connected()
            self.assertIs(first.session, second.session)
            self.assertEqual(['open', 'connect'] * 2, proxy.log)
            self.assertEqual([(TOKEN, first.session.id, ADDRESS)] * 2, proxy.managers.opened)
            self.assertEqual(
                [(event, first.session.id) for event in ('opened', 'joined')], proxy.audit.records
            )
            self.assertEqual(1, proxy.quota.taken)

        relays.run(work)

    def test_a_join_that_a_manager_refuses_leaves_the_session_alone(self):
        """The token has expired or is spent, no manager answers, or the guest is gone."""

        async def work():
            for error in (
                exception.InvalidToken(),
                exception.ManagerUnreachable(reason='x'),
                exception.ConsoleGone(),
            ):
                proxy = Proxy()
                proxy.managers.console_type = 'spice-html5'
                first, wire = await proxy.connected()
                proxy.managers.answers = [error]
                await self.refused(type(error), proxy.open())
                self.assertEqual(1, proxy.log.count('connect'))
                refusal = ('refused', error.code, ADDRESS, first.session.id)
                self.assertEqual([('opened', first.session.id), refusal], proxy.audit.records)
                self.assertIsNone(wire.channel.reason)
                await proxy.connected()

        relays.run(work)

    def test_a_join_learns_that_the_session_is_to_be_cut(self):
        async def work():
            proxy = Proxy()
            proxy.managers.console_type = 'spice-html5'
            _, wire = await proxy.connected()
            proxy.managers.answers = [session_base.granted('spice-html5', cut_reason='revoked')]
            await self.refused(exception.InvalidToken, proxy.open())
            self.assertEqual('revoked', wire.channel.reason)
            self.assertEqual(1, proxy.log.count('connect'))

        relays.run(work)

    def test_the_origin_of_each_websocket_is_checked(self):
        async def work():
            proxy = Proxy()
            proxy.managers.console_type = 'spice-html5'
            await proxy.connected(origin=OURS)
            await proxy.connected(origin=OURS)
            await self.refused(exception.OriginRefused, proxy.open(origin=EVILS))
            self.assertEqual(2, proxy.log.count('connect'))
            self.assertEqual(1, len(proxy.registry), 'the session continues')

        relays.run(work)

    def test_channels_of_a_session_are_limited(self):
        async def work():
            proxy = Proxy(proxy__max_channels=2)
            proxy.managers.console_type = 'spice-html5'
            await proxy.connected()
            proxy.guests.wait.clear()
            waiting = asyncio.create_task(proxy.open())
            await relays.settle()
            await self.refused(exception.TooManySessions, proxy.open())
            proxy.guests.wait.set()
            await waiting

        relays.run(work)

    def test_a_websocket_that_fails_to_connect_does_not_end_another_that_is_connecting(self):
        async def work():
            proxy = Proxy()
            proxy.managers.console_type = 'spice-html5'
            proxy.guests.wait.clear()
            proxy.guests.errors = [exception.TargetFailed()]
            tasks = [asyncio.create_task(proxy.open()) for _ in range(2)]
            await relays.settle()
            proxy.guests.wait.set()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            self.assertEqual(
                [exception.TargetFailed, admission.Admitted],
                sorted(map(type, done), key=lambda cls: cls.__name__)[::-1],
            )

        relays.run(work)


async def explain(proxy, token=TOKEN, *, address=ADDRESS, foreign=False):
    error = proxy.admission.explain(token, address, foreign=foreign)
    return error if error is not None else await proxy.admission.ask(token, address, None)


class ExplainTest(AdmissionCase):
    def test_a_recent_refusal_is_explained_without_asking_a_manager(self):
        async def work():
            proxy = Proxy()
            proxy.managers.answers = [exception.ConsoleInUse(since='noon')]
            await self.refused(exception.ConsoleInUse, proxy.open())
            for foreign in (False, True):
                error = await explain(proxy, foreign=foreign)
                self.assertEqual('The console has been in use since noon.', str(error))
            self.assertEqual(['open'], proxy.log)
            self.assertEqual(2, proxy.count('consoled_proxy_explained_total', source='memory'))

        relays.run(work)

    def test_a_token_that_was_not_refused_recently_is_validated(self):
        async def work():
            proxy = Proxy()
            proxy.managers.unknown = {OTHER}
            self.assertIsInstance(await explain(proxy), exception.UpgradeRequired)
            self.assertIsInstance(await explain(proxy, OTHER), exception.InvalidToken)
            self.assertEqual(['doubt', 'doubt'], proxy.log)
            self.assertEqual(2, proxy.count('consoled_proxy_explained_total', source='manager'))

        relays.run(work)

    def test_requests_with_a_good_token_rarely_ask_managers(self):
        async def work():
            proxy = Proxy(proxy__max_failed_tokens=3)
            for _ in range(50):
                self.assertIsInstance(await explain(proxy), exception.UpgradeRequired)
            self.assertEqual(['doubt'] * 3, proxy.log)
            self.assertEqual(47, proxy.count('consoled_proxy_explained_total', source='none'))
            await explain(proxy, address='192.0.2.2')
            self.assertEqual(4, len(proxy.log))
            await proxy.open()
            self.assertEqual(['open', 'connect'], proxy.log[4:], 'they are not failures')

        relays.run(work)

    def test_requests_of_another_site_ask_no_manager_and_are_not_counted(self):
        async def work():
            proxy = Proxy(proxy__max_failed_tokens=3)
            proxy.managers.unknown = {OTHER}
            for _ in range(20):
                self.assertIsInstance(await explain(proxy, OTHER, foreign=True), exception.UpgradeRequired)
            self.assertEqual([], proxy.log)
            await proxy.open()
            self.assertEqual(['open', 'connect'], proxy.log)

        relays.run(work)

    def test_while_stopping_the_managers_are_not_asked(self):
        async def work():
            proxy = Proxy()
            proxy.managers.answers = [exception.ConsoleInUse(since='noon')]
            await self.refused(exception.ConsoleInUse, proxy.open())
            proxy.admission.stopping = True
            self.assertIsInstance(await explain(proxy), exception.ConsoleInUse)
            self.assertIsInstance(await explain(proxy, OTHER), exception.ProxyStopping)
            self.assertNotIn('doubt', proxy.log)

        relays.run(work)

    def test_invalid_tokens_in_requests_for_an_explanation_are_limited_too(self):
        async def work():
            proxy = Proxy(proxy__max_failed_tokens=3)
            guesses = [tokens.mint() for _ in range(4)]
            proxy.managers.unknown = set(guesses)
            errors = [await explain(proxy, guess) for guess in guesses]
            self.assertEqual([exception.InvalidToken] * 3 + [exception.RateLimited], list(map(type, errors)))
            await self.refused(exception.RateLimited, proxy.open(token=guesses[0]))

        relays.run(work)

    def test_a_refusal_of_a_malformed_request_is_counted_and_recorded(self):
        async def work():
            proxy = Proxy()
            proxy.admission.refused(Refusal(exception.OriginRefused(), Client(ADDRESS, 'https', '')))
            self.assertEqual([('refused', 'origin_refused', ADDRESS, None)], proxy.audit.records)
            self.assertEqual(1, proxy.count('consoled_proxy_refused_total', code='origin_refused'))

        relays.run(work)
