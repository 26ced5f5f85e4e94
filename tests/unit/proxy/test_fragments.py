# SPDX-License-Identifier: Apache-2.0
"""Fragmenting of a user's frames: the parser gets the same messages, and keeps no payload."""

import logging
import struct

import testtools
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import OPEN, Protocol, Side

from consoled.proxy.fragments import Fragmenter
from tests.unit.proxy.relay_base import masked
from tests.unit.proxy.security import peers

MAX_SIZE = 2**17
SMALL = 14 + 125  # bytes of the longest header, and of a control frame
DATA = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)


class Parser:
    """The websockets library behind a Fragmenter, or without one."""

    def __init__(self, *, fragmenter=True):
        silent = logging.Logger('silent', level=logging.CRITICAL + 1)
        self.protocol = Protocol(Side.SERVER, state=OPEN, max_size=MAX_SIZE, logger=silent)
        self.fragmenter = Fragmenter(MAX_SIZE) if fragmenter else None
        self.payload = b''
        self.control = []

    def feed(self, data):
        if self.fragmenter is not None:
            data = self.fragmenter.feed(memoryview(data))
        self.protocol.receive_data(data)
        for frame in self.protocol.events_received():
            if frame.opcode in DATA:
                self.payload += frame.data
            else:
                self.control.append((frame.opcode, bytes(frame.data), len(self.payload)))
        return self

    @property
    def kept(self):
        return len(self.protocol.reader.buffer)


def messages(draw):
    """Return a user's valid stream, and the numbers of bytes that it may be split after."""
    stream = b''
    for size in draw(st.lists(st.sampled_from([0, 1, 125, 126, 300, 65535, 65536, 70001]), max_size=4)):
        parts = peers.pieces(bytes(number % 251 for number in range(size)), draw(peers.cuts)) or [b'']
        for number, part in enumerate(parts):
            stream += masked(
                Opcode.CONT if number else draw(st.sampled_from([Opcode.BINARY, Opcode.TEXT])),
                part,
                fin=number == len(parts) - 1,
            )
            if draw(st.booleans()):
                control = draw(st.sampled_from([Opcode.PING, Opcode.PONG]))
                stream += masked(control, draw(st.sampled_from([b'', b'x' * 125])))
    return stream


streams = st.composite(messages)()


class FragmenterTest(testtools.TestCase):
    @settings(deadline=None)
    @given(streams, peers.cuts)
    def test_payload_and_control_frames_are_those_of_the_stream(self, stream, cuts):
        alone, behind = Parser(fragmenter=False).feed(stream), Parser()
        for piece in peers.pieces(stream, cuts):
            behind.feed(piece)
        self.assertEqual(alone.payload, behind.payload)
        self.assertEqual(alone.control, behind.control)
        self.assertIsNone(behind.protocol.parser_exc)
        self.assertIsNone(behind.fragmenter.violation)

    @settings(deadline=None)
    @given(streams, peers.cuts)
    def test_invariant_9_the_parser_never_keeps_payload_of_a_data_frame(self, stream, cuts):
        parser = Parser()
        for piece in peers.pieces(stream, cuts):
            self.assertTrue(parser.feed(piece).kept <= SMALL)
            self.assertTrue(len(parser.fragmenter._head) < 14)

    @given(
        st.lists(
            st.binary(max_size=200).map(lambda data: masked(Opcode.BINARY, data)) | st.binary(max_size=40)
        ),
        peers.cuts,
    )
    @example([b'\xf2\xfe\xff\xff\0\0\0\0' + b'x' * 60000], [])  # reserved bits
    @example([b'\x89\xff' + struct.pack('!Q', 2**16) + b'x' * 60000], [])
    def test_invariant_9_the_parser_never_keeps_payload_of_garbage_either(self, parts, cuts):
        """And it delivers nothing that it would not have delivered without the fragmenter."""
        parser, alone = Parser(), Parser(fragmenter=False)
        for piece in peers.pieces(b''.join(parts), cuts):
            self.assertTrue(parser.feed(piece).kept <= SMALL)
            alone.feed(piece)
            self.assertTrue(parser.payload.startswith(alone.payload))
        if alone.protocol.parser_exc is not None:
            parser.feed(b'x' * 14)  # completes any header
            self.assertIsNotNone(parser.fragmenter.violation or parser.protocol.parser_exc)

    def test_complete_frames_are_not_copied(self):
        data = memoryview(masked(Opcode.BINARY, b'x' * 300) + masked(Opcode.PING, b''))
        self.assertIs(data, Fragmenter(MAX_SIZE).feed(data))

    def test_each_byte_of_a_payload_is_available_at_once(self):
        parser = Parser()
        frame = masked(Opcode.TEXT, bytes(range(200)))
        for number in range(1, len(frame)):
            parser.feed(frame[number - 1 : number])
            self.assertEqual(max(0, number - 8), len(parser.payload))
        self.assertEqual(bytes(range(200)), parser.feed(frame[-1:]).payload)

    def test_a_message_that_is_too_big_is_refused_for_a_header(self):
        too_big = (
            [b'\x82\xff' + struct.pack('!Q', MAX_SIZE + 1) + b'\0\0\0\0'],
            [b'\x82\xff' + struct.pack('!Q', 2**64 - 1) + b'\0\0\0\0'],
            [
                masked(Opcode.BINARY, b'x' * (MAX_SIZE - 1), fin=False),
                b'\x80\x82\0\0\0\0',  # two bytes more
            ],
        )
        for parts in too_big:
            parser = Parser()
            for part in parts:
                self.assertIsNone(parser.protocol.parser_exc)
                parser.feed(part)
            self.assertEqual('PayloadTooBig', type(parser.protocol.parser_exc).__name__)

    def test_a_long_control_frame_is_refused_for_its_header(self):
        """The parser would wait for all of it, up to the limit on messages."""
        for header in (b'\x89\xfe\0\x7e\0\0\0\0', b'\x88\xff' + struct.pack('!Q', 1000) + b'\0\0\0\0'):
            parser = Parser().feed(masked(Opcode.BINARY, b'before') + header)
            self.assertEqual('control frame too long', parser.fragmenter.violation)
            parser.feed(b'x' * 1000 + masked(Opcode.BINARY, b'after'))
            self.assertEqual((b'before', 0), (parser.payload, parser.kept))
