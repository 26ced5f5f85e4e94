# SPDX-License-Identifier: Apache-2.0
"""Users who never open a websocket: endless requests, incomplete requests, responses that are not read."""

import contextlib
import pathlib
import resource
import ssl
import threading
import time

import fixtures

from tests.functional.raw_user import MIB, handshake

_FLAT = 8 * MIB  # limit for the growth of the worker's memory
_STALLED = 1000  # users
_GOOD = 20  # users
_PAGE = 8 * MIB  # more than the kernel buffers for a user who does not read
_LONG = 25.0  # seconds; far more than any timeout of these proxies

PAGE = b'GET /core/rfb.js HTTP/1.1\r\nHost: localhost\r\n%b\r\n'
NOTHING = b'GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n'


def client_hello():
    """Return the first bytes of a TLS client."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname='localhost')
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def _read_all(sock):
    with contextlib.suppress(OSError):
        while sock.recv(MIB):
            pass


class _Requests:
    @classmethod
    def new_daemon(cls, **options):
        """Return a proxy with a large page."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the daemon inherits it
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
        script = pathlib.Path(cls.fixture(fixtures.TempDir()).path, 'core', 'rfb.js')
        script.parent.mkdir()
        script.write_bytes(b'export default 1;'.ljust(_PAGE))
        novnc = script.parent.parent
        return super().new_daemon(novnc_path=novnc, max_connections_per_address=2 * _STALLED, **options)

    def assert_good_users_open(self):
        """Assert that well-behaved users can open sessions in reasonable time."""
        target = self.grant()
        for _ in range(_GOOD):
            began = time.monotonic()
            with self.opened(target=target) as user:
                self.assert_echo(user)
            self.assertLess(time.monotonic() - began, 5.0)
            self.wait_until(lambda: self.count('console_session') == 0, 'the end of the session')

    def stall(self, number, data, **how):
        """Return users who send ``data`` and nothing else."""
        users = [self.user(**how) for _ in range(number)]
        for user in users:
            user.send(data)
        return users

    def assert_ended_in_time(self, users, began):
        """Assert that the proxy closes all these connections within its timeouts."""
        for user in users:
            user.ended()
        self.assertLess(time.monotonic() - began, _LONG)
        self.assert_nothing_left()


