# SPDX-License-Identifier: Apache-2.0
"""Refused requests: they reach no guest, and the responses reveal no more than they should."""

import itertools
import json
import socket
import statistics
import time

import sqlalchemy as sa
from testtools.content import text_content

from consoled import token as tokens
from consoled.testing.guests.tcp_guests import EchoGuest
from tests.functional import proxy_base
from tests.functional.raw_user import HANDSHAKE, handshake

_ROUNDS = 20
_sources = itertools.count(10)

BROKEN = {
    'post': handshake('{}').replace(b'GET', b'POST', 1),
    'http/1.0': handshake('{}').replace(b'HTTP/1.1', b'HTTP/1.0', 1),
    'no key': handshake('{}').replace(b'Sec-WebSocket-Key', b'X-Key'),
    'short key': handshake('{}').replace(b'c2l4dGVlbiBieXRlcyBpdA==', b'c2l4dGVlbg=='),
    'two keys': handshake('{}', Sec_WebSocket_Key='c2l4dGVlbiBieXRlcyBpdA=='),
    'old version': handshake('{}').replace(b'Version: 13', b'Version: 8'),
    'no connection header': handshake('{}').replace(b'Connection: Upgrade', b'Connection: close'),
    'no upgrade': handshake('{}').replace(b'Upgrade: websocket', b'X-Upgrade: websocket'),
    'no host': handshake('{}').replace(b'Host: localhost', b'X-Host: localhost'),
    'two hosts': handshake('{}', Host='localhost'),
    'another page': handshake('{}', Origin='https://evil.example.org'),
    'two pages': handshake('{}', Origin='http://localhost') + b'',
    'a page of nobody': handshake('{}', Origin='null'),
    'a body': handshake('{}', Content_Length=1) + b'x',
    'an absolute target': handshake('http://localhost{}'),
}
BROKEN['two pages'] = BROKEN['two pages'].replace(b'Origin:', b'Origin: http://evil.example.org\r\nOrigin:')


def source():
    """Return a loopback address that no test has used yet."""
    return f'127.0.9.{next(_sources)}'


class _Refusals:
    def assert_untouched(self):
        """Assert that there was no connection to the guest, and that nothing is left."""
        self.guests.settle()
        self.assertEqual(0, self.guest.connections)
        self.assert_nothing_left()

    def refused(self, target, user=None, **headers):
        """Send a request that is refused; return the status, the error code and the response."""
        user, answer = self.ask(target, user, Accept='application/json', **headers)
        user.leave()
        code = json.loads(answer.body)['code']
        return answer.status, code, answer

    def expired(self, target):
        """Let the token in this path expire, and return the path."""
        token = target.partition('=')[2]
        statement = sa.text('UPDATE console_auth_token SET expires = :then WHERE token_hash = :hash')
        values = {'then': '2020-01-01 00:00:00.000000', 'hash': tokens.hashed(token)}
        self.cell.db.transaction(lambda conn: conn.execute(statement, values))
        return target


class RecentRefusals(_Refusals):
    """Users who are refused, and the facts that the response reveals."""

    def test_invariant_7_malformed_requests_do_not_reach_the_guest(self):
        target = self.grant()
        for name, request in BROKEN.items():
            with self.subTest(name):
                with self.user().send(request.replace(b'{}', target.encode())) as user:
                    self.assertIn(user.answer().status, (400, 403, 405, 426))
                self.assert_untouched()
        user = self.opened(target=target)  # the token is still valid
        self.assert_echo(user)

    def test_invariant_7_tokens_that_are_refused_do_not_reach_the_guest(self):
        good = self.grant()
        for name, target in {
            'none': '/',
            'unknown': f'/?token={tokens.mint()}',
            'expired': self.expired(self.grant()),
            'malformed': '/?token=x',
            'long': f'/?token={"x" * 5000}',
            'not ASCII': '/?token=%FF%00%E4' + 'x' * 20,
            'two': f'{good}&token={tokens.mint()}',
            'half': good[:-1],
            'more': good + 'x',
        }.items():
            with self.subTest(name):
                self.assertEqual((401, 'invalid_token'), self.refused(target)[:2])
                self.assert_untouched()

    def test_invariant_7_a_console_that_is_gone_is_not_reached(self):
        target = self.grant()
        self.api.clean_console_auths_for_instance(self.context, self.instance)
        self.wait_until(lambda: not self.ports(), 'the end of the instance')
        self.assertEqual((401, 'invalid_token'), self.refused(target)[:2])
        self.assert_untouched()

    def test_invariant_7_a_revoked_token_does_not_reach_the_guest(self):
        target = self.grant()
        self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        self.assertEqual((401, 'invalid_token'), self.refused(target)[:2])
        self.assert_untouched()

    def test_a_console_in_use_is_409_and_its_guest_has_one_connection(self):
        target = self.grant()
        user = self.opened(target=target)
        for _ in range(5):
            status, code, answer = self.refused(target)
            self.assertEqual((409, 'console_in_use'), (status, code))
            self.assertIn('retry-after', answer.headers)
        self.assert_echo(user)
        self.guests.settle()
        self.assertEqual(1, self.guest.connections)
        user.leave()
        self.assert_slot_free()

    def test_expired_revoked_and_unknown_tokens_get_the_same_response(self):
        targets = {
            'unknown': f'/?token={tokens.mint()}',
            'expired': self.expired(self.grant()),
            'revoked': self.grant(),
        }
        self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        for headers in ({}, {'Accept': 'application/json'}, {'Origin': 'https://evil.example.org'}):
            with self.subTest(headers):
                answers = {name: self.raw_answer(target, headers) for name, target in targets.items()}
                self.assertEqual(answers['unknown'], answers['expired'])
                self.assertEqual(answers['unknown'], answers['revoked'])
        self.assert_untouched()
        self.add_times(targets)

    def raw_answer(self, target, headers):
        """Return the bytes of a response without its date, and of the response to an ordinary request."""
        with self.user() as user:
            refused = user.send(handshake(target, **headers)).answer()
        plain = HANDSHAKE.format(target=target, headers='').replace('Upgrade', 'X').encode()
        with self.user() as user:
            why = user.send(plain).answer()
        return [
            ([line for line in answer.raw_head.splitlines() if not line.startswith(b'Date:')], answer.body)
            for answer in (refused, why)
        ]

    def add_times(self, targets):
        """Measure how long these responses take, and add the times to the test's details."""
        took = {name: [] for name in targets}
        for _ in range(_ROUNDS):
            for name, target in targets.items():
                with self.user() as user:
                    began = time.perf_counter()
                    user.send(handshake(target)).answer()
                    took[name].append((time.perf_counter() - began) * 1000)
        for name, times in took.items():
            quartiles = ' '.join(f'{value:.2f}' for value in statistics.quantiles(times, n=4))
            self.addDetail(f'time {name}', text_content(f'quartiles {quartiles} ms'))


