# SPDX-License-Identifier: Apache-2.0
"""The RFB handshake: each side against a peer in memory, and against arbitrary bytes."""

import itertools
import struct

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.security.base import MAX_REST, SecurityFailed
from consoled.proxy.security.rfb import MAX_REASON, SCHEMES, HypervisorHandshake, UserHandshake
from tests.unit.proxy.security import peers

V38 = b'RFB 003.008\n'
LIST_OF_NONE = b'\1\1'
OK = struct.pack('>I', 0)
WITH_NONE = V38 + LIST_OF_NONE + OK
# up to TLS: version, one type, VeNCrypt version, ack, one subtype, ack
TO_TLS = V38 + b'\1\x13' + b'\0\2' + b'\0' + b'\1' + struct.pack('>I', 260) + b'\1'

POLICIES = [list(each) for n in (1, 2) for each in itertools.permutations(SCHEMES, n)]

# streams that get further than random bytes
truncated = st.builds(
    lambda data, at, junk: data[: int(at * len(data))] + junk,
    st.sampled_from([WITH_NONE, TO_TLS, V38 + b'\0' + peers.reason(b'x' * 30), V38 + b'\x02\x01\x13']),
    st.floats(0, 1),
    st.binary(max_size=64),
)
streams = st.one_of(st.binary(max_size=300), truncated)


def failure(*streams, schemes=('none',)):
    result = peers.play(HypervisorHandshake(schemes), *streams)
    return result.code, result.detail


