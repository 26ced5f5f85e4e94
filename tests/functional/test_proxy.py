# SPDX-License-Identifier: Apache-2.0
"""The proxy from the users' side: common websocket clients, tokens, origins, pages."""

import asyncio
import http.client
import json
import pathlib
import urllib.parse

import aiohttp
import fixtures
import websockets.exceptions
from websockets.asyncio.client import connect as connect_asyncio
from websockets.sync.client import connect

from consoled.testing.guests.tcp_guests import pattern
from tests.functional import proxy_base
from tests.functional.raw_user import MIB

DASHBOARD = 'https://dashboard.example.org'
CONSOLE = 'https://console.example.org'  # the origin of the access URL
WORDS = 'grüße, 世界'
UNKNOWN = 'unknown-UNKNOWN-unknown-UNKNOWN-unknown-UNK'

FILES = {
    'novnc/core/rfb.js': 'export default 1;',
    'novnc/vnc_lite.html': '<!doctype html><title>lite</title>',
    'spice/main.js': 'SpiceMainConn',
    'spice/spicemsg.js': 'SpiceLinkAuthTicket',
    'xterm/xterm.js': 'onData',
    'xterm/xterm.css': '.xterm {}',
    'secret.html': 'nobody may read this',
}


class UsersTestCase(proxy_base.ProxyTestCase):
    """Proxy tests with common websocket clients.

    :cvar more_options: the daemon's options in other groups than [proxy]
    """

    more_options: dict = {}

    @classmethod
    def new_daemon(cls, **options):
        daemon = super().new_daemon(**options)
        for group, values in cls.more_options.items():
            daemon.options.setdefault(group, {}).update(values)
        return daemon

    def url(self, target=None):
        return f'ws://127.0.0.1:{self.daemon.port}{target or self.grant()}'

    def connected(self, target=None, **how):
        """Open a session with the threaded client of ``websockets``, which answers pings."""
        client = connect(self.url(target), proxy=None, max_queue=None, **how)
        self.addCleanup(client.close)
        return client

    def attempt(self, target, statuses=None):
        """Return a user with a session, or None; the status of a refusal is added to ``statuses``."""
        user, answer = self.ask(target)
        if answer.status == 101:
            return user
        user.leave()
        if statuses is not None:
            statuses.add(answer.status)
        return None

    def assert_refused_with(self, status, target, **how):
        refused = self.assertRaises(
            websockets.exceptions.InvalidStatus, connect, self.url(target), proxy=None, **how
        )
        self.assertEqual(status, refused.response.status_code)

    def assert_no_connection(self, guest=None):
        """Assert that no connection has reached the guest."""
        self.guests.settle()
        self.assertEqual(0, (guest or self.guest).connections)


def received(client, size):
    """Return ``size`` bytes that a client of ``websockets`` receives."""
    data = b''
    while len(data) < size:
        data += client.recv(timeout=proxy_base.PATIENCE)
    return data


def echoed(client, message):
    """Send a message, and return as many bytes of the echo."""
    client.send(message)
    return received(client, len(message))


async def gathered(receive, size):
    """Return ``size`` bytes of the messages that ``receive`` returns."""
    data = b''
    while len(data) < size:
        data += await receive()
    return data


