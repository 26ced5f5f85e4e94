# SPDX-License-Identifier: Apache-2.0
"""The filter on RFB messages: input is detected, and dropped in view-only sessions."""

import random
import struct
import sys
import time

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.security.base import SecurityFailed
from consoled.proxy.security.messages import ClientMessages
from tests.unit.proxy.security import peers

# Messages built by noVNC 1.7's RFB.messages in Node.js: name, bytes, whether it is input, whether it is
# forwarded in a view-only session
NOVNC = [
    ('keyEvent', '0401000000000041', True, False),
    ('QEMUExtendedKeyEvent', 'ff0000010000ff53000000cd', True, False),
    ('pointerEvent', '0501000a0014', True, False),
    ('extendedPointerEvent', '0580000a001401', True, False),
    (
        'extendedClipboardProvide',
        '06000000ffffffe310000001789c626060e0cd48cdc9c9e7e52acf2fca496100000000ffff',
        *(False, False),
    ),
    # a guest can make a client send these, so they are not input
    ('extendedClipboardNotify', '06000000fffffffc08000001', False, False),
    ('extendedClipboardRequest', '06000000fffffffc02000001', False, False),
    ('extendedClipboardCaps', '06000000fffffff81100000100000000', False, False),
    ('clientCutText', '06000000000000026869', True, False),
    ('setDesktopSize', 'fb0003200258010000000007000000000320025800000000', False, False),
    ('clientFence', 'f80000008000000103616263', False, True),
    ('enableContinuousUpdates', '96010000000003200258', False, True),
    ('pixelFormat', '000000002018000100ff00ff00ff000810000000', False, True),
    ('clientEncodings', '020000040000000000000001fffffec4ffffff21', False, True),
    ('fbUpdateRequest', '03010000000003200258', False, True),
    ('xvpOp', 'fa000102', True, False),
]
# messages of other clients
OTHERS = [
    ('QEMU audio on', 'ff010000', False, False),
    ('QEMU audio off', 'ff010001', False, False),
    ('QEMU audio format', 'ff01000203020000ac44', False, False),
    ('gii version, big endian', 'fd8100020001', True, False),
    ('gii version, little endian', 'fd0102000100', True, False),
    ('gii event', 'fd80000c' + '0c0a' + '00' * 10, True, False),
    ('no encodings', '02000000', False, True),
    ('no cut text', '0600000000000000', True, False),
    ('no screens', 'fb00032002580000', False, False),
    ('no fence payload', 'f80000008000000100', False, True),
]
KNOWN = [(name, bytes.fromhex(text), *rest) for name, text, *rest in NOVNC + OTHERS]
UNKNOWN = [bytes([each, 0]) for each in (1, 7, 11, 127, 149, 151, 247, 249, 252, 254)] + [
    b'\xff\x02',
    b'\xff\x01\x00\x03',
    b'\xf8' + bytes(7) + b'\x41',  # a fence of 65 bytes
]


def octets(size):
    return st.binary(min_size=size, max_size=size)


def message(start, size):
    """Messages of a fixed size."""
    return octets(size - len(start)).map(start.__add__)


def prefixed(start, length, body):
    return body.map(lambda data: start + struct.pack(length, len(data)) + data)


DISPLAY = st.one_of(
    message(b'\0', 20),
    message(b'\3', 10),
    message(b'\x96', 10),
    st.lists(octets(4), max_size=40).map(lambda each: struct.pack('>BxH', 2, len(each)) + b''.join(each)),
    prefixed(b'\xf8' + b'\4\5\6' * 2 + b'\5', '>B', st.binary(max_size=64)),
)
INPUT = st.one_of(
    message(b'\4', 8),
    st.builds(lambda mask, xy: bytes([5, mask]) + xy, st.integers(0, 127), octets(4)),
    st.builds(lambda mask, xyb: bytes([5, mask]) + xyb, st.integers(128, 255), octets(5)),
    prefixed(b'\6\0\0\0', '>I', st.binary(max_size=50)),
    message(b'\xfa', 4),
    message(b'\xff\0', 12),
    prefixed(b'\xfd\x80', '>H', st.binary(max_size=50)),
    prefixed(b'\xfd\x01', '<H', st.binary(max_size=50)),
)
DROPPED = st.one_of(
    st.lists(octets(16), max_size=5).map(
        lambda each: b'\xfb' + bytes(5) + bytes([len(each), 0]) + b''.join(each)
    ),
    st.sampled_from([b'\xff\1\0\0', b'\xff\1\0\1']),
    message(b'\xff\1\0\2', 10),
    st.binary(min_size=1, max_size=50).map(lambda data: b'\6\3\3\3' + struct.pack('>i', -len(data)) + data),
)
# (message, forwarded in a view-only session, input)
MESSAGES = st.lists(
    st.one_of(
        DISPLAY.map(lambda each: (each, True, False)),
        INPUT.map(lambda each: (each, False, True)),
        DROPPED.map(lambda each: (each, False, False)),
    ),
    max_size=20,
)