class LimitsTest(_Refusals, proxy_base.ProxyTestCase):
    """Limits of connections, sessions and failed tokens."""

    proxy_options = {
        'max_connections': 12,
        'max_connections_per_address': 6,
        'max_sessions': 4,
        'max_sessions_per_address': 3,
        'max_failed_tokens': 5,
        'connect_timeout': 1,
    }

    def new_targets(self, number):
        """Return the paths to the consoles of ``number`` new guests; each takes one session."""
        return [self.grant(self.add(EchoGuest())) for _ in range(number)]

    def test_invariant_9_connections_of_an_address(self):
        users = [self.user(tls=None) for _ in range(6)]
        for _ in range(5):
            self.assertEqual(b'', self.user().ended())
        self.wait_until(lambda: self.metric('consoled_proxy_turned_away_total', '"address"') == 5)
        with self.opened(source=source()) as other:
            self.assert_echo(other)
        for user in users:
            user.leave()
        self.assert_slot_free()

    def test_invariant_9_connections_of_a_process(self):
        users = [self.user(source=f'127.0.8.{number}') for number in range(12)]
        for _ in range(5):
            self.assertEqual(b'', self.user(source=source()).ended())
        self.wait_until(lambda: self.metric('consoled_proxy_turned_away_total', '"process"') == 5)
        for user in users:
            user.reset()
        self.assert_slot_free()

    def test_invariant_9_sessions_of_an_address(self):
        targets = self.new_targets(3)
        users = [self.opened(target=target) for target in targets]
        target = self.grant()
        for _ in range(3):
            status, code, answer = self.refused(target)
            self.assertEqual((429, 'too_many_sessions'), (status, code))
            self.assertIn('retry-after', answer.headers)
        self.assert_guest_untouched()
        with self.opened(target=target, source=source()) as other:
            self.assert_echo(other)
        users.pop().leave()
        self.wait_until(lambda: self.count('console_session') == 2, 'the end of the session')
        with self.opened(target=target) as user:
            self.assert_echo(user)

    def assert_guest_untouched(self):
        self.guests.settle()
        self.assertEqual(0, self.guest.connections)

    def test_invariant_9_sessions_of_a_process(self):
        users = [self.opened(target=target, source=source()) for target in self.new_targets(4)]
        target = self.grant()
        for _ in range(3):
            status, code, answer = self.refused(target, self.user(source=source()))
            self.assertEqual((503, 'proxy_busy'), (status, code))
            self.assertIn('retry-after', answer.headers)
        self.assert_guest_untouched()
        for user in users:
            user.leave()
        self.assert_slot_free()

    def test_failed_sessions_do_not_count(self):
        guest = EchoGuest()
        with socket.create_server(('127.0.0.1', 0)) as sock:
            guest.port = sock.getsockname()[1]
        target = self.grant(guest)
        for _ in range(5):
            self.assertEqual((502, 'target_failed'), self.refused(target)[:2])
            self.wait_until(lambda: self.count('console_session') == 0, 'the end of the session')
        self.assert_slot_free()

    def test_invariant_7_an_address_with_too_many_failures_is_refused(self):
        attacker = source()
        for _ in range(5):
            self.assertEqual(401, self.refused(f'/?token={tokens.mint()}', self.user(source=attacker))[0])
        target = self.grant()
        status, code, answer = self.refused(f'/?token={tokens.mint()}', self.user(source=attacker))
        self.assertEqual((429, 'rate_limited'), (status, code))
        self.assertIn(int(answer.headers['retry-after']), range(1, 61))
        with self.user(source=attacker) as user:
            ask = f'GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n'
            self.assertEqual(429, user.send(ask.encode()).answer().status)
        self.assert_untouched()
        with self.opened(target=target, source=attacker) as user:
            self.assert_echo(user)
        self.assert_nothing_left()
        with self.opened(target=target, source=source()) as other:
            self.assert_echo(other)