class HypervisorHandshakeTest(testtools.TestCase):
    def test_none(self):
        wire = peers.Wire(HypervisorHandshake(['none']), peers.guest(b'\2\1')).run()
        self.assertTrue(wire.exchange.done)
        self.assertEqual([V38, b'\1'], wire.log)

    def test_vencrypt(self):
        wire = peers.Wire(HypervisorHandshake(['vencrypt']), peers.guest(b'\x13', subtypes=(257, 260))).run()
        self.assertTrue(wire.exchange.done)
        self.assertEqual([V38, b'\x13', b'\0\2', struct.pack('>I', 260), 'tls'], wire.log)

    def test_the_order_of_the_policy_decides(self):
        for types in (b'\1\x13', b'\x13\1'):
            for schemes, chosen in ((['none', 'vencrypt'], b'\1'), (['vencrypt', 'none'], b'\x13')):
                wire = peers.Wire(HypervisorHandshake(schemes), peers.guest(types)).run()
                self.assertEqual(chosen, wire.log[1])

    @given(st.lists(st.integers(1, 255), min_size=1, max_size=255).map(bytes), st.sampled_from(POLICIES))
    def test_no_downgrade(self, types, schemes):
        """Only a scheme of the policy is ever chosen, in its order; otherwise nothing more is sent."""
        exchange = HypervisorHandshake(schemes)
        result = peers.play(exchange, [V38 + bytes([len(types)]) + types])
        allowed = [SCHEMES[scheme] for scheme in schemes if SCHEMES[scheme] in types]
        if allowed:
            self.assertEqual(V38 + bytes([allowed[0]]), result.sent)
        else:
            self.assertEqual(('no_common_scheme', b''), (result.code, result.sent))
            self.assertRaises(SecurityFailed, exchange.receive, OK)

    def test_a_vencrypt_policy_refuses_a_server_that_offers_only_none(self):
        wire = peers.Wire(HypervisorHandshake(['vencrypt']), peers.guest(b'\1'))
        failed = self.assertRaises(SecurityFailed, wire.run)
        self.assertEqual('no_common_scheme', failed.code)
        self.assertEqual('security types [1]', failed.detail)
        self.assertEqual([V38], wire.log)

    def test_no_fallback_from_vencrypt_to_none(self):
        wire = peers.Wire(
            HypervisorHandshake(['vencrypt', 'none']), peers.guest(b'\1\x13', subtypes=(257, 261))
        )
        failed = self.assertRaises(SecurityFailed, wire.run)
        self.assertEqual('no_common_scheme', failed.code)
        self.assertEqual([V38, b'\x13', b'\0\2'], wire.log)

    def test_schemes_must_be_known(self):
        for schemes in ([], ['vnc'], ['none', ''], 'none'):
            self.assertRaises(ValueError, HypervisorHandshake, schemes)

    def test_higher_versions_are_answered_with_3_8(self):
        for version in (b'003.008', b'003.009', b'003.889', b'004.000', b'004.001', b'005.000', b'999.999'):
            guest = peers.guest(version=b'RFB ' + version + b'\n')
            wire = peers.Wire(HypervisorHandshake(['none']), guest).run()
            self.assertTrue(wire.exchange.done)
            self.assertEqual(V38, wire.log[0])

    def test_lower_versions_and_other_protocols_are_refused(self):
        for version in (
            *(b'RFB 003.007\n', b'RFB 003.003\n', b'RFB 000.000\n', b'RFB 002.999\n', b'RFB 003.008\r'),
            *(b'RFB 3.8    \n', b'RFB +03.008\n', b'rfb 003.008\n', b'SSH-2.0-Open', b'RFB 003.00\xb2\n'),
        ):
            code, detail = failure([version])
            self.assertEqual('rfb_version', code, version)
            self.assertTrue(detail.isprintable())

    def test_the_reason_of_a_refusal_instead_of_types(self):
        code, detail = failure([V38 + b'\0' + peers.reason(b'too many\r\n\x1b[31m users\0')])
        self.assertEqual(('refused_by_hypervisor', 'too many[31m users'), (code, detail))
        self.assertEqual(('refused_by_hypervisor', ''), failure([V38 + b'\0' + peers.reason(b'')]))

    def test_the_reason_of_a_refusal_as_result(self):
        for result in (1, 2):
            wire = peers.Wire(HypervisorHandshake(['none']), peers.guest(result=result, why=b'go away'))
            failed = self.assertRaises(SecurityFailed, wire.run)
            self.assertEqual(('refused_by_hypervisor', 'go away'), (failed.code, failed.detail))
        guest = peers.guest(b'\x13', result=1, why=b'denied')
        failed = self.assertRaises(SecurityFailed, peers.Wire(HypervisorHandshake(['vencrypt']), guest).run)
        self.assertEqual('denied', failed.detail)

    @given(st.integers(3, 2**32 - 1))
    def test_other_results_are_refused_at_once(self, result):
        stream = V38 + LIST_OF_NONE + struct.pack('>I', result)
        self.assertEqual(('rfb_result', str(result)), failure([stream]))

    def test_invariant_9_reasons_are_limited(self):
        for start in (V38 + b'\0', V38 + LIST_OF_NONE + struct.pack('>I', 1)):
            code, detail = failure([start + peers.reason(b'x' * MAX_REASON)])
            self.assertEqual(('refused_by_hypervisor', 'x' * 200), (code, detail))
            code, detail = failure([start + struct.pack('>I', MAX_REASON + 1)])
            self.assertEqual(('refused_by_hypervisor', 'with a reason of 4097 bytes'), (code, detail))

    def test_bytes_in_clear_before_tls_are_refused(self):
        """Bytes injected before the TLS handshake must never count as received over TLS."""
        for injected in (b'\0', OK, OK + b'more'):
            for split in ([TO_TLS + injected], [TO_TLS, injected], peers.bytewise(TO_TLS + injected)):
                exchange = HypervisorHandshake(['vencrypt'])
                self.assertEqual('plaintext_after_tls', peers.play(exchange, split).code)
                self.assertFalse(exchange.wants_tls)
                self.assertRaises(RuntimeError, exchange.tls_started)

    def test_tls_is_wanted_once(self):
        exchange = HypervisorHandshake(['vencrypt'])
        for piece in peers.bytewise(TO_TLS):
            self.assertFalse(exchange.wants_tls)
            exchange.receive(piece)
        self.assertTrue(exchange.wants_tls)
        self.assertEqual(b'', exchange.receive(b''))
        self.assertEqual(b'', exchange.tls_started())
        self.assertFalse(exchange.wants_tls or exchange.done)
        self.assertRaises(RuntimeError, exchange.tls_started)
        exchange.receive(OK)
        self.assertTrue(exchange.done)

    def test_eof_is_detected_at_every_byte(self):
        for before, after in ((WITH_NONE, None), (TO_TLS, OK)):
            exchange = HypervisorHandshake(['vencrypt'] if after else ['none'])
            for piece in peers.bytewise(before):
                self.assertEqual('eof', self.assertRaises(SecurityFailed, exchange.eof).code)
                exchange.receive(piece)
            if after:
                self.assertEqual('TLS', self.assertRaises(SecurityFailed, exchange.eof).detail)
                exchange.tls_started()
                for piece in peers.bytewise(after):
                    self.assertEqual('eof', self.assertRaises(SecurityFailed, exchange.eof).code)
                    exchange.receive(piece)
            exchange.eof()

    @given(streams, peers.cuts, st.sampled_from(POLICIES))
    def test_the_result_does_not_depend_on_how_bytes_are_split(self, data, at, schemes):
        """And the buffer stays small (invariant 9)."""
        whole = peers.play(HypervisorHandshake(schemes), [data])
        exchange = HypervisorHandshake(schemes)
        parts = peers.play(exchange, peers.pieces(data, at))
        self.assertEqual(whole[:2], parts[:2])
        self.assertTrue(parts.sent.startswith(whole.sent))
        if whole.code is None:
            self.assertEqual(whole, parts)
        self.assertTrue(len(exchange._buffer) <= MAX_REASON)

    @given(st.binary(max_size=40), peers.cuts)
    def test_the_result_does_not_depend_on_how_bytes_after_tls_are_split(self, data, at):
        def play(stream):
            return peers.play(HypervisorHandshake(['vencrypt']), [TO_TLS], stream)

        self.assertEqual(play([data]), play(peers.pieces(data, at)))

    @given(st.binary(max_size=20), peers.cuts)
    def test_bytes_after_the_handshake_are_the_rest(self, rest, at):
        result = peers.play(HypervisorHandshake(['none']), peers.pieces(WITH_NONE + rest, at))
        self.assertEqual((True, rest), (result.done, result.rest))


