# SPDX-License-Identifier: Apache-2.0
"""Users who violate the websocket protocol, or use it to consume the proxy's CPU and memory."""

import asyncio
import struct
import threading

from consoled.testing.guests.tcp_guests import StreamGuest
from tests.functional import proxy_base
from tests.functional.raw_user import BINARY, CLOSE, CONT, MIB, PING, PONG, TEXT, close_frame, frame

_FLAT = 8 * MIB  # limit for the growth of the worker's memory

BROKEN = {
    'unmasked': frame(b'x', masked=False),
    'unmasked ping': frame(b'x', PING, masked=False),
    'reserved bit 1': frame(b'x', rsv=4),
    'reserved bit 2': frame(b'x', rsv=2),
    'reserved bit 3': frame(b'x', rsv=1),
    'reserved bit of a ping': frame(b'x', PING, rsv=4),
    'opcode 3': frame(b'x', 3),
    'opcode 7': frame(b'x', 7),
    'opcode 11': frame(b'x', 11),
    'opcode 15': frame(b'x', 15),
    'long ping': frame(b'x' * 126, PING),
    'long close': frame(struct.pack('!H', 1000) + b'x' * 124, CLOSE),
    'ping in fragments': frame(b'x', PING, fin=False),
    'continuation of nothing': frame(b'x', CONT),
    'message within a message': frame(b'x', fin=False) + frame(b'x'),
    'close within a message': frame(b'x', fin=False) + close_frame(),
    'close of one byte': frame(b'x', CLOSE),
    'close code 999': close_frame(999),
    'close code 1005': close_frame(1005),
    'close code 1006': close_frame(1006),
    'close code 5000': close_frame(5000),
}


