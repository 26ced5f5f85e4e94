# SPDX-License-Identifier: Apache-2.0
"""Floods of requests by one visitor, or by another site through his browser, take nothing from anybody."""

import re
import time

from consoled import token as tokens
from consoled.proxy.targets import _LOGGED_FAILURES
from consoled.testing.guests.tcp_guests import EchoGuest
from consoled.testing.services import free_port
from tests.functional import proxy_base
from tests.functional.raw_user import close_frame, handshake
from tests.functional.test_proxy_hostile_refusals import source

_LIMIT = 5
_RECORDED = 10
_REFUSED = re.compile(r'session refused .*client_address=(\S+)')


def get(target, **headers):
    """Return an ordinary request."""
    more = ''.join(f'{name.replace("_", "-")}: {value}\r\n' for name, value in headers.items())
    return f'GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n{more}\r\n'.encode()


def image(target):
    """Return the request for an image in a page of another site, as a browser makes it."""
    return get(target, Sec_Fetch_Site='cross-site', Sec_Fetch_Mode='no-cors', Sec_Fetch_Dest='image')


class FloodTest(proxy_base.ProxyTestCase):
    proxy_options = {
        'max_failed_tokens': _LIMIT,
        'max_recorded_refusals': _RECORDED,
        'max_connections_per_address': 1000,
    }

    def assert_opens(self, target, address, **headers):
        user, answer = self.ask(target, self.user(source=address), **headers)
        self.assertEqual(101, answer.status, answer)
        self.assert_echo(user)
        user.send(close_frame())
        user.close_code()

    def status(self, request, address):
        with self.user(source=address) as user:
            return user.send(request).answer().status

    # explanations

    def test_requests_with_a_good_token_ask_no_manager_beyond_a_small_limit(self):
        target, address = self.grant(), source()
        before = self.metrics()
        users = [self.user(source=address) for _ in range(40)]
        for _ in range(5):
            for user in users:
                user.send(get(target))
            for user in users:
                self.assertEqual(426, user.answer().status)
        asked = self.explained('manager', before)
        self.assertEqual((_LIMIT, 200 - _LIMIT), (asked, self.explained('none', before)))
        self.assertEqual(200, self.grown('responses_total', 'status="426"', before))
        self.assert_opens(target, address)

    def explained(self, where, before):
        return self.grown('explained_total', f'source="{where}"', before)

    def grown(self, name, label, before):
        name = f'consoled_proxy_{name}'
        return self.metric(name, label) - self.metric(name, label, before)

    def test_the_reason_of_a_refusal_is_told_without_a_manager(self):
        target, address = f'/?token={tokens.mint()}', source()
        self.assertEqual(401, self.status(handshake(target), address))
        before = self.metrics()
        for request in (get(target), image(target), get(target).replace(b'GET', b'HEAD', 1)):
            with self.user(source=address) as user:
                user.send(request)
                self.assertEqual(401, user.answer(head=request.startswith(b'HEAD')).status)
        self.assertEqual((3, 0), (self.explained('memory', before), self.explained('manager', before)))

    # another site

    def test_another_site_cannot_lock_a_visitor_out(self):
        address, evil = source(), 'https://evil.example.org'
        for number in range(3 * _LIMIT):
            self.assertEqual(426, self.status(image(f'/{number}?token={tokens.mint()}'), address))
            self.assertEqual(401, self.status(image('/?token=AAAA'), address))
        for _ in range(2 * _LIMIT):
            answer = self.status(handshake(f'/?token={tokens.mint()}', Origin=evil), address)
            self.assertIn(answer, (401, 429))
        for origin in (evil, 'null', 'garbage'):
            self.assertIn(self.status(handshake('/?token=AAAA', Origin=origin), address), (401, 403))
        # his own attempts are all left
        for _ in range(_LIMIT):
            self.assertEqual(401, self.status(handshake(f'/?token={tokens.mint()}'), address))
        self.assertEqual(429, self.status(handshake(f'/?token={tokens.mint()}'), address))

    def test_a_good_token_opens_while_others_behind_its_address_guess(self):
        address, target = source(), self.grant()
        for _ in range(_LIMIT):
            self.assertEqual(401, self.status(handshake(f'/?token={tokens.mint()}'), address))
        guessers = [self.user(source=address) for _ in range(40)]
        for user in guessers:
            user.send(handshake(f'/?token={tokens.mint()}'))
        self.assert_opens(target, address)
        for user in guessers:
            answer = user.answer()
            self.assertEqual(429, answer.status)
            self.assertIn(int(answer.headers['retry-after']), range(1, 61))
        self.assert_opens(target, source())

    def test_one_user_who_opens_again_and_again_leaves_room_for_others(self):
        mine, others = self.grant(), [self.grant(self.add(EchoGuest())) for _ in range(5)]
        held = self.opened(target=mine)
        users = [self.user(source=source()) for _ in range(40)]
        for user in users:
            user.send(handshake(mine) * 5)
        for target in others:
            self.assert_opens(target, source())
        for user in users:
            self.assertIn(user.answer().status, (409, 429))
        self.assert_echo(held)

    # the log

    def flood(self, address, request, number=100):
        """Pipeline requests that are refused on one connection; return the statuses."""
        with self.user(source=address) as user:
            user.send(request * number)
            return {user.answer().status for _ in range(number)}

    def test_refusals_of_an_address_are_logged_up_to_a_limit_and_the_rest_counted(self):
        floods = {
            'no token': handshake('/'),
            'malformed token': handshake('/?token=x'),
            'malformed origin': handshake(f'/?token={tokens.mint()}', Origin='null'),
            'no websocket': handshake('/').replace(b'Version: 13', b'Version: 12'),
            'two tokens': handshake(f'/?token={tokens.mint()}&token={tokens.mint()}'),
        }
        before, start = self.metrics(), len(self.daemon.log())
        addresses = {name: source() for name in floods}
        for name, request in floods.items():
            self.assertTrue(self.flood(addresses[name], request) <= {401, 403, 426}, name)
        logged = _REFUSED.findall(self.daemon.log()[start:])
        for name, address in addresses.items():
            self.assertEqual(_RECORDED, logged.count(address), name)
        self.assertEqual(500, self.grown('refused_total', '', before))
        self.assertEqual(500 - 5 * _RECORDED, self.grown('left_out_total', '', before))

    def test_failures_of_a_console_are_logged_up_to_a_limit_for_each_console(self):
        start, began = len(self.daemon.log()), time.monotonic()
        for target in [self.grant(port=free_port()) for _ in range(2)]:
            with self.user(source=source()) as user:
                answers = [user.send(handshake(target)).answer().status for _ in range(3 * _LOGGED_FAILURES)]
            # 409: the end of the attempt before is still on its way to the manager
            self.assertEqual({502}, set(answers) - {409})
            self.assertGreater(answers.count(502), _LOGGED_FAILURES)
        lines = self.daemon.log()[start:].count('Failed to open console')
        more = 2 * _LOGGED_FAILURES * (time.monotonic() - began) / 60  # on a busy machine
        self.assertGreaterEqual(lines, 2 * _LOGGED_FAILURES)
        self.assertLessEqual(lines, 2 * _LOGGED_FAILURES + more)

    def test_what_was_left_out_is_logged_at_the_end(self):
        self.use_another()
        address = source()
        self.flood(address, handshake('/'))
        self.daemon.stop()
        self.assertIn(f'session left_out client_address={address} refusals=90 ', self.daemon.log())
