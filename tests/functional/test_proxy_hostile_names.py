# SPDX-License-Identifier: Apache-2.0
"""Allowed networks and ports, and host names with addresses inside and outside of them."""

import json
import os
import pathlib

import fixtures

from consoled.testing import daemons
from consoled.testing.guests.tcp_guests import EchoGuest
from tests.functional import base, proxy_base
from tests.functional.raw_user import handshake

_ALLOWED = '127.0.0.2/31'  # 127.0.0.2 and 127.0.0.3
# By name: the addresses of the first lookup, the second and so on. The last list is for all further lookups.
_NAMES = {
    'inside.test': [['127.0.0.2']],
    'outside.test': [['127.0.0.1', '127.0.0.4', '::1', '::ffff:127.0.0.1']],
    'both.test': [['127.0.0.1', '127.0.0.4', '127.0.0.3', '::ffff:127.0.0.4']],
    'mapped.test': [['::ffff:127.0.0.2']],
    'rebound.test': [['127.0.0.2'], ['127.0.0.1']],
    'second.test': [['127.0.0.3', '127.0.0.2']],
    'slow.test': [['127.0.0.2']],  # after a minute
}


# Contents of sitecustomize.py, which Python runs first in the proxy's process.
_RESOLVER = f"""
import socket
import time

names = {_NAMES!r}
resolve = socket.getaddrinfo

def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
    if host not in names or flags & socket.AI_NUMERICHOST:
        return resolve(host, port, family, type, proto, flags)
    lookups = names[host]
    if host == 'slow.test':
        time.sleep(60)
    addresses = lookups.pop(0) if len(lookups) > 1 else lookups[0]
    return [found for address in addresses for found in resolve(address, port, family, type, proto, flags)]

socket.getaddrinfo = getaddrinfo
"""


class _Proxy(daemons.ProxyProcess):
    """``consoled-proxy`` with a resolver that knows the names in ``_NAMES``."""

    def _prepare(self):
        directory = self.useFixture(fixtures.TempDir()).path
        pathlib.Path(directory, 'sitecustomize.py').write_text(_RESOLVER)
        self._env = {
            'PYTHONPATH': os.pathsep.join([directory, *filter(None, [os.environ.get('PYTHONPATH')])])
        }


