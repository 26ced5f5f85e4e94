# SPDX-License-Identifier: Apache-2.0
"""Whatever fails while a request is answered, its connection is answered or closed, and the log says so."""

import asyncio
import logging
import types

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled import token as tokens
from consoled.proxy import handshake
from consoled.proxy.connection import ConnectionContext, UserConnection
from consoled.proxy.handshake import Policy
from consoled.testing import fixtures

UPGRADE = (
    f'GET /?token={tokens.mint()} HTTP/1.1\r\nHost: localhost\r\n'
    'Connection: Upgrade\r\nUpgrade: websocket\r\n'
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyBpdA==\r\n\r\n'
).encode()
FETCH = f'GET /?token={tokens.mint()} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode()


class Transport:
    """The user's side of a connection: what was written, and whether it ended."""

    def __init__(self):
        self.written = b''
        self.ended = False

    def write(self, data):
        self.written += data

    def abort(self):
        self.ended = True

    close = abort

    def is_closing(self):
        return self.ended

    def get_extra_info(self, name):
        return None

    def set_write_buffer_limits(self, **limits):
        pass

    pause_reading = resume_reading = set_write_buffer_limits


class Pages:
    def __init__(self, error=None):
        self.error = error

    def get(self, path, if_none_match):
        if self.error is not None:
            raise self.error


class Admission:
    """Raises ``error`` for each request."""

    def __init__(self, error):
        self.error = error

    async def admit(self, upgrade):
        raise self.error

    def explain(self, token, client_address, *, foreign):
        if isinstance(self.error, exception.ConsoledException):
            return self.error
        raise self.error


class Unreadable(exception.ConsoledException):
    """An error that cannot even be shown."""

    retryable = True

    def __str__(self):
        raise ValueError('canary')


NO_WAITS = ('x', float('nan'), float('inf'), None, [], -1, 10**400)
ERRORS = (
    *(exception.RateLimited(seconds=seconds) for seconds in NO_WAITS),
    Unreadable(),
    ValueError('x'),
    StopAsyncIteration(),
    RecursionError(),
    asyncio.CancelledError(),
)


class EndsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.conf = self.useFixture(fixtures.Conf()).conf
        self.logged = self.useFixture(fixtures_library.FakeLogger(level=logging.ERROR))

    def ask(self, request, error, pages_error=None):
        """Send a request; return its transport once it is answered or ended."""
        transport = Transport()

        async def serve():
            metrics = types.SimpleNamespace(response=lambda status: None)
            context = ConnectionContext(
                self.conf, Policy(), Pages(pages_error), Admission(error), metrics, types.SimpleNamespace()
            )
            user = UserConnection(context, '192.0.2.1', secure=False, closed=lambda: None)
            user.connection_made(transport)
            user.data_received(request)
            async with asyncio.timeout(10):
                while not (transport.written or transport.ended):
                    await asyncio.sleep(0)
            user._stop_waiting()

        asyncio.run(serve())
        return transport

    def test_whatever_a_handler_raises_the_user_is_not_left_waiting(self):
        for error in ERRORS:
            for request in (UPGRADE, FETCH):
                with self.subTest(error=repr(type(error)), request=request[-20:]):
                    self.ask(request, error)

    def test_a_refusal_with_a_wait_that_is_none_has_the_usual_one(self):
        for seconds in NO_WAITS:
            answer = self.ask(UPGRADE, exception.RateLimited(seconds=seconds)).written
            self.assertTrue(answer.startswith(b'HTTP/1.1 429 '))
            self.assertIn(b'retry-after: 5\r\n', answer.lower())

    def test_a_refusal_that_cannot_be_sent_ends_the_connection_and_is_logged(self):
        transport = self.ask(UPGRADE, Unreadable())
        self.assertEqual((b'', True), (transport.written, transport.ended))
        self.assertIn('Failed to answer a request', self.logged.output)

    def test_an_error_before_any_handler_ends_the_connection_and_is_logged(self):
        transport = self.ask(FETCH, None, pages_error=OSError('x'))
        self.assertTrue(transport.ended)
        self.assertIn('Failed to answer a request', self.logged.output)


class TurnsTest(testtools.TestCase):
    def test_requests_of_hundreds_of_connections_of_one_client_are_not_parsed_before_anothers(self):
        conf = self.useFixture(fixtures.Conf()).conf
        parsed = []
        decide = handshake.decide

        def recorded(request, policy):
            parsed.append(request.peer)
            return decide(request, policy)

        self.useFixture(fixtures_library.MonkeyPatch(f'{handshake.__name__}.decide', recorded))
        addresses = ['192.0.2.1'] * 300 + ['192.0.2.2']

        async def serve():
            metrics = types.SimpleNamespace(response=lambda status: None)
            context = ConnectionContext(
                conf, Policy(), Pages(), Admission(exception.NotFound()), metrics, types.SimpleNamespace()
            )
            users = [
                UserConnection(context, address, secure=False, closed=lambda: None) for address in addresses
            ]
            for user in users:
                user.connection_made(Transport())
                user.data_received(FETCH)
            async with asyncio.timeout(10):
                while len(parsed) < len(users):
                    await asyncio.sleep(0)
            for user in users:
                user._stop_waiting()

        asyncio.run(serve())
        self.assertLess(parsed.index('192.0.2.2'), 5)
