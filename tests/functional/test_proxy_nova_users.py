# SPDX-License-Identifier: Apache-2.0
"""What users of Nova's proxies rely on: the bytes of the 101 and of a refusal, and the cookie ``token``.

The requests are those of Tempest's websocket client (tempest/common/compute.py) and of websockify's pages.
"""

import contextlib
import http.client
import json
import pathlib
import socket
import time

import fixtures

from consoled.testing.daemons import free_port
from tests.functional import proxy_base
from tests.functional.test_proxy_hostile_requests import NOTHING, _Requests, client_hello

UNKNOWN = 'unknown-UNKNOWN-unknown-UNKNOWN-unknown-UNK'


class PortsTest(proxy_base.ProxyTestCase):
    @classmethod
    def setUpClass(cls):
        cls.more = [free_port(), free_port()]
        cls.proxy_options = {'additional_addresses': f'127.0.0.1:{cls.more[0]},[::1]:{cls.more[1]}'}
        super().setUpClass()

    def test_each_port_opens_the_same_consoles(self):
        for port in (self.daemon.port, self.more[0]):
            with proxy_base.User(port) as user:
                self.assertEqual(101, self.ask(self.grant(), user)[1].status)
                self.assert_echo(user)
            self.assert_nothing_left()
        connection = http.client.HTTPConnection('::1', self.more[1], timeout=proxy_base.PATIENCE)
        with contextlib.closing(connection):
            connection.request('GET', '/nothing')
            self.assertEqual(404, connection.getresponse().status)

    def test_all_addresses_are_logged(self):
        users = f'127.0.0.1:{self.daemon.port},127.0.0.1:{self.more[0]},[::1]:{self.more[1]}'
        self.assertIn(f'users={users} ', self.daemon.log())

    def test_all_workers_share_them_and_a_stopped_proxy_leaves_none(self):
        ports = [free_port(), free_port()]
        addresses = ','.join(f'127.0.0.1:{port}' for port in ports)
        daemon = self.useFixture(self.new_daemon(additional_addresses=addresses, workers=2))
        daemon.wait_ready()
        self.assertEqual(2, len(daemon.worker_pids()))
        for port in ports * 5:
            with proxy_base.User(port) as user:
                user.send(b'GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n')
                self.assertEqual(404, user.answer().status)
        daemon.stop()
        for port in ports:
            self.assertRaises(ConnectionRefusedError, proxy_base.User, port)


