# SPDX-License-Identifier: Apache-2.0
"""Slots for sessions: limited per process and per address, and released at the end."""

import testtools

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy.quota import SessionQuota
from consoled.proxy.session import Session


class SessionQuotaTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.quota = SessionQuota(3, 2)

    def session(self, address):
        self.quota.acquire(address)
        return Session(('hash', address), self.quota)

    def test_sessions_of_an_address_are_limited_until_one_ends(self):
        first, _ = self.session('192.0.2.1'), self.session('192.0.2.1')
        error = self.assertRaises(exception.TooManySessions, self.quota.acquire, '192.0.2.1')
        self.assertEqual({'limit': 2, 'scope': 'address'}, error.kwargs)
        first.abandon(EndReason.OPEN_FAILED)
        self.session('192.0.2.1')
        self.session('192.0.2.2')

    def test_sessions_of_the_process_are_limited_until_they_end(self):
        sessions = [self.session(f'192.0.2.{number}') for number in range(3)]
        self.assertRaises(exception.ProxyBusy, self.quota.acquire, '192.0.2.9')
        self.assertEqual(3, self.quota.taken)
        for session in sessions:
            session.abandon(EndReason.OPEN_FAILED)
        self.assertEqual(0, self.quota.taken)

    def test_users_without_an_address_are_only_limited_per_process(self):
        for _ in range(3):
            self.session(None)
        self.assertRaises(exception.ProxyBusy, self.quota.acquire, None)