def parse(stream, *, whole):
    """Parse what a hypervisor gets from a viewer; fail on anything but the five display messages.

    :param whole: whether the last message must be complete
    """
    assert stream[:1] == b'\1'
    at = 1
    while at < len(stream):
        kind = stream[at]
        if kind == 2:
            size = 4 + 4 * struct.unpack_from('>H', stream, at + 2)[0]
        elif kind == 248:
            size = 9 + stream[at + 8]
            assert size <= 9 + 64
        else:
            size = {0: 20, 3: 10, 150: 10}[kind]
        at += size
    assert at == len(stream) or not whole


def feed_all(messages, stream):
    """Feed pieces; return all forwarded bytes, and whether any piece contained input."""
    forwarded, user_input = b'', False
    for piece in stream:
        part, active = messages.feed(piece)
        forwarded += part
        user_input = user_input or active
    return forwarded, user_input


def started(*, view_only):
    messages = ClientMessages(view_only=view_only)
    messages.feed(b'\1')
    return messages


def state_size(messages):
    """Return the bytes that a filter holds, without the kinds of messages, which all filters share."""
    return sum(sys.getsizeof(value) for name, value in vars(messages).items() if name != '_kind')


class EveryMessageTest(testtools.TestCase):
    def test_each_message_alone(self):
        for name, data, user_input, forwarded in KNOWN:
            forwarded_data, active = started(view_only=False).feed(data)
            self.assertIs(data, forwarded_data)
            self.assertEqual(user_input, active, name)
            expected = data if forwarded else b''
            self.assertEqual((expected, user_input), started(view_only=True).feed(data), name)

    def test_each_message_in_pieces_and_what_follows_it(self):
        update = bytes.fromhex('03010000000003200258')
        for view_only in (False, True):
            for name, data, user_input, forwarded in KNOWN:
                messages = started(view_only=view_only)
                expected = data if forwarded or not view_only else b''
                result = feed_all(messages, peers.bytewise(data))
                self.assertEqual((expected, user_input), result, name)
                self.assertEqual((update, False), messages.feed(update), name)
                together = started(view_only=view_only).feed(data + update)
                self.assertEqual((expected + update, user_input), together, name)

    def test_a_long_body_counts_as_input_to_its_end(self):
        messages = started(view_only=False)
        messages.feed(bytes.fromhex('060000007fffffff'))  # 2 GiB
        for _ in range(3):
            self.assertEqual((b'x' * 100, True), messages.feed(b'x' * 100))
        messages = started(view_only=False)
        messages.feed(bytes.fromhex('02000100'))
        self.assertEqual((b'\4' * 100, False), messages.feed(b'\4' * 100))

    def test_no_data_yields_nothing(self):
        for view_only in (False, True):
            messages = ClientMessages(view_only=view_only)
            self.assertEqual((b'', False), messages.feed(b''))
            messages.feed(b'\1')
            self.assertEqual((b'', False), messages.feed(b''))


class UserTest(testtools.TestCase):
    """Without view_only."""

    @given(st.binary(max_size=200), peers.cuts)
    def test_everything_is_forwarded_unchanged(self, data, at):
        messages = ClientMessages(view_only=False)
        for piece in peers.pieces(data, at):
            self.assertIs(piece, messages.feed(piece)[0])

    def test_client_init_is_not_input(self):
        for shared in (b'\0', b'\1'):
            self.assertEqual((shared, False), ClientMessages(view_only=False).feed(shared))

    def test_after_an_unknown_message_everything_counts_as_input(self):
        update = bytes.fromhex('03010000000003200258')
        for unknown in UNKNOWN:
            for split in ([unknown], peers.bytewise(unknown)):
                messages = started(view_only=False)
                self.assertTrue(feed_all(messages, split)[1], unknown)
                for data in (update, b'\1', update * 10):
                    self.assertEqual((data, True), messages.feed(data))
                self.assertEqual((b'', False), messages.feed(b''))

    @given(MESSAGES, peers.cuts)
    def test_input_is_detected_in_any_split(self, messages, at):
        stream = b'\0' + b''.join(data for data, _, _ in messages)
        result = feed_all(ClientMessages(view_only=False), peers.pieces(stream, at))
        self.assertEqual((stream, any(user_input for _, _, user_input in messages)), result)

    @given(MESSAGES)
    def test_input_is_detected_in_each_message(self, messages):
        input_filter = started(view_only=False)
        for data, _, user_input in messages:
            self.assertEqual((data, user_input), input_filter.feed(data))