class BothOnOnePortTest(_Requests, proxy_base.ProxyTestCase):
    """``ssl_only = false``: TLS and plain HTTP on the same port."""

    tls = True
    proxy_options = {'ssl_only': False, 'tls_timeout': 2, 'request_timeout': 2, 'close_timeout': 1}

    def test_the_first_byte_decides(self):
        for tls in (self.authority.client, None):
            user = self.opened(tls=tls)
            self.assert_echo(user)
            user.leave()
            self.assert_nothing_left()

    def test_the_origin_has_the_scheme_of_its_own_connection(self):
        for tls, good, bad in ((self.authority.client, 'https', 'http'), (None, 'http', 'https')):
            target = self.grant(access_url_base=f'{good}://console.example.org/')
            _, answer = self.ask(target, self.user(tls=tls), Origin=f'{bad}://localhost')
            self.assertEqual(403, answer.status)
            user, answer = self.ask(target, self.user(tls=tls), Origin=f'{good}://localhost')
            self.assertEqual(101, answer.status)
            user.leave()
            self.assert_nothing_left()

    def test_a_first_byte_that_comes_late_and_alone(self):
        user = self.user(tls=None)
        request = proxy_base.handshake(self.grant())
        user.send(request[:1])
        time.sleep(0.1)  # so that it comes alone
        user.send(request[1:])
        self.assertEqual(101, user.answer().status)
        self.assert_echo(user)

    def test_both_protocols_on_one_connection(self):
        plain = self.user(tls=None)
        self.assertEqual(404, plain.send(NOTHING).answer().status)
        plain.send(client_hello())
        self.assertEqual(400, plain.answer().status)
        plain.ended()
        secure = self.user()
        self.assertEqual(404, secure.send(NOTHING).answer().status)
        socket.socket.send(secure.sock, NOTHING)  # below TLS
        secure.ended()
        plain.leave()
        secure.leave()
        self.assert_nothing_left()

    def test_what_is_neither(self):
        for data in (
            b'\x16' + NOTHING,
            b'\x80\x2e\x01\x03\x01' + b'x' * 70000,
            b'\x00' * 1000,
            b'\x15\x03\x03',
        ):
            with self.subTest(data[:10]):
                user = self.user(tls=None)
                with contextlib.suppress(OSError):
                    user.send(data)
                user.eof()
                user.ended()
                user.leave()
                self.assert_nothing_left()

    def test_users_who_leave_before_the_first_byte(self):
        self.user(tls=None).leave()
        self.user(tls=None).reset()
        user = self.user(tls=None)
        user.eof()
        self.assertEqual(b'', user.ended())
        user.leave()
        self.assert_nothing_left()

    def test_invariant_9_users_who_send_nothing_or_one_byte_take_no_time_and_no_memory(self):
        with self.memory_within(48 * proxy_base.MIB):
            began = time.monotonic()
            users = [
                user
                for data in (b'', b'\x16', b'G', client_hello()[:50])
                for user in self.stall(150, data, tls=None)
            ]
            self.assert_good_users_open()
            self.assert_ended_in_time(users, began)

    def test_a_proxy_that_stops_does_not_wait_for_a_first_byte(self):
        self.use_another(tls_timeout=60)
        user = self.user(tls=None)
        self.wait_until(lambda: self.metric('consoled_proxy_connections') == 1, 'the connection')
        self.daemon.stop()
        self.assertEqual(b'', user.ended())


class OriginsByHostTest(proxy_base.ProxyTestCase):
    """``match_origin_by_host``: any port of the same host, as Nova judges."""

    proxy_options = {
        'match_origin_by_host': True,
        'allowed_origins': 'dashboard.example.org',
        'trusted_proxies': '127.0.0.9',
    }

    @classmethod
    def new_daemon(cls, **options):
        script = pathlib.Path(cls.fixture(fixtures.TempDir()).path, 'core', 'rfb.js')
        script.parent.mkdir()
        script.write_text('export default 1;')
        return super().new_daemon(novnc_path=script.parent.parent, **options)

    def status(self, origin, source='127.0.0.1', access_url='http://console.example.org/', **headers):
        target = self.grant(access_url_base=access_url)
        user, answer = self.ask(target, self.user(source=source), Origin=origin, **headers)
        user.leave()
        self.wait_until(lambda: self.count('console_session') == 0, 'the end of the session')
        return answer.status

    def test_any_port_of_the_same_hosts(self):
        for origin in (
            'http://localhost',
            'http://localhost:8443',
            'https://localhost:1',
            'http://dashboard.example.org:80',
            'https://dashboard.example.org:8443',
            'https://console.example.org:9999',
        ):
            self.assertEqual(101, self.status(origin), origin)

    def test_other_hosts(self):
        for origin in ('http://evil.example.org', 'http://localhost.evil.example.org', 'null', 'nonsense'):
            self.assertEqual(403, self.status(origin), origin)
        self.guests.settle()
        self.assertEqual(0, self.guest.connections)

    def test_a_page_without_tls_opens_no_console_whose_access_url_has_it(self):
        """Trap 13 of Nova's proxies: the Origin equals Host, and is refused all the same."""
        url = 'https://console.example.org/'
        self.assertEqual(403, self.status('http://localhost', access_url=url))
        self.assertEqual(403, self.status('http://localhost', access_url=url, X_Forwarded_Proto='https'))
        self.assertEqual(101, self.status('https://localhost', access_url=url))
        trusted = {'source': '127.0.0.9', 'access_url': url}
        self.assertEqual(101, self.status('http://localhost', X_Forwarded_Proto='https', **trusted))
        self.assertEqual(403, self.status('https://localhost', X_Forwarded_Proto='http', **trusted))

    def policy(self, host):
        request = f'GET /novnc.html HTTP/1.1\r\nHost: {host}\r\n\r\n'
        with self.user() as user:
            return user.send(request.encode()).answer().headers.get('content-security-policy')

    def test_pages_of_the_same_hosts_may_embed_the_consoles(self):
        policy = self.policy('console.example.org:6080')
        for host in ('console.example.org', 'dashboard.example.org'):
            self.assertIn(f' http://{host}:*', policy.partition('frame-ancestors')[2])

    def test_a_host_header_adds_nothing_else(self):
        plain = self.policy('')
        for host in (
            'a; script-src *',
            'a b',
            "'unsafe-inline'",
            '*',
            'x' * 5000 + ';',
            '[::1]',
            'a.example:x',
        ):
            self.assertEqual(plain, self.policy(host), host[:30])


