# SPDX-License-Identifier: Apache-2.0
"""Behavior common to all exchanges."""

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.security import base
from consoled.proxy.security.base import SecurityFailed
from consoled.proxy.security.rfb import UserHandshake
from consoled.proxy.security.tunnel import Tunnel

HELLO = b'RFB 003.008\n\1'


class SecurityFailedTest(testtools.TestCase):
    @given(st.one_of(st.text(), st.binary(max_size=1000)))
    def test_a_detail_is_short_and_printable(self, text):
        detail = SecurityFailed('code', base.printable(text)).detail
        self.assertTrue(len(detail) <= 200 and detail.isascii() and (not detail or detail.isprintable()))

    def test_a_detail_is_always_sanitized(self):
        failed = SecurityFailed('code', 'one\r\ntwo \x1b[31m' + 'x' * 500)
        self.assertEqual('onetwo [31m' + 'x' * 189, failed.detail)
        self.assertEqual(f'code: {failed.detail}', str(failed))
        self.assertEqual('code', str(SecurityFailed('code')))


class ExchangeTest(testtools.TestCase):
    def test_bytes_after_the_handshake_are_returned_once(self):
        exchange = UserHandshake()
        exchange.receive(HELLO + b'\1ab')
        exchange.receive(b'c')
        self.assertEqual((b'\1abc', b''), (exchange.rest(), exchange.rest()))
        exchange.receive(b'd')
        self.assertEqual(b'd', exchange.rest())

    def test_invariant_9_bytes_after_the_handshake_are_limited(self):
        for together in (True, False):
            exchange = UserHandshake()
            exchange.receive(HELLO + b'x' * base.MAX_REST * together)
            self.assertTrue(exchange.done)
            failed = self.assertRaises(SecurityFailed, exchange.receive, b'x' * (base.MAX_REST + 1))
            self.assertEqual(('too_much', False, b''), (failed.code, exchange.done, exchange.rest()))

    def test_a_failed_exchange_stays_failed(self):
        for exchange, bad in ((UserHandshake(), b'x' * 12), (Tunnel('/', 'h', 1), b'x')):
            first = self.assertRaises(SecurityFailed, exchange.receive, bad)
            again = self.assertRaises(SecurityFailed, exchange.receive, HELLO)
            self.assertEqual((first.code, b''), (again.code, again.farewell))
            self.assertFalse(exchange.done)
            self.assertRaises(SecurityFailed, exchange.eof)

    def test_tls_cannot_start_unless_wanted(self):
        for exchange in (UserHandshake(), Tunnel('/', 'h', 1)):
            self.assertFalse(exchange.wants_tls)
            self.assertRaises(RuntimeError, exchange.tls_started)

    def test_eof_after_the_handshake_is_fine(self):
        exchange = UserHandshake()
        exchange.receive(HELLO)
        exchange.eof()