class Frames:
    """Each console takes one session, so the next user would notice anything left behind."""

    def assert_ended(self, user, codes, reason, before):
        """Assert the close code and the end reason of a session, and that nothing of it is left."""
        self.assertIn(user.close_code(), codes)
        user.leave()
        self.assert_nothing_left()
        self.assertEqual(before + 1, self.ended_as(reason))

    def test_frames_that_break_the_protocol_end_the_session(self):
        target = self.grant()
        for name, data in BROKEN.items():
            with self.subTest(name):
                before = self.ended_as('protocol_error')
                user = self.opened(target=target)
                self.assert_echo(user)
                user.send(data)
                self.assert_ended(user, (1002,), 'protocol_error', before)

    def test_a_close_reason_of_bad_utf_8_ends_the_session(self):
        before = self.ended_as('protocol_error')
        user = self.opened()
        user.send(frame(struct.pack('!H', 1000) + b'\xff\xfe', CLOSE))
        self.assert_ended(user, (1007,), 'protocol_error', before)
        self.assert_slot_free()

    def test_invariant_9_a_frame_of_2_63_bytes_ends_the_session(self):
        target = self.grant()
        for length in (2**63, 2**64 - 1, 2**63 - 1, 2**32, MIB + 1):
            with self.subTest(length), self.memory_within(_FLAT):
                before = self.ended_as('message_too_big')
                user = self.opened(target=target)
                user.send(frame(length=length))
                self.assert_ended(user, (1009,), 'message_too_big', before)

    def test_invariant_9_an_endless_message_ends_the_session(self):
        guest = self.add(StreamGuest(total=0))
        before = self.ended_as('message_too_big')
        with self.memory_within(_FLAT):
            user = self.opened(guest)
            user.send(frame(b'x' * 1000, fin=False))
            sent = user.flood(frame(b'x' * 1000, CONT, fin=False) * 10, seconds=0.5)
            self.assertGreater(sent, MIB - 10000)
            self.assert_ended(user, (1009, None), 'message_too_big', before)
        self.guests.settle()
        self.assertLessEqual(guest.uploads[0].received, MIB)

    def test_invariant_9_frames_that_lack_a_byte_use_no_memory(self):
        guests = [self.add(StreamGuest(total=0)) for _ in range(16)]
        before = self.ended_as('user_lost')
        with self.memory_within(_FLAT):
            for guest, opcode in zip(guests, (BINARY, TEXT) * 8, strict=True):
                self.opened(guest).send(frame(b'x' * MIB, opcode)[:-1])
            for guest in guests:
                self.wait_until(lambda guest=guest: guest.uploads[0].received == MIB - 1, 'the payload')
            # Within a frame, they cannot answer a ping.
            self.wait_until(lambda: self.ended_as('user_lost') == before + len(guests), 'the ends')

    def test_invariant_9_a_long_control_frame_ends_the_session_for_its_header(self):
        for opcode in (PING, PONG, CLOSE):
            before = self.ended_as('protocol_error')
            user = self.opened().send(frame(opcode=opcode, length=MIB))
            self.assert_ended(user, (1002,), 'protocol_error', before)

    def test_invariant_9_many_empty_fragments_use_no_memory(self):
        user = self.opened()
        with self.memory_within(_FLAT):
            user.send(frame(b'', fin=False))
            for _ in range(100):
                user.send(frame(b'', CONT, fin=False) * 2000)
            user.send(frame(b'that was it', CONT))
            self.assertEqual(b'that was it', user.message(11))
        user.leave()
        self.assert_slot_free()

    def test_invariant_9_many_frames_of_one_byte_use_no_memory(self):
        user = self.opened()
        with self.memory_within(_FLAT):
            for _ in range(20):
                user.send(frame(b'x') * 2000)
                self.assertEqual(b'x' * 2000, user.message(2000))
        user.leave()
        self.assert_slot_free()

    def test_text_frames_may_contain_invalid_utf_8(self):
        user = self.opened()
        for payload in (b'\xff\xfe\xc0\x80', b'\xed\xa0\x80', 'ä'.encode()[:1]):
            user.send(frame(payload, TEXT))
            self.assertEqual(payload, user.message(len(payload)))
        user.send(frame(b'\xf0\x9f', TEXT, fin=False) + frame(b'', PONG) + frame(b'\xff', CONT))
        self.assertEqual(b'\xf0\x9f\xff', user.message(3))
        user.leave()
        self.assert_slot_free()

    def test_invariant_9_pongs_for_a_user_who_does_not_read_do_not_pile_up(self):
        before = self.ended_as('user_lost')
        user = self.opened(rcvbuf=4096)
        with self.memory_within(_FLAT):
            user.flood(frame(b'x' * 125, PING) * 500, seconds=0.5)
            self.wait_until(lambda: self.ended_as('user_lost') == before + 1, 'the end of the session')
        self.assert_slot_free()

    def test_invariant_9_pongs_do_not_pile_up_while_a_slow_guest_reads(self):
        start = threading.Event()
        guest = self.add(proxy_base.ScriptedGuest(_read_slowly(start)))
        user = self.opened(guest, rcvbuf=4096)
        with self.memory_within(_FLAT):
            user.flood(frame(b'x' * 16000), seconds=0.3)
            start.set()
            user.flood(frame(b'x' * 16000) * 5 + frame(b'x' * 125, PING) * 125, seconds=0.5, most=128 * MIB)
        user.leave()
        self.assert_slot_free(guest)

    def test_pings_during_the_closing_handshake_do_not_pile_up(self):
        guest = self.add(proxy_base.ScriptedGuest(_say_goodbye))
        user = self.opened(guest, rcvbuf=4096)
        with self.memory_within(_FLAT):
            user.flood(frame(b'x' * 125, PING) * 500, seconds=0.5)
            self.assert_nothing_left()

    def test_a_user_who_reads_gets_a_pong_for_every_ping(self):
        user = self.opened()
        for number in range(50):
            user.send(frame(struct.pack('!I', number) * 31, PING) * 100)
            for _ in range(100):
                while (received := user.frame()) == (PING, b''):  # the proxy's own, after a second
                    user.send(frame(b'', PONG))
                self.assertEqual((PONG, struct.pack('!I', number) * 31), received)
        self.assert_echo(user)
        user.leave()
        self.assert_slot_free()

    def test_frames_after_a_close_frame_do_not_reach_the_guest(self):
        guest = self.add(StreamGuest(total=0))
        user = self.opened(guest)
        user.send(frame(b'before') + close_frame() + frame(b'behind') * 100)
        self.assertIn(user.close_code(), (1000, None))
        self.assert_nothing_left()
        self.assertEqual(6, guest.uploads[0].received)
        self.assert_slot_free(guest)


def _read_slowly(start):
    """Return the script of a guest that reads nothing until ``start`` is set, and then slowly."""

    async def script(reader, writer):
        writer.transport.pause_reading()
        while not start.is_set():
            await asyncio.sleep(0.01)
        writer.transport.resume_reading()
        while await reader.read(65536):
            await asyncio.sleep(0.001)

    return script


async def _say_goodbye(reader, writer):
    writer.write(b'goodbye')