class ViewerTest(testtools.TestCase):
    """With view_only."""

    def test_a_viewer_disconnects_nobody(self):
        for shared in (b'\0', b'\1', b'\xff'):
            self.assertEqual((b'\1', False), ClientMessages(view_only=True).feed(shared))

    @given(MESSAGES, peers.cuts, st.binary(min_size=1, max_size=1))
    def test_input_is_dropped_and_display_messages_are_forwarded(self, messages, at, shared):
        stream = shared + b''.join(data for data, _, _ in messages)
        forwarded, user_input = feed_all(ClientMessages(view_only=True), peers.pieces(stream, at))
        self.assertEqual(b'\1' + b''.join(data for data, passes, _ in messages if passes), forwarded)
        self.assertEqual(any(each for _, _, each in messages), user_input)
        parse(forwarded, whole=True)

    @given(
        st.one_of(st.binary(max_size=300), MESSAGES.map(lambda many: b''.join(each[0] for each in many))),
        peers.cuts,
    )
    def test_arbitrary_bytes_forward_only_display_messages(self, data, at):
        messages = ClientMessages(view_only=True)
        forwarded = b''
        try:
            for piece in peers.pieces(data, at):
                forwarded += messages.feed(piece)[0]
        except SecurityFailed as failed:
            self.assertEqual('unknown_message', failed.code)
            self.assertRaises(SecurityFailed, messages.feed, b'\3' + bytes(9))
            self.assertRaises(SecurityFailed, messages.feed, b'')
        if forwarded:
            parse(forwarded, whole=False)

    def test_unknown_messages_are_refused(self):
        for unknown in UNKNOWN:
            for split in ([unknown], peers.bytewise(unknown)):
                messages = started(view_only=True)
                failed = self.assertRaises(SecurityFailed, feed_all, messages, split)
                self.assertEqual('unknown_message', failed.code)
                self.assertEqual(f'beginning with {unknown.hex()}', failed.detail)

    def test_nothing_is_forwarded_before_its_length_is_known(self):
        messages = started(view_only=True)
        for piece in peers.bytewise(b'\xf8' + bytes(7)):
            self.assertEqual((b'', False), messages.feed(piece))
        self.assertRaises(SecurityFailed, messages.feed, b'\x41')

    def test_input_hidden_in_the_body_of_a_message_is_dropped(self):
        key = bytes.fromhex('0401000000000041')
        for start, user_input in (
            ('0600000000000010', True),
            ('06000000fffffff0', False),
            ('fd800010', True),
            ('fd001000', True),
        ):
            stream = bytes.fromhex(start) + key * 2
            self.assertEqual((b'', user_input), started(view_only=True).feed(stream))


class BoundsTest(testtools.TestCase):
    """Invariant 9: nothing is stored but the head of one message."""

    @given(st.binary(max_size=300), peers.cuts, st.booleans())
    def test_the_state_stays_small(self, data, at, view_only):
        messages = ClientMessages(view_only=view_only)
        for piece in peers.pieces(data, at):
            try:
                messages.feed(piece)
            except SecurityFailed:
                break
            self.assertTrue(len(messages._head) <= 9)
        self.assertTrue(state_size(messages) < 400)

    def test_bodies_are_not_stored(self):
        for head, size in (
            ('0600000080000000', 2**31),
            ('060000007fffffff', 2**31 - 1),
            ('0200ffff', 262140),
        ):
            for view_only in (False, True):
                messages = started(view_only=view_only)
                messages.feed(bytes.fromhex(head))
                self.assertEqual(size, messages._body)
                messages.feed(b'x' * 100_000)
                self.assertTrue(state_size(messages) < 400)

    def test_time_is_linear_in_the_number_of_messages(self):
        """50,000 messages take well under a second; copying the rest for each of them would take many."""
        choice = random.Random(1)
        stream = b''.join(choice.choice(KNOWN)[1] for _ in range(50_000))
        began = time.process_time()
        for view_only in (False, True):
            started(view_only=view_only).feed(stream)
        self.assertTrue(time.process_time() - began < 2)