class TargetsTest(proxy_base.ProxyTestCase):
    """Guests listen on one port at several addresses, which shows where the proxy has connected."""

    @classmethod
    def new_daemon(cls, **options):
        return _Proxy(cls.bus, {'proxy': {'connect_timeout': 2, 'allowed_networks': _ALLOWED, **options}})

    def listen(self, *numbers):
        """Add guests at 127.0.0.N on one port, and return the first."""
        self.there = {}
        for number in numbers:
            port = next(iter(self.there.values())).port if self.there else 0
            self.there[number] = self.add(EchoGuest(host=f'127.0.0.{number}', port=port))
        return next(iter(self.there.values()))

    def connected(self):
        """Return the numbers of the guests that had connections."""
        self.guests.settle()
        return [number for number, guest in self.there.items() if guest.connections]

    def refused(self, target):
        """Request a console that is refused; return the status and the error code."""
        user, answer = self.ask(target, Accept='application/json')
        user.leave()
        self.assert_nothing_left()
        return answer.status, json.loads(answer.body)['code']

    def refusal(self, target):
        """Request a console; return the status and the error code if it is refused, else None."""
        user, answer = self.ask(target, Accept='application/json')
        user.leave()
        return None if answer.status == 101 else (answer.status, json.loads(answer.body)['code'])

    def assert_reaches(self, number, host):
        """Assert that a console at this host leads to the guest at 127.0.0.N, and to no other."""
        user = self.opened(target=self.grant(self.there[number], host=host))
        self.assert_echo(user)
        user.leave()
        self.assert_nothing_left()
        self.assertEqual([number], self.connected())

    def test_invariant_8_an_address_outside_the_allowed_networks(self):
        guest = self.listen(1, 2, 4)
        for host in ('127.0.0.1', '127.0.0.4', '::ffff:127.0.0.1'):
            with self.subTest(host):
                target = self.grant(guest, host=host)
                self.assertEqual((502, 'target_forbidden'), self.refused(target))
        self.assertEqual([], self.connected())

    def test_invariant_8_a_name_outside_the_allowed_networks(self):
        guest = self.listen(1, 2, 4)
        self.assertEqual((502, 'target_forbidden'), self.refused(self.grant(guest, host='outside.test')))
        self.assertEqual([], self.connected())

    def test_invariant_8_only_the_allowed_addresses_of_a_name_are_tried(self):
        self.listen(1, 3, 4)
        self.assert_reaches(3, 'both.test')

    def test_invariant_8_dns_rebinding(self):
        self.listen(1, 2)
        self.assert_reaches(2, 'rebound.test')
        guest = self.listen(1, 2)
        target = self.grant(guest, host='rebound.test')
        self.wait_until(lambda: self.refusal(target) == (502, 'target_forbidden'), 'the second look-up')
        self.assertNotIn(1, self.connected())

    def test_invariant_8_a_host_in_the_users_request_is_ignored(self):
        guest = self.listen(1, 2, 3)
        target = self.grant(guest, host='127.0.0.2')
        user, answer = self.ask(
            f'{target}&host=127.0.0.3&port=1&path=%3Fhost%3D127.0.0.3',
            X_Forwarded_Host='127.0.0.3',
            X_Forwarded_For='127.0.0.3',
            X_Real_IP='127.0.0.3',
        )
        self.assertEqual(101, answer.status)
        self.assert_echo(user)
        user.leave()
        self.assert_nothing_left()
        self.assertEqual([2], self.connected())

    def test_the_next_address_is_tried_when_one_refuses(self):
        self.listen(2)
        self.assert_reaches(2, 'second.test')

    def test_allowed_names_and_addresses(self):
        for host in ('inside.test', '127.0.0.2', 'mapped.test', '::ffff:127.0.0.2'):
            with self.subTest(host):
                self.listen(1, 2)
                self.assert_reaches(2, host)

    def test_users_of_other_names_do_not_wait_for_one_that_hangs(self):
        self.use_another(connect_timeout=60)
        guest = self.listen(2, 3)
        waiting = []
        for _ in range(40):  # more than asyncio's own threads; a token has 16 sessions at most
            self.instance = base.new_uuid()
            slow = self.grant(guest, host='slow.test', console_type='webmks')
            waiting.append(self.user().send(handshake(slow)))
        self.wait_until(lambda: self.count('console_session') == len(waiting), 'all that wait')
        for host in ('inside.test', 'both.test', 'second.test', 'mapped.test') * 2:
            self.instance = base.new_uuid()
            user = self.opened(target=self.grant(guest, host=host))
            self.assert_echo(user)
            user.leave()
        for user in waiting:
            self.assert_no_answer(user)

    def assert_no_answer(self, user):
        user.sock.setblocking(False)
        self.assertRaises(BlockingIOError, user.sock.recv, 1)
        user.leave()

    def test_an_unknown_name(self):
        guest = self.listen(2)
        self.assertEqual((502, 'target_failed'), self.refused(self.grant(guest, host='nobody.test')))

    def test_invariant_8_a_port_outside_the_allowed_ports(self):
        guest = self.listen(2)
        self.use_another(allowed_ports=f'1024-{guest.port - 1},{guest.port + 1}-65535')
        for options in ({}, {'use_tls': 'true'}):
            target = self.grant(guest, host='127.0.0.2', options=options)
            self.assertEqual((502, 'target_forbidden'), self.refused(target))
        inside = {'use_tls': 'true', 'tls_port': str(guest.port)}
        target = self.grant(port=guest.port - 1, host='127.0.0.2', options=inside)
        self.assertEqual((502, 'target_forbidden'), self.refused(target))
        self.assertEqual([], self.connected())