class UserHandshakeTest(testtools.TestCase):
    def test_a_client_is_accepted(self):
        wire = peers.Wire(UserHandshake(), peers.viewer()).run()
        self.assertTrue(wire.exchange.done)
        self.assertEqual([V38, LIST_OF_NONE, OK], wire.log)

    def test_a_client_that_does_not_wait_is_accepted(self):
        result = peers.play(UserHandshake(), [V38 + b'\1' + b'\0'])
        self.assertEqual((True, V38 + LIST_OF_NONE + OK, b'\0'), (result.done, result.sent, result.rest))

    def test_the_reply_to_another_security_type(self):
        for choice in (0, 2, 19, 255):
            wire = peers.Wire(UserHandshake(), peers.viewer(choice))
            self.assertIn(b'None', self.assertRaises(peers.Refused, wire.run).args[0])

    def test_another_security_type_is_refused(self):
        result = peers.play(UserHandshake(), [V38 + b'\2'])
        self.assertEqual(('rfb_choice', '2', False), (result.code, result.detail, result.done))

    def test_the_reply_to_another_version_has_the_form_of_that_version(self):
        for version, zero in ((b'003.003', b'\0\0\0\0'), (b'003.007', b'\0'), (b'003.889', b'\0')):
            result = peers.play(UserHandshake(), [b'RFB ' + version + b'\n'])
            self.assertEqual('rfb_version', result.code)
            reply = result.sent.removeprefix(V38)
            self.assertEqual(zero + peers.reason(b'Only version 3.8 of the protocol is supported.'), reply)

    def test_other_protocols_get_no_reply(self):
        result = peers.play(UserHandshake(), [b'GET / HTTP/1'])
        self.assertEqual(('rfb_version', 'GET / HTTP/1', V38), (result.code, result.detail, result.sent))

    def test_eof_is_detected_at_every_byte(self):
        exchange = UserHandshake()
        for piece in peers.bytewise(V38 + b'\1'):
            self.assertEqual('eof', self.assertRaises(SecurityFailed, exchange.eof).code)
            exchange.receive(piece)
        exchange.eof()

    @given(
        st.one_of(
            st.binary(max_size=40), st.builds(V38.__add__, st.binary(max_size=4)), st.just(V38 + b'\1abc')
        ),
        peers.cuts,
    )
    def test_the_result_does_not_depend_on_how_bytes_are_split(self, data, at):
        exchange = UserHandshake()
        self.assertEqual(peers.play(UserHandshake(), [data]), peers.play(exchange, peers.pieces(data, at)))
        self.assertTrue(len(exchange._buffer) < 12 and len(exchange._rest) <= MAX_REST)
