# SPDX-License-Identifier: Apache-2.0
"""Input of a SPICE client is told from what it sends by itself."""

import struct

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.input_filter import input_filter_for
from tests.unit.proxy.security import peers

MAIN, DISPLAY, INPUTS = 1, 2, 3
AUTH_SELECTION, MINI_HEADER = 1, 8
MODERN = AUTH_SELECTION | MINI_HEADER  # as spice-html5 and spice-gtk

AUTOMATIC = [
    (1, struct.pack('<I', 1)),  # ACK_SYNC
    (2, b''),  # ACK
    (3, bytes(12)),  # PONG
    (103, b'\2\0'),  # the keyboard's locks
]
ON_OTHER_CHANNELS = [(101, bytes(14)), (106, b'\1\0\0\0' + bytes(2000)), (107, bytes(4))]
KEY_DOWN, MOVE = (101, b'\x1e\0\0\0'), (112, bytes(11))
OF_A_USER = [
    KEY_DOWN,
    MOVE,
    (102, b'\x9e\0\0\0'),  # key up
    (104, b'\x1e\x9e'),  # scan codes
    (111, bytes(10)),
    (113, bytes(3)),
    (114, bytes(3)),
]


def link(channel, common=(MODERN,), of_channel=(0,)):
    body = struct.pack('<IBBIII', 0, channel, 0, len(common), len(of_channel), 18)
    body += struct.pack(f'<{len(common) + len(of_channel)}I', *common, *of_channel)
    password = bytes(range(128))
    if common and common[0] & AUTH_SELECTION:
        password = struct.pack('<I', 1) + password
    return b'REDQ' + struct.pack('<III', 2, 2, len(body)) + body + password


def mini(number, body):
    return struct.pack('<HI', number, len(body)) + body


def full(number, body):
    return struct.pack('<QHII', 7, number, len(body), 0) + body


class SpiceInputTest(testtools.TestCase):
    def is_input(self, *pieces, found=None):
        """Return whether any piece has input; everything must be forwarded unchanged."""
        spice = self.spice = found or input_filter_for('spice-html5', None)
        answers = [self.feed(spice, piece) for piece in pieces]
        return any(answers)

    def feed(self, spice, piece):
        data, is_input = spice.feed(piece)
        self.assertEqual(piece, data)
        return is_input

    @given(st.lists(st.sampled_from(AUTOMATIC), max_size=9), peers.cuts)
    def test_what_a_client_sends_by_itself_is_not_input(self, messages, cuts):
        stream = link(INPUTS) + b''.join(mini(*each) for each in messages)
        self.assertFalse(self.is_input(*peers.pieces(stream, cuts)))

    @given(st.lists(st.sampled_from(AUTOMATIC), max_size=3), st.sampled_from(OF_A_USER), peers.cuts)
    def test_keys_and_the_pointer_are_input(self, before, typed, cuts):
        stream = link(INPUTS) + b''.join(mini(*each) for each in [*before, typed])
        self.assertTrue(self.is_input(*peers.pieces(stream, cuts)))
        self.assertTrue(self.is_input(mini(*MOVE), found=self.spice))
        self.assertFalse(self.is_input(mini(2, b''), found=self.spice))

    @given(st.lists(st.sampled_from(AUTOMATIC + ON_OTHER_CHANNELS), max_size=9), peers.cuts)
    def test_other_channels_have_no_input(self, messages, cuts):
        """What the agents in guest and client tell each other is not always the user's doing."""
        for channel in (MAIN, DISPLAY):
            stream = link(channel) + b''.join(mini(*each) for each in messages)
            self.assertFalse(self.is_input(*peers.pieces(stream, cuts)))

    def test_clients_without_the_newer_capabilities(self):
        for common, header in (
            ((MODERN,), mini),
            ((AUTH_SELECTION,), full),
            ((MINI_HEADER,), mini),
            ((0,), full),
            ((), full),
        ):
            stream = link(INPUTS, common)
            self.assertFalse(self.is_input(stream + header(2, b'')), common)
            self.assertTrue(self.is_input(header(*KEY_DOWN), found=self.spice), common)
            self.assertFalse(self.is_input(header(2, b''), found=self.spice), common)

    def test_input_hidden_in_the_body_of_a_message_is_not_found(self):
        self.assertFalse(self.is_input(link(INPUTS) + mini(3, mini(*KEY_DOWN) * 3)))

    def test_after_anything_unknown_all_data_is_input(self):
        """No active user must be considered idle."""
        sasl = link(INPUTS)[:-132] + struct.pack('<I', 2) + bytes(128)
        for stream in (
            b'GET / HTTP/1.1\r\n\r\n',
            b'REDQ' + struct.pack('<III', 2, 2, 17),
            b'REDQ' + struct.pack('<III', 2, 2, 2**32 - 1),
            sasl,
            link(MAIN) + mini(0, b''),
            link(MAIN) + mini(500, b''),
        ):
            self.assertTrue(self.is_input(stream), stream)
            self.assertTrue(self.is_input(b'x', found=self.spice))
            self.assertFalse(self.is_input(b'', found=self.spice))

    @given(st.lists(st.binary(max_size=60), max_size=20), st.booleans())
    def test_invariant_9_little_is_remembered(self, pieces, linked):
        self.is_input(link(MAIN) if linked else b'')
        for piece in pieces:
            self.is_input(piece, found=self.spice)
            self.assertTrue(len(self.spice._head) < 4096)
