# SPDX-License-Identifier: Apache-2.0
"""Acknowledgements of a client that cannot stop reading."""

import json

import testtools
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from consoled.proxy import flow
from consoled.proxy.flow import WINDOW, Window
from tests.unit.proxy.security import peers


def text(data, fin=True):
    return Frame(Opcode.TEXT, data, fin)


class WindowTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.window = Window()

    def test_it_is_full_until_the_client_acknowledges(self):
        self.window.sent(WINDOW - 1)
        self.assertFalse(self.window.full)
        self.window.sent(1)
        self.assertTrue(self.window.full)
        self.assertTrue(self.window.take(text(b'1')))
        self.assertFalse(self.window.full)
        self.window.sent(1)
        self.assertTrue(self.window.full)

    def test_acknowledgements_are_totals_and_never_go_back(self):
        self.window.sent(WINDOW)
        for number in (b'1000', b'10', b'0'):
            self.window.take(text(number))
        self.window.sent(999)
        self.assertFalse(self.window.full)
        self.window.sent(1)
        self.assertTrue(self.window.full)

    @given(peers.cuts)
    def test_an_acknowledgement_may_come_in_fragments(self, cuts):
        window = Window()
        window.sent(WINDOW)
        pieces = peers.pieces(str(WINDOW).encode(), cuts)
        for number, piece in enumerate(pieces, 1):
            frame = Frame(Opcode.TEXT if number == 1 else Opcode.CONT, piece, number == len(pieces))
            self.assertTrue(window.take(frame))
        self.assertFalse(window.full)

    def test_binary_messages_and_their_fragments_are_data(self):
        for opcode in (Opcode.BINARY, Opcode.CONT):
            self.assertFalse(self.window.take(Frame(opcode, b'12', False)))
        self.assertFalse(self.window.take(Frame(Opcode.CONT, b'12', True)))
        self.assertTrue(self.window.take(text(b'0')))
        self.assertFalse(self.window.take(Frame(Opcode.BINARY, b'12')))

    @given(
        st.one_of(
            st.sampled_from(
                [b'', b'-1', b'+1', b'1.0', b' 1', b'1_0', b'0x1', '١'.encode(), b'1001', b'0' * 21]
            ),
            st.integers(min_value=1001).map(lambda number: str(number).encode()),
        )
    )
    def test_anything_else_is_refused(self, data):
        window = Window()
        window.sent(1000)
        self.assertRaises(ValueError, window.take, text(data))

    def test_invariant_9_a_text_without_an_end_is_refused(self):
        self.window.take(text(b'', False))
        for _ in range(20):
            self.window.take(Frame(Opcode.CONT, b'1', False))
        self.assertRaises(ValueError, self.window.take, Frame(Opcode.CONT, b'1', False))

    def test_it_opens_without_an_acknowledgement(self):
        self.window.sent(WINDOW)
        self.window.renew()
        self.assertFalse(self.window.full)


class NoticeTest(testtools.TestCase):
    def test_it_is_one_unmasked_text_message(self):
        message = flow.notice(2)
        # RFC 6455, section 5.2: FIN and text; no mask, and the length
        self.assertEqual((0x81, len(message) - 2), (message[0], message[1]))
        self.assertEqual({'serial_port': 2}, json.loads(message[2:]))