class Requests(_Requests):
    """Malformed and endless HTTP requests."""

    def test_invariant_9_a_mebibyte_of_headers_is_refused(self):
        head = b'GET / HTTP/1.1\r\nHost: localhost\r\n' + (b'X-Filler: ' + b'x' * 1000 + b'\r\n') * 1024
        for name, data in (('many', head), ('one', head[:50] + b'x' * MIB), ('no line', b'x' * MIB)):
            with self.subTest(name), self.memory_within(_FLAT):
                user = self.user()
                with contextlib.suppress(OSError):
                    user.send(data)
                self.assertIn(user.answer().status, (400, 431) if name == 'no line' else (431,))
                user.ended()
                user.leave()
                self.assert_nothing_left()

    def test_invariant_9_the_size_of_a_request_is_limited(self):
        target = self.grant()
        for size, status in ((15000, 101), (17000, 431), (100000, 431)):
            with self.subTest(size):
                user = self.user()
                answered = 431
                # a user who is still sending may find the connection closed before reading the response
                with contextlib.suppress(OSError, EOFError):
                    user.send(handshake(target, X_Filler='x' * size))
                    answered = user.answer().status
                self.assertEqual(status, answered)
                user.leave()
                self.assert_nothing_left()

    def test_invariant_9_pipelined_requests_without_reading_the_responses(self):
        with self.memory_within(_FLAT):
            began = time.monotonic()
            user = self.user(rcvbuf=4096)
            sent = user.flood(NOTHING * 100, seconds=0.5)
            self.assertGreater(sent, 0)
            self.assert_nothing_left()
            self.assertLess(time.monotonic() - began, _LONG)

    def test_pipelined_requests_are_all_answered(self):
        user = self.user().send(NOTHING * 1000)
        self.assertEqual({404}, {user.answer().status for _ in range(1000)})
        user.leave()
        self.assert_slot_free()

    def test_a_page_that_is_read(self):
        self.use_another(request_timeout=60)  # this user is not slow on purpose
        user = self.user()
        for _ in range(2):
            answer = user.send(PAGE % b'').answer()
            self.assertEqual((200, _PAGE), (answer.status, len(answer.body)))
        answer = user.send(PAGE % b'Connection: close\r\n').answer()
        self.assertEqual((200, _PAGE), (answer.status, len(answer.body)))
        user.leave()
        self.assert_nothing_left()

    def test_a_page_that_is_not_read(self):
        began = time.monotonic()
        for more in (b'Connection: close\r\n', b''):
            self.user(rcvbuf=4096).send(PAGE % more)
        self.wait_until(lambda: self.metric('consoled_proxy_connections') == 2, 'the users')
        self.assert_nothing_left()
        self.assertLess(time.monotonic() - began, _LONG)

    def test_a_request_that_comes_byte_by_byte_times_out(self):
        began = time.monotonic()
        user = self.user()
        for byte in handshake(self.grant()):
            user.send(bytes([byte]))
            user.sock.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                self.assertEqual(408, user.answer().status)
                break
        user.leave()
        self.assertLess(time.monotonic() - began, _LONG / 2)
        self.assert_nothing_left()

    def test_idle_connections_time_out(self):
        began = time.monotonic()
        silent, one_byte, answered = [self.user() for _ in range(3)]
        one_byte.send(b'G')
        self.assertEqual(404, answered.send(NOTHING).answer().status)
        self.assertEqual(408, one_byte.answer().status)
        self.assertEqual([b'', b'', b''], [user.ended() for user in (silent, one_byte, answered)])
        self.assertLess(time.monotonic() - began, _LONG)
        self.assert_nothing_left()

    def test_what_follows_a_request_for_a_head_is_answered_in_full_or_times_out(self):
        began = time.monotonic()
        for data, status in ((b'nonsense\r\n\r\n', 400), (b'x' * 20000, 431), (b'GET / HT', 408)):
            with self.subTest(status):
                user = self.user().send(NOTHING.replace(b'GET', b'HEAD'))
                self.assertEqual(404, user.answer(head=True).status)
                answer = user.send(data).answer()
                self.assertEqual((status, 'close'), (answer.status, answer.headers['connection']))
                self.assertIn(str(status).encode(), answer.body)
                self.assertEqual(b'', user.ended())
        self.assertLess(time.monotonic() - began, _LONG)
        self.assert_nothing_left()

    def test_a_websocket_request_with_a_body_is_refused(self):
        target = self.grant()
        for headers, body in (
            ({'Content_Length': 5}, b'hello'),
            ({'Content_Length': 10**9}, b'hello'),
            ({'Transfer_Encoding': 'chunked'}, b'zz\r\n\r\n'),
            ({'Transfer_Encoding': 'chunked'}, b'0\r\n\r\n'),
        ):
            with self.subTest(headers):
                user = self.user().send(handshake(target, **headers) + body)
                self.assertEqual(400, user.answer().status)
                user.leave()
                self.assert_slot_free()


class ManyRequests(_Requests):
    """Many requests, and many incomplete ones."""

    def test_a_user_who_sends_requests_forever_delays_nobody(self):
        user = self.user()
        asking = threading.Thread(target=user.flood, args=(NOTHING * 1000, 5, 2**40), daemon=True)
        reading = threading.Thread(target=_read_all, args=(user.sock,), daemon=True)
        asking.start()
        reading.start()
        self.assert_good_users_open()
        user.eof()
        user.reset()
        asking.join()
        reading.join()
        self.assert_slot_free()

    def test_invariant_9_a_thousand_incomplete_requests_delay_nobody(self):
        with self.memory_within(64 * MIB):
            began = time.monotonic()
            users = self.stall(_STALLED, b'GET / HTTP/1.1\r\nHost: localhost\r\n')
            self.assert_good_users_open()
            self.assert_ended_in_time(users, began)


class RequestsInTLS(_Requests):
    """Malformed and incomplete TLS handshakes."""

    def test_invariant_9_a_thousand_incomplete_handshakes_delay_nobody(self):
        hello = client_hello()
        # The first wave in a new process costs about 75 KiB for each handshake, which the allocator keeps.
        # A second wave reuses most of it (it took 15 MiB more, and later ones 5): a leak would cost as much.
        for growth in (96 * MIB, 24 * MIB):
            with self.memory_within(growth):
                began = time.monotonic()
                users = [
                    user
                    for data in (b'', hello[:50], hello)
                    for user in self.stall(_STALLED // 3, data, tls=None)
                ]
                self.assert_good_users_open()
                self.assert_ended_in_time(users, began)

    def test_data_that_is_not_tls(self):
        for data in (NOTHING, b'\x16\x03\x01\xff\xff' + b'x' * 70000, b'\x00' * 1000, client_hello()[::-1]):
            with self.subTest(data[:10]):
                user = self.user(tls=None)
                with contextlib.suppress(OSError):
                    user.send(data)
                user.ended()
                self.assert_nothing_left()