class _Clients:
    """Common clients with their defaults: they offer compression and answer pings."""

    def test_websockets(self):
        client = self.connected()
        self.assertEqual(b'\0\xff\n', echoed(client, b'\0\xff\n'))
        client.send(WORDS)
        self.assertEqual(WORDS.encode(), received(client, len(WORDS.encode())))
        client.send(iter([b'in ', b'', b'three ', b'fragments']))
        self.assertEqual(b'in three fragments', received(client, 18))
        client.ping().wait(proxy_base.PATIENCE)
        client.close()
        self.assertEqual(1000, client.close_code)
        self.assert_slot_free()

    def test_websockets_with_a_mebibyte_both_ways_in_order(self):
        client = self.connected()
        for start in range(0, MIB, MIB // 16):
            client.send(pattern(start, MIB // 16))
        self.assertEqual(pattern(0, MIB), received(client, MIB))
        self.assertEqual(pattern(MIB, MIB), echoed(client, pattern(MIB, MIB)))  # in one message
        client.send(pattern(offset, 1024) for offset in range(0, MIB, 1024))  # in fragments
        self.assertEqual(pattern(0, MIB), received(client, MIB))

    def test_websockets_on_asyncio(self):
        async def talk():
            async with connect_asyncio(self.url(), proxy=None) as client:
                await client.send([WORDS[:4], WORDS[4:]])
                self.assertEqual(WORDS.encode(), await gathered(client.recv, len(WORDS.encode())))
                _, echo = await asyncio.gather(client.send(pattern(0, MIB)), gathered(client.recv, MIB))
                self.assertEqual(pattern(0, MIB), echo)
                await asyncio.wait_for(await client.ping(), proxy_base.PATIENCE)
            self.assertEqual(1000, client.close_code)

        asyncio.run(talk())
        self.assert_slot_free()

    def test_aiohttp(self):
        async def talk():
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(self.url(), protocols=('binary',), compress=15) as client,
            ):
                self.assertEqual('binary', client.protocol)
                await client.send_str(WORDS)
                words = await gathered(client.receive_bytes, len(WORDS.encode()))
                self.assertEqual(WORDS.encode(), words)
                _, echo = await asyncio.gather(
                    client.send_bytes(pattern(0, MIB)), gathered(client.receive_bytes, MIB)
                )
                self.assertEqual(pattern(0, MIB), echo)
                await client.close()
                self.assertEqual(1000, client.close_code)

        asyncio.run(talk())
        self.assert_slot_free()


class _Tokens:
    """Parts of a request that may carry the token, and origins that may send it."""

    def token(self, **changes):
        return self.grant(**changes).partition('token=')[2]

    def assert_opens(self, target, **how):
        """Assert that the target leads to the guest, and return the negotiated subprotocol."""
        client = self.connected(target, **how)
        self.assertEqual(b'hello', echoed(client, b'hello'))
        client.close()
        self.assert_nothing_left()
        return client.subprotocol

    def test_the_token_in_the_query_of_any_path(self):
        for path in ('/', '/websockify', '/novnc.html', '/any/where'):
            self.assert_opens(f'{path}?token={self.token()}&other=1')

    def test_the_token_inside_of_path(self):
        inside = urllib.parse.urlencode({'path': f'websockify?token={self.token()}', 'autoconnect': 'true'})
        self.assert_opens(f'/websockify?{inside}')

    def test_the_token_in_a_cookie(self):
        cookie = f'theme=dark; consoled_token={self.token()}; other=1'
        self.assert_opens('/', additional_headers={'Cookie': cookie})

    def test_the_token_as_a_subprotocol_is_not_repeated(self):
        hidden = f'consoled.token.{self.token()}'
        self.assertEqual('binary', self.assert_opens('/', subprotocols=[hidden, 'base64', 'binary']))
        self.assertEqual('consoled', self.assert_opens('/', subprotocols=['consoled', hidden]))
        self.assertEqual('binary', self.assert_opens('/', subprotocols=['consoled', hidden, 'binary']))
        self.assertIsNone(self.assert_opens('/', subprotocols=[hidden]))

    def test_missing_and_invalid_tokens_are_401_wherever_they_are(self):
        self.assert_refused_with(401, '/')
        for token in (UNKNOWN, 'short', UNKNOWN[:-1] + '/', UNKNOWN * 10):
            self.assert_refused_with(401, f'/?token={token}')
            self.assert_refused_with(401, f'/?path=%3Ftoken%3D{token}')
            self.assert_refused_with(401, '/', additional_headers={'Cookie': f'consoled_token={token}'})
        self.assert_refused_with(401, '/', subprotocols=['binary', f'consoled.token.{UNKNOWN}'])
        self.assert_no_connection()

    def test_two_different_tokens_in_the_query_are_refused(self):
        target = f'/?token={self.token()}&token={self.token()}'
        self.assert_refused_with(401, target)
        self.assert_no_connection()

    def test_allowed_origins(self):
        target = self.grant()
        for origin in (None, DASHBOARD, f'{DASHBOARD}:443', CONSOLE):
            with self.subTest(origin):
                self.assert_opens(target, origin=origin)

    def test_the_origin_of_the_proxy_itself(self):
        here = f'http://127.0.0.1:{self.daemon.port}'
        for origin in (here, here.upper()):
            with self.subTest(origin):
                self.assert_opens(self.grant(access_url_base='http://console.example.org/'), origin=origin)
                self.assert_refused_with(403, self.grant(), origin=origin)  # its access URL has TLS

    def test_refused_origins_reach_no_guest_and_spend_no_token(self):
        self.set(consoleauth__single_use=True)
        target = self.grant()
        port = self.daemon.port
        for origin in (
            'https://evil.example.org',
            f'https://127.0.0.1:{port}',
            f'http://127.0.0.1:{port + 1}',
            'http://127.0.0.1',
            'http://dashboard.example.org',
            f'{DASHBOARD}:8443',
            f'{DASHBOARD}.evil.example.org',
            'http://console.example.org',
            'null',
        ):
            with self.subTest(origin):
                self.assert_refused_with(403, target, origin=origin)
        self.assert_no_connection()
        self.assert_opens(target, origin=CONSOLE)
        self.assert_refused_with(401, target, origin=CONSOLE)  # now it is spent

    def test_the_response_to_a_refused_origin(self):
        headers = {'Origin': 'https://evil.example.org', 'Accept': 'application/json'}
        _, answer = self.ask(self.grant(), **headers)
        self.assertEqual((403, 'origin_refused'), (answer.status, json.loads(answer.body)['code']))


class _Pages:
    """Responses to ordinary HTTP requests."""

    def setUp(self):
        super().setUp()
        self.http = http.client.HTTPConnection('127.0.0.1', self.daemon.port, timeout=proxy_base.PATIENCE)
        self.addCleanup(self.http.close)

    def get(self, target, method='GET', **headers):
        """Return the response and its body; all requests use one connection."""
        self.http.request(method, target, headers={name.replace('_', '-'): x for name, x in headers.items()})
        answer = self.http.getresponse()
        return answer, answer.read()

    def explained(self, target):
        """Send an ordinary request for a websocket's URL; return the response and its JSON body."""
        answer, body = self.get(target, Accept='application/json')
        self.assertEqual('application/json', answer.headers['Content-Type'])
        self.assert_security_headers(answer)
        return answer, json.loads(body)

    def assert_security_headers(self, answer):
        policy = answer.headers['Content-Security-Policy']
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn('unsafe', policy)
        self.assertEqual('nosniff', answer.headers['X-Content-Type-Options'])
        self.assertEqual('no-referrer', answer.headers['Referrer-Policy'])
        self.assertEqual('no-store', answer.headers['Cache-Control'])

    def test_pages_have_security_headers_and_share_a_connection(self):
        for page in ('/novnc.html', '/vnc_lite.html', '/spice.html', '/serial.html'):
            answer, body = self.get(f'{page}?token={UNKNOWN}')
            self.assertEqual(200, answer.status)
            self.assertEqual('text/html; charset=utf-8', answer.headers['Content-Type'])
            self.assert_security_headers(answer)
            self.assertIn(f"frame-ancestors 'self' {DASHBOARD}", answer.headers['Content-Security-Policy'])
            self.assertIn(b'<!doctype html>', body)
        answer, body = self.get('/core/rfb.js')
        self.assertEqual('text/javascript; charset=utf-8', answer.headers['Content-Type'])
        self.assertEqual('nosniff', answer.headers['X-Content-Type-Options'])
        self.assertEqual(b'export default 1;', body)
        self.assertEqual(1, self.metric('consoled_proxy_connections') - self.before.connections)

    def test_an_unchanged_page_is_304(self):
        answer, _ = self.get('/core/rfb.js')
        again, body = self.get('/core/rfb.js', If_None_Match=answer.headers['ETag'])
        self.assertEqual((304, b''), (again.status, body))
        self.assertEqual(200, self.get('/core/rfb.js')[0].status)

    def test_other_paths_are_404(self):
        for path in ('/', '/nothing', '/novnc/', '/../secret.html', '/novnc/..%2f..%2fsecret.html', '/web'):
            answer, body = self.get(path)
            self.assertEqual(404, answer.status, path)
            self.assertNotIn(b'nobody', body)
            self.assert_security_headers(answer)

    def test_head_is_get_without_the_body(self):
        target = f'/?token={UNKNOWN}'
        for path, status in (('/novnc.html', 200), ('/nothing', 404), (target, 401)):
            head, nothing = self.get(path, method='HEAD')
            answer, body = self.get(path)
            self.assertEqual((status, status, b''), (head.status, answer.status, nothing))
            self.assertEqual(str(len(body)), head.headers['Content-Length'])

    def test_other_methods_are_405(self):
        for method in ('POST', 'PUT', 'DELETE', 'OPTIONS', 'MADE-UP'):
            answer, _ = self.get('/novnc.html', method=method)
            self.assertEqual((405, 'GET, HEAD'), (answer.status, answer.headers['Allow']))
        self.http.request('POST', '/novnc.html', body=b'x' * 1000)
        self.assertEqual(405, self.http.getresponse().status)

    def test_an_ordinary_request_explains_why_a_token_is_refused(self):
        answer, body = self.explained(f'/websockify?token={UNKNOWN}')
        self.assertEqual((401, 'invalid_token', False), (answer.status, body['code'], body['retryable']))
        answer, body = self.get(f'/websockify?token={UNKNOWN}')
        self.assertEqual('text/html; charset=utf-8', answer.headers['Content-Type'])
        self.assertIn(b'not valid or has expired', body)

    def test_the_url_of_a_websocket_in_a_browser_leads_to_the_terminal(self):
        serial = self.get('/serial.html')
        pasted = self.get(f'/?token={UNKNOWN}', Accept='text/html,*/*;q=0.8')
        self.assertEqual((200, serial[1]), (pasted[0].status, pasted[1]))
        self.assert_security_headers(pasted[0])
        answer, _ = self.get('/', Accept='text/html')
        self.assertEqual(404, answer.status)

    def test_the_token_of_an_ordinary_request_may_be_in_a_header(self):
        """The pages ask so: a URL is in the logs of load balancers."""
        answer, body = self.get('/', Accept='application/json', Consoled_Token=UNKNOWN)
        self.assertEqual((401, 'invalid_token'), (answer.status, json.loads(body)['code']))

    def test_an_ordinary_request_explains_why_a_websocket_was_refused(self):
        target = self.grant()
        with self.opened(target=target):
            _, refused = self.ask(target)
            answer, body = self.explained(target)
            self.assertEqual((409, 409, 'console_in_use'), (refused.status, answer.status, body['code']))
            self.assertTrue(body['retryable'])
            self.assertGreater(int(answer.headers['Retry-After']), 0)
        self.assertEqual(1, self.guest.connections)

    def test_an_ordinary_request_with_a_valid_token_is_426_and_does_not_spend_it(self):
        self.set(consoleauth__single_use=True)
        target = self.grant()
        answer, body = self.explained(target)
        self.assertEqual((426, 'upgrade_required'), (answer.status, body['code']))
        self.assertEqual('websocket', answer.headers['Upgrade'])
        self.assert_no_connection()
        self.assert_echo(self.opened(target=target))
        self.assertEqual(401, self.explained(target)[0].status)


class ProxyTest(_Clients, _Tokens, _Pages, UsersTestCase):
    @classmethod
    def setUpClass(cls):
        directory = pathlib.Path(cls.fixture(fixtures.TempDir()).path)
        for name, text in FILES.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        cls.proxy_options = {
            'allowed_origins': DASHBOARD,
            'max_failed_tokens': 1000,
            'novnc_path': directory / 'novnc',
            'spice_path': directory / 'spice',
            'terminal_path': directory / 'xterm',
            'frame_ancestors': f"'self',{DASHBOARD}",
        }
        super().setUpClass()
