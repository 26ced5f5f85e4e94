# SPDX-License-Identifier: Apache-2.0
"""The client's side of VeNCrypt, up to TLS."""

import struct

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.security.base import SecurityFailed
from consoled.proxy.security.vencrypt import VeNCryptHandshake
from tests.unit.proxy.security import peers

SENT = b'\0\2' + struct.pack('>I', 260)


def offer(*subtypes):
    return b'\0\2\0' + struct.pack(f'>B{len(subtypes)}I', len(subtypes), *subtypes)


def play(data):
    result = peers.play(VeNCryptHandshake(), [data])
    return result.code, result.detail


class VeNCryptHandshakeTest(testtools.TestCase):
    def test_it_is_done_once_tls_is_established(self):
        exchange = VeNCryptHandshake()
        self.assertEqual(SENT, exchange.receive(offer(260) + b'\1'))
        self.assertTrue(exchange.wants_tls)
        self.assertFalse(exchange.done)
        self.assertEqual(b'', exchange.tls_started())
        self.assertTrue(exchange.done)
        self.assertFalse(exchange.wants_tls)

    def test_higher_versions_are_answered_with_0_2(self):
        for version in (b'\0\2', b'\0\3', b'\1\0', b'\xff\xff'):
            self.assertEqual(b'\0\2', VeNCryptHandshake().receive(version))

    def test_lower_versions_are_refused(self):
        for version in (b'\0\0', b'\0\1'):
            self.assertEqual('vencrypt_version', play(version)[0])

    @given(st.integers(1, 255))
    def test_a_server_may_refuse_the_version(self, ack):
        self.assertEqual('vencrypt_version', play(bytes([0, 2, ack]))[0])

    @given(st.lists(st.integers(0, 2**32 - 1), max_size=255))
    def test_the_only_subtype_is_x509_none(self, subtypes):
        exchange = VeNCryptHandshake()
        result = peers.play(exchange, [offer(*subtypes)])
        if 260 in subtypes:
            self.assertEqual((None, SENT), (result.code, result.sent))
        else:
            self.assertEqual(('no_common_scheme', b''), (result.code, result.sent))
            self.assertTrue(result.detail.startswith('VeNCrypt subtypes ['))

    def test_no_subtypes_at_all(self):
        self.assertEqual(('no_common_scheme', 'VeNCrypt subtypes []'), play(offer()))

    @given(st.integers(0, 255).filter(lambda ack: ack != 1))
    def test_a_server_may_refuse_the_subtype(self, ack):
        self.assertEqual('refused_by_hypervisor', play(offer(260) + bytes([ack]))[0])

    @given(st.binary(max_size=30).filter(bool), peers.cuts)
    def test_bytes_in_clear_after_the_last_message_are_refused(self, injected, at):
        split = peers.pieces(offer(1, 260) + b'\1' + injected, at)
        self.assertEqual('plaintext_after_tls', peers.play(VeNCryptHandshake(), split).code)

    @given(st.one_of(st.binary(max_size=60), st.builds(offer().__add__, st.binary())), peers.cuts)
    def test_the_result_does_not_depend_on_how_bytes_are_split(self, data, at):
        exchange = VeNCryptHandshake()
        whole, parts = peers.play(VeNCryptHandshake(), [data]), peers.play(exchange, peers.pieces(data, at))
        self.assertEqual(whole[:2], parts[:2])
        if whole.code is None:
            self.assertEqual(whole, parts)
        self.assertTrue(len(exchange._buffer) < 4 * 255)

    def test_eof_is_detected_at_every_byte(self):
        exchange = VeNCryptHandshake()
        for piece in peers.bytewise(offer(260) + b'\1'):
            self.assertEqual('eof', self.assertRaises(SecurityFailed, exchange.eof).code)
            exchange.receive(piece)
        self.assertEqual('eof', self.assertRaises(SecurityFailed, exchange.eof).code)
        exchange.tls_started()
        exchange.eof()