class NovaUsersTest(proxy_base.ProxyTestCase):
    def token(self):
        return self.grant().partition('token=')[2]

    def test_the_reason_phrase_of_the_101(self):
        """Tempest compares it."""
        _, answer = self.ask(self.grant(), Sec_WebSocket_Protocol='binary')
        self.assertTrue(answer.raw_head.startswith(b'HTTP/1.1 101 Switching Protocols\r\n'), answer.raw_head)
        self.assertEqual('binary', answer.headers['sec-websocket-protocol'])
        self.assertEqual('websocket', answer.headers['upgrade'].lower())

    def test_nothing_follows_the_head_of_a_refusal(self):
        for target, status in ((f'/?token={UNKNOWN}', 401), ('/', 401), ('/websockify', 401)):
            user, answer = self.ask(target)
            self.assertEqual(
                (status, 'close', b''), (answer.status, answer.headers['connection'], answer.body)
            )
            self.assertEqual(b'', user.ended())
        user, answer = self.ask(self.grant(), Origin='https://evil.example.org')
        self.assertEqual((403, b''), (answer.status, user.ended()))

    def test_a_program_that_asks_for_json_gets_the_reason(self):
        user, answer = self.ask(f'/?token={UNKNOWN}', Accept='application/json')
        self.assertEqual((401, 'invalid_token'), (answer.status, json.loads(answer.body)['code']))
        self.assertEqual(b'', user.ended())

    def test_what_follows_a_refused_request_is_no_request(self):
        """The connection has ended: a websocket client's frames must not be read as HTTP."""
        request = proxy_base.handshake(f'/?token={UNKNOWN}')
        user = self.user().send(request + b'GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n')
        self.assertEqual(401, user.answer().status)
        self.assertEqual(b'', user.ended())

    def test_the_cookie_token_where_there_is_no_other(self):
        for target in ('/websockify', '/', '/?token=', '/any/where?path=websockify'):
            user, answer = self.ask(target, Cookie=f'theme=dark; token={self.token()}')
            self.assertEqual(101, answer.status, target)
            self.assert_echo(user)
            user.leave()
            self.assert_nothing_left()
        user, answer = self.ask(self.grant(), Cookie=f'token={UNKNOWN}')
        self.assertEqual(101, answer.status)
        self.assert_echo(user)

    def test_cookies_that_are_no_tokens(self):
        many = '; '.join(f'token={number:04}-xxxxxxxxxxxx' for number in range(500))
        for cookie in (f'token={UNKNOWN}', 'token=a.b.c', many, 'token', '='):
            user, answer = self.ask('/websockify', Cookie=cookie)
            self.assertEqual((401, b''), (answer.status, user.ended()), cookie[:50])
