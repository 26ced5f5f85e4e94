# SPDX-License-Identifier: Apache-2.0
"""The relay between a websocket and a guest: bytes, back-pressure, end, protocol errors, greeting."""

import asyncio
import logging
import struct
from unittest import mock

import fixtures
import testtools
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from consoled.objects import EndReason
from consoled.proxy import close_codes, relay
from consoled.proxy.flow import WINDOW, Window
from consoled.proxy.read_buffer import _CHUNK as CHUNK
from consoled.proxy.read_buffer import USER_CHUNK, ReadBuffer
from consoled.proxy.security.messages import ClientMessages
from consoled.proxy.security.rfb import UserHandshake
from tests.unit.proxy.relay_base import CLOSE_TIMEOUT, PLENTY, Wire, masked, run, settle
from tests.unit.proxy.security import peers

unhurried = settings(deadline=None)

V38 = b'RFB 003.008\n'


class RelayCase(testtools.TestCase):
    def assert_closed(self, wire):
        """Check that both connections are closed, and that each callback was called once."""
        self.assertEqual([wire.channel], wire.released)
        self.assertEqual(1, wire.closed)
        self.assertEqual((1, 1), (wire.user.lost_calls, wire.guest.lost_calls))


class BytesTest(RelayCase):
    @settings(deadline=None, max_examples=150)
    @given(st.data())
    def test_bytes_pass_unchanged_and_in_order(self, data):
        """However they are split, whichever peer is slow, and whatever channel shares the memory."""
        to_user = [data.draw(st.binary(min_size=1, max_size=30)) * n for n in data.draw(some_sizes)]
        to_guest = [data.draw(st.binary(max_size=30)) * n for n in data.draw(some_sizes)]

        async def work():
            read_buffer = ReadBuffer()
            wire = Wire(read_buffer, user_room=data.draw(rooms), guest_room=data.draw(rooms))
            other = Wire(read_buffer)
            from_guest, from_user = list(to_user), fragments(data, to_guest)
            for step in data.draw(
                st.lists(st.sampled_from(['user', 'guest', 'takes', 'guest takes', 'other']))
            ):
                if step == 'user' and from_user:
                    wire.user.sends(from_user.pop(0))
                elif step == 'guest' and from_guest:
                    wire.guest.sends(from_guest.pop(0))
                elif step == 'takes':
                    wire.user.takes(data.draw(takes))
                elif step == 'guest takes':
                    wire.guest.takes(data.draw(takes))
                elif step == 'other':
                    other.guest.sends(b'\xee' * 70000)
                    other.send(b'\xee' * 300)
                wire.user.pump()
                wire.guest.pump()
                self.assertTrue(wire.user.get_write_buffer_size() <= CHUNK + 10 + 125)
                limit = relay._TARGET_BUFFER + USER_CHUNK
                self.assertTrue(wire.guest.get_write_buffer_size() <= limit)
            for piece in from_user:
                wire.user.sends(piece)
            for piece in from_guest:
                wire.guest.sends(piece)
            self.assertEqual(b''.join(to_user), wire.transfer_all())
            self.assertEqual(b''.join(to_guest), bytes(wire.guest.received))
            self.assertEqual(len(b''.join(to_user)), wire.channel.bytes_out)
            self.assertEqual(len(b''.join(to_guest)), wire.channel.bytes_in)
            self.assertIsNone(wire.channel.reason)

        run(work)

    @unhurried
    @given(st.binary(max_size=2000), peers.cuts, peers.cuts)
    def test_messages_and_stream_may_be_split_anywhere(self, data, messages, reads):
        async def work():
            wire = Wire()
            stream = b''
            for number, piece in enumerate(peers.pieces(data, messages)):
                stream += masked(Opcode.TEXT if number % 3 == 2 else Opcode.BINARY, piece)
            for piece in peers.pieces(stream, reads):
                wire.user.sends(piece)
            self.assertEqual(data, bytes(wire.guest.received))

        run(work)

    def test_frames_may_arrive_byte_by_byte(self):
        async def work():
            wire = Wire()
            for piece in peers.bytewise(masked(Opcode.BINARY, b'a' * 126) + masked(Opcode.BINARY, b'b')):
                wire.user.sends(piece)
            self.assertEqual(b'a' * 126 + b'b', bytes(wire.guest.received))

        run(work)

    def test_fragments_are_forwarded_as_they_arrive(self):
        async def work():
            wire = Wire()
            wire.send(b'one', fin=False)
            self.assertEqual(b'one', bytes(wire.guest.received))
            wire.client.send_ping(b'')
            wire.client.send_continuation(b'two', fin=True)
            wire.flush()
            self.assertEqual(b'onetwo', bytes(wire.guest.received))

        run(work)

    def test_invariant_9_a_frame_is_forwarded_as_it_arrives_and_not_kept(self):
        """Otherwise each session could hold a frame that lacks one byte, for as long as its user likes."""

        async def work():
            wire = Wire()
            frame = masked(Opcode.BINARY, b'x' * 2**20)
            wire.user.sends(frame[:-1])
            self.assertEqual(2**20 - 1, len(wire.guest.received))
            self.assertEqual(0, len(wire.channel._socket.reader.buffer))
            wire.channel.ping()
            self.assertIsNotNone(wire.channel.pinged)
            wire.user.sends(frame[-1:] + masked(Opcode.PONG, b''))
            self.assertEqual(2**20, len(wire.guest.received))
            self.assertIsNone(wire.channel.pinged)

        run(work)

    def test_one_read_from_the_guest_becomes_one_message_with_the_shortest_header(self):
        """RFC 6455, section 5.2."""

        async def work():
            for size, header in (
                (1, '8201'),
                (125, '827d'),
                (126, '827e007e'),
                (65535, '827effff'),
                (65536, '827f0000000000010000'),
                (CHUNK, '827f0000000000040000'),
            ):
                wire = Wire()
                data = bytes(number % 251 for number in range(size))
                wire.guest.sends(data)
                self.assertEqual(bytes.fromhex(header) + data, bytes(wire.user.received), size)
                self.assertEqual(data, wire.receive())

        run(work)

    def test_data_larger_than_a_read_becomes_several_messages(self):
        async def work():
            wire = Wire()
            wire.guest.sends(b'x' * (CHUNK + 1))
            wire.receive()
            self.assertEqual([CHUNK, 1], [len(message) for message in wire.messages])

        run(work)

    def test_data_sent_before_the_start_is_forwarded_first(self):
        async def work():
            wire = Wire(rest=b'hello', early=masked(Opcode.BINARY, b'hi'))
            wire.guest.sends(b' world')
            self.assertEqual(b'hello world', wire.receive())
            self.assertEqual(b'hi', bytes(wire.guest.received))
            self.assertEqual((2, 11), (wire.channel.bytes_in, wire.channel.bytes_out))

        run(work)

    def test_the_websocket_library_logs_nothing(self):
        """Its log would contain the keys that users press."""

        async def work():
            wire = Wire()
            wire.send(b'secret')
            wire.user.sends(b'\xff' * 20)

        log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
        run(work)
        self.assertEqual(['Using selector: JumpingSelector'], log.output.splitlines())


some_sizes = st.lists(st.sampled_from([1, 2, 4, 5, 100, 3000, 9000]), max_size=4)
rooms = st.sampled_from([0, 1, 100, 65536, 300000, PLENTY])
takes = st.sampled_from([1, 7, 1000, 65536, 400000])


def fragments(data, messages):
    """Return the user's stream of these messages, some of them fragmented, split into reads."""
    stream = b''
    for message in messages:
        parts = peers.pieces(message, data.draw(peers.cuts))
        for number, part in enumerate(parts):
            opcode = Opcode.CONT if number else Opcode.BINARY
            stream += masked(opcode, part, fin=number == len(parts) - 1)
            if data.draw(st.booleans()):
                stream += masked(Opcode.PONG, b'')
    return peers.pieces(stream, data.draw(peers.cuts))


class BackPressureTest(RelayCase):
    def test_reading_from_the_guest_pauses_while_the_user_does_not_read(self):
        async def work():
            wire = Wire(user_room=100)
            wire.guest.sends(b'x' * 1000)
            self.assertFalse(wire.guest.reading)
            wire.guest.sends(b'y' * 10**6)
            self.assertTrue(wire.user.get_write_buffer_size() < 1000)
            wire.user.takes(1004 - 101)
            self.assertFalse(wire.guest.reading, 'one byte is left')
            wire.user.takes(1)
            self.assertTrue(wire.guest.reading)
            self.assertEqual(b'x' * 1000 + b'y' * 10**6, wire.transfer_all())

        run(work)

    def test_memory_with_unsent_data_is_not_reused(self):
        async def work():
            read_buffer = ReadBuffer()
            slow, quick = Wire(read_buffer, user_room=5), Wire(read_buffer)
            before = read_buffer.memory
            slow.guest.sends(b's' * 100000)
            self.assertIsNot(before, read_buffer.memory)
            quick.guest.sends(b'q' * 200000)
            quick.send(b'q' * 16000)
            self.assertEqual(b's' * 100000, slow.transfer_all())
            self.assertEqual(b'q' * 200000, quick.receive())

        run(work)

    def test_memory_is_reused_once_its_data_is_sent(self):
        async def work():
            read_buffer = ReadBuffer()
            wire = Wire(read_buffer)
            before = read_buffer.memory
            for _ in range(10):
                wire.guest.sends(b'x' * 100000)
            self.assertIs(before, read_buffer.memory)

        run(work)

    def test_reading_from_the_user_pauses_while_the_guest_does_not_read(self):
        async def work():
            wire = Wire(guest_room=0)
            self.assertIsNone(wire.channel.stalled)
            for _ in range(2):
                wire.send(b'x' * 16000)
            self.assertFalse(wire.user.reading)
            self.assertEqual(asyncio.get_running_loop().time(), wire.channel.stalled)
            self.assertTrue(wire.guest.get_write_buffer_size() <= relay._TARGET_BUFFER + USER_CHUNK)
            wire.guest.takes(wire.guest.get_write_buffer_size() - relay._TARGET_BUFFER // 4)
            self.assertIsNone(wire.channel.stalled)
            self.assertTrue(wire.user.reading)
            wire.transfer_all()
            self.assertEqual(b'x' * 16000 * 2, bytes(wire.guest.received))

        run(work)

    def test_one_direction_continues_while_the_other_is_paused(self):
        async def work():
            wire = Wire(guest_room=0)
            wire.send(b'x' * 100000)
            wire.guest.sends(b'screen')
            self.assertEqual(b'screen', wire.receive())
            wire = Wire(user_room=0)
            wire.guest.sends(b'x' * 100000)
            wire.send(b'key')
            self.assertEqual(b'key', bytes(wire.guest.received))

        run(work)

    def test_reading_from_a_user_pauses_while_replies_to_its_pings_are_unread(self):
        """The replies are buffered in memory too."""

        async def work():
            wire = Wire(user_room=0)
            ping = masked(Opcode.PING, b'x' * 125)
            for _ in range(3000):
                wire.user.sends(ping)
            self.assertFalse(wire.user.reading)
            self.assertTrue(wire.user.get_write_buffer_size() < relay._USER_BUFFER + 2 * USER_CHUNK)
            wire.transfer_all()
            self.assertTrue(wire.user.reading)
            self.assertEqual(3000, len([frame for frame in wire.control if frame.opcode is Opcode.PONG]))
            wire.send(b'key')
            self.assertEqual(b'key', bytes(wire.guest.received))

        run(work)

    def test_reading_from_the_user_resumes_only_when_both_reasons_for_the_pause_are_gone(self):
        async def work():
            wire = Wire(user_room=0, guest_room=0)
            ping = masked(Opcode.PING, b'x' * 125)
            wire.user.sends(ping * 120 + masked(Opcode.BINARY, b'x' * 15000))
            self.assertTrue(wire.user.reading)
            wire.user.sends(ping * 30 + masked(Opcode.BINARY, b'x' * 8000))
            self.assertFalse(wire.user.reading, 'unread replies, and a stalled guest')
            wire.guest.takes()
            self.assertIsNone(wire.channel.stalled)
            self.assertFalse(wire.user.reading, 'unread replies')
            wire.user.takes()
            self.assertTrue(wire.user.reading)

        run(work)

    def test_replies_to_pings_stay_bounded_after_the_end(self):
        async def work():
            wire = Wire(user_room=0)
            wire.channel.end(EndReason.IDLE)
            for _ in range(3000):
                wire.user.sends(masked(Opcode.PING, b'x' * 125))
            self.assertTrue(wire.user.get_write_buffer_size() < relay._USER_BUFFER + 2 * USER_CHUNK)

        run(work)

    def test_data_of_the_guest_waits_for_the_greeting_of_a_slow_user(self):
        async def work():
            wire = Wire(user_room=0, greeting=UserHandshake(), rest=b'rest')
            wire.guest.sends(b' and more')
            wire.user.takes()
            self.assertFalse(wire.guest.reading, 'the greeting is not complete')
            wire.send(V38 + b'\1')
            self.assertEqual(V38 + b'\1\1' + b'\0\0\0\0' + b'rest and more', wire.transfer_all())

        run(work)


class EndTest(RelayCase):
    def test_a_close_by_the_user_is_answered_and_earlier_input_delivered(self):
        async def work():
            wire = Wire()
            wire.send(b'last words')
            wire.client.send_close(1000, 'bye')
            wire.flush()
            await settle()
            self.assertEqual([Close(1000, 'bye')], wire.close_frames())
            self.assertEqual(EndReason.USER_LEFT, wire.channel.reason)
            self.assertEqual(b'last words', bytes(wire.guest.received))
            self.assert_closed(wire)

        run(work)

    def test_an_end_of_the_guests_stream_closes_the_websocket_after_its_data(self):
        async def work():
            wire = Wire()
            wire.guest.sends(b'last words')
            wire.guest.ends()
            await settle()
            self.assertEqual(([wire.channel], 0), (wire.released, wire.closed))
            self.assertEqual(b'last words', wire.receive())
            self.assertEqual([Close(1011, 'The guest closed its console.')], wire.close_frames())
            await settle()
            self.assertEqual(EndReason.GUEST_CLOSED, wire.channel.reason)
            self.assert_closed(wire)

        run(work)

    def test_a_broken_connection_ends_the_channel(self):
        async def work():
            for which, reason in (('user', EndReason.USER_LEFT), ('guest', EndReason.GUEST_CLOSED)):
                wire = Wire()
                getattr(wire, which).fails()
                await settle()
                wire.receive()
                await settle()
                self.assertEqual(reason, wire.channel.reason)
                self.assert_closed(wire)

        run(work)

    def test_each_end_reason_has_its_close_frame(self):
        async def work():
            for reason in (*EndReason, 'an operator made this up'):
                wire = Wire()
                wire.channel.end(reason)
                ending = close_codes.ending(reason)
                self.assertEqual([Close(ending.code, ending.text)], wire.close_frames())
                await settle()
                self.assertEqual(reason, wire.channel.reason)
                self.assert_closed(wire)

        run(work)

    def test_the_first_reason_counts_and_is_sent_once(self):
        async def work():
            wire = Wire()
            for reason in (EndReason.IDLE, EndReason.TIME_OVER, EndReason.IDLE):
                wire.channel.end(reason)
            self.assertEqual(EndReason.IDLE, wire.channel.reason)
            self.assertEqual([4408], [close.code for close in wire.close_frames()])

        run(work)

    def test_nothing_is_forwarded_after_the_end(self):
        async def work():
            wire = Wire(guest_room=0)
            wire.send(b'before')
            wire.guest.sends(b'before')
            wire.channel.end('revoked')
            wire.send(b'after')
            wire.guest.sends(b'after')
            self.assertEqual(b'before', wire.transfer_all())
            self.assertEqual(b'before', bytes(wire.guest.received))

        run(work)

    def test_data_that_a_transport_delivers_after_the_end_is_dropped(self):
        """asyncio's TLS transport may deliver data after it was closed."""

        async def work():
            wire = Wire()
            wire.channel.end('revoked')
            before = bytes(wire.user.received)
            wire.guest.get_protocol().get_buffer(-1)[:5] = b'after'
            wire.guest.get_protocol().buffer_updated(5)
            self.assertEqual(before, bytes(wire.user.received))
            self.assertEqual(0, wire.channel.bytes_out)

        run(work)

    def test_a_guest_that_does_not_notice_the_end_is_cut_off_soon(self):
        """As QEMU, whose guest does not read its serial port: its next user must find the port free."""

        async def work():
            for guest_room in (PLENTY, 0):
                wire = Wire(guest_room=guest_room, deaf=True)
                wire.send(b'x' * 5)
                wire.user.fails()
                await asyncio.sleep(relay._LEAVE_TIMEOUT - 0.1)
                self.assertEqual([], wire.released, 'a guest that is slow still gets its input')
                await asyncio.sleep(0.2)
                self.assert_closed(wire)

        run(work)

    def test_a_guest_that_still_reads_gets_all_input_of_a_user_who_left(self):
        async def work():
            wire = Wire(guest_room=0)
            wire.send(b'x' * 10000)
            wire.user.fails()
            for _ in range(10):
                await asyncio.sleep(relay._LEAVE_TIMEOUT - 0.1)
                self.assertEqual([], wire.released)
                wire.guest.takes(1000)
            await settle()
            self.assertEqual(b'x' * 10000, bytes(wire.guest.received))
            self.assert_closed(wire)

        run(work)

    def test_a_guest_that_is_slow_to_notice_the_end_is_not_written_to(self):
        async def work():
            wire = Wire(deaf=True)
            wire.channel.end('revoked')
            wire.send(b'after')
            wire.guest.sends(b'after')
            wire.guest.ends()
            await settle()
            self.assertEqual(b'', bytes(wire.guest.received))
            self.assertEqual([wire.channel], wire.released)

        run(work)

    def test_a_connection_that_is_already_broken_is_aborted(self):
        async def work():
            wire = Wire()
            wire.guest.write_eof = mock.Mock(side_effect=OSError('not connected'))
            wire.channel.end('revoked')
            await settle()
            self.assertEqual([wire.channel], wire.released)

        run(work)

    def test_the_console_is_released_at_once_even_if_the_user_does_not_read(self):
        async def work():
            wire = Wire(user_room=0)
            wire.channel.end('revoked')
            await settle()
            self.assertEqual([wire.channel], wire.released)

        run(work)

    def test_a_user_who_does_not_answer_the_close_is_cut_off_after_the_timeout(self):
        async def work():
            wire = Wire()
            wire.channel.end('revoked')
            await asyncio.sleep(CLOSE_TIMEOUT - 0.1)
            self.assertEqual(0, wire.closed)
            await asyncio.sleep(0.2)
            self.assert_closed(wire)

        run(work)

    def test_a_user_who_reads_nothing_is_cut_off_after_the_timeout(self):
        async def work():
            wire = Wire(user_room=0)
            wire.guest.sends(b'x' * 100000)
            wire.channel.end('revoked')
            await asyncio.sleep(CLOSE_TIMEOUT + 0.1)
            self.assert_closed(wire)

        run(work)

    def test_a_user_who_still_reads_gets_all_data(self):
        async def work():
            wire = Wire(user_room=0)
            wire.guest.sends(b'x' * 100000)
            wire.channel.end('revoked')
            for _ in range(10):
                wire.user.takes(10000)
                await asyncio.sleep(CLOSE_TIMEOUT - 0.1)
                self.assertEqual(([wire.channel], 0), (wire.released, wire.closed))
            wire.user.takes()
            self.assertEqual(b'x' * 100000, wire.receive())
            self.assertEqual([4403], [close.code for close in wire.close_frames()])
            await settle()
            self.assert_closed(wire)

        run(work)

    def test_a_slow_user_does_not_delay_the_release_of_a_stalled_console(self):
        """The timeout of each connection depends on the progress of that connection alone."""

        async def work():
            wire = Wire(user_room=0, guest_room=0)
            wire.send(b'x' * 1000)
            wire.guest.sends(b'x' * 100000)
            wire.channel.end('revoked')
            for _ in range(5):
                wire.user.takes(1000)
                await asyncio.sleep(CLOSE_TIMEOUT - 0.1)
            self.assertEqual([wire.channel], wire.released)

        run(work)

    def test_invariant_4_the_console_is_released_at_once_when_the_lease_is_lost(self):
        """A tenth of the lease is left, and closing may take longer than that."""

        async def work():
            wire = Wire(guest_room=0)
            wire.send(b'x')
            wire.channel.end(EndReason.LEASE_LOST)
            await settle()
            self.assertEqual([wire.channel], wire.released)

        run(work)

    def test_a_lost_lease_aborts_a_channel_that_is_already_ending(self):
        async def work():
            for leave in (lambda wire: wire.channel.end('revoked'), lambda wire: wire.user.fails()):
                wire = Wire(guest_room=0)
                wire.send(b'x')
                leave(wire)
                await settle()
                self.assertEqual([], wire.released)
                reason = wire.channel.reason
                wire.channel.end(EndReason.LEASE_LOST)
                await settle()
                self.assertEqual([wire.channel], wire.released)
                self.assertEqual(reason, wire.channel.reason)
                wire.channel.end(EndReason.LEASE_LOST)  # as often as it likes
                await asyncio.sleep(CLOSE_TIMEOUT * 2)
                self.assert_closed(wire)

        run(work)

    def test_input_sent_before_the_close_is_delivered(self):
        async def work():
            wire = Wire(guest_room=0)
            wire.send(b'shutdown -h now\n')
            wire.client.send_close()
            wire.flush()
            wire.guest.takes()
            await settle()
            self.assertEqual(b'shutdown -h now\n', bytes(wire.guest.received))
            self.assert_closed(wire)

        run(work)

    def test_no_timer_is_left_after_the_end(self):
        async def work():
            wire = Wire()
            wire.channel.end('revoked')
            wire.receive()
            await settle()
            self.assert_closed(wire)
            timers = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]
            self.assertEqual([], timers)

        run(work)

    @unhurried
    @given(
        st.lists(
            st.sampled_from(
                [
                    'user closes',
                    'user ends',
                    'user fails',
                    'user sends',
                    'user sends garbage',
                    'user takes',
                    'user receives',
                    'guest ends',
                    'guest fails',
                    'guest sends',
                    'guest takes',
                    'cut',
                    'idle',
                    'ping',
                    'settle',
                    'wait',
                ]
            ),
            max_size=12,
        ),
        st.sampled_from([0, 100, PLENTY]),
        st.sampled_from([0, 100, PLENTY]),
        st.booleans(),
    )
    def test_a_channel_ends_once_after_any_sequence_of_events(self, steps, user_room, guest_room, greets):
        async def work():
            values = (
                {'greeting': UserHandshake(), 'input_filter': ClientMessages(view_only=True)}
                if greets
                else {}
            )
            wire = Wire(user_room=user_room, guest_room=guest_room, **values)
            do = {
                'user closes': lambda: wire.user.sends(masked(Opcode.CLOSE, struct.pack('!H', 1000))),
                'user ends': wire.user.ends,
                'user fails': wire.user.fails,
                'user sends': lambda: wire.user.sends(masked(Opcode.BINARY, V38 + b'\1\1' + b'x' * 1000)),
                'user sends garbage': lambda: wire.user.sends(b'\xff\xff\xff'),
                'user takes': lambda: wire.user.takes(1000),
                'user receives': wire.receive,
                'guest ends': wire.guest.ends,
                'guest fails': wire.guest.fails,
                'guest sends': lambda: wire.guest.sends(b'x' * 1000),
                'guest takes': lambda: wire.guest.takes(1000),
                'cut': lambda: wire.channel.end('revoked'),
                'idle': lambda: wire.channel.end(EndReason.IDLE),
                'ping': wire.channel.ping,
            }
            for step in steps:
                if step == 'settle':
                    await settle()
                elif step == 'wait':
                    await asyncio.sleep(CLOSE_TIMEOUT / 2)
                else:
                    do[step]()
                self.assertTrue(len(wire.released) <= 1)
                self.assertTrue(wire.closed <= 1)
                if wire.released:
                    self.assertTrue(wire.guest.lost)
            wire.channel.end(EndReason.DRAINED)
            await asyncio.sleep(CLOSE_TIMEOUT * 4)
            self.assert_closed(wire)
            self.assertIsNotNone(wire.channel.reason)

        run(work)


class ProtocolTest(RelayCase):
    async def violate(self, data, **values):
        """Send data that violates the protocol; return the codes of the close frames, and the wire."""
        wire = Wire(**values)
        wire.send(b'before')
        wire.user.sends(data)
        closes = wire.close_frames()
        codes, wire.texts = [close.code for close in closes], [close.reason for close in closes]
        await settle()
        self.assert_closed(wire)
        self.assertEqual(b'before', bytes(wire.guest.received)[:6])
        return codes, wire

    def test_a_protocol_violation_ends_the_channel(self):
        async def work():
            for data in (
                masked(Opcode.BINARY, b'x', mask=False),
                b'\xc2\x80\0\0\0\0',  # a reserved bit
                b'\x83\x80\0\0\0\0',  # an unknown opcode
                b'\x09\x80\0\0\0\0',  # a fragmented ping
                b'\x89\xfe\0\x7e\0\0\0\0' + b'x' * 126,  # an oversized ping
                b'\x89\xfe\0\x7e\0\0\0\0',  # its header
                masked(Opcode.CONT, b'x'),
                masked(Opcode.BINARY, b'x', fin=False) + masked(Opcode.BINARY, b'y'),
                masked(Opcode.CLOSE, b'x'),
                masked(Opcode.CLOSE, struct.pack('!H', 1005)),
            ):
                codes, wire = await self.violate(data)
                self.assertEqual([1002], codes, data)
                self.assertEqual(['The client violated the protocol.'], wire.texts)
                self.assertEqual(EndReason.PROTOCOL_ERROR, wire.channel.reason)

        run(work)

    def test_data_after_a_protocol_violation_is_ignored(self):
        async def work():
            _, wire = await self.violate(masked(Opcode.CONT, b'x') + masked(Opcode.BINARY, b'after'))
            self.assertEqual(b'before', bytes(wire.guest.received))

        run(work)

    def test_the_header_of_an_oversized_message_ends_the_channel(self):
        async def work():
            for data in (
                b'\x82\xfe\x03\xe9\0\0\0\0',  # 1001
                b'\x82\xff' + struct.pack('!Q', 2**63 - 1) + b'\0\0\0\0',
                masked(Opcode.BINARY, b'x' * 600, fin=False) + masked(Opcode.CONT, b'x' * 401, fin=False),
            ):
                codes, wire = await self.violate(data, max_size=1000)
                self.assertEqual([1009], codes)
                self.assertEqual(['The message is too big.'], wire.texts)
                self.assertEqual(EndReason.MESSAGE_TOO_BIG, wire.channel.reason)

        run(work)

    def test_a_message_of_the_maximum_size_passes(self):
        async def work():
            wire = Wire(max_size=1000)
            wire.send(b'x' * 1000)
            wire.send(b'x' * 500, fin=False)
            wire.client.send_continuation(b'x' * 500, fin=True)
            wire.flush()
            wire.send(b'x' * 1000)
            self.assertEqual(3000, len(wire.guest.received))

        run(work)

    def test_pings_are_answered(self):
        async def work():
            wire = Wire()
            wire.client.send_ping(b'are you there')
            wire.flush()
            wire.receive()
            self.assertEqual([Frame(Opcode.PONG, b'are you there')], wire.control)
            self.assertEqual(b'', bytes(wire.guest.received))

        run(work)

    def test_a_pong_counts_as_a_response_but_not_as_input(self):
        async def work():
            loop = asyncio.get_running_loop()
            wire = Wire()
            await asyncio.sleep(10)
            wire.channel.ping()
            self.assertEqual(loop.time(), wire.channel.pinged)
            await asyncio.sleep(1)
            wire.receive()
            self.assertEqual([Opcode.PING], [frame.opcode for frame in wire.control])
            self.assertIsNone(wire.channel.pinged)
            self.assertEqual(loop.time(), wire.channel.last_heard)
            self.assertEqual(wire.channel.began, wire.channel.last_input, 'a pong is not input')

        run(work)

    def test_a_user_with_unread_data_is_not_pinged(self):
        async def work():
            wire = Wire(user_room=0)
            wire.guest.sends(b'x')
            before = wire.user.get_write_buffer_size()
            wire.channel.ping()
            self.assertIsNone(wire.channel.pinged)
            self.assertEqual(before, wire.user.get_write_buffer_size())

        run(work)

    def test_no_ping_is_sent_after_the_end(self):
        async def work():
            wire = Wire()
            wire.channel.end('revoked')
            wire.channel.ping()
            self.assertIsNone(wire.channel.pinged)

        run(work)

    def test_reading_counts_as_a_response_of_the_user(self):
        async def work():
            wire = Wire(user_room=0)
            wire.guest.sends(b'x' * 1000)
            await asyncio.sleep(10)
            wire.user.takes()
            self.assertEqual(asyncio.get_running_loop().time(), wire.channel.last_heard)

        run(work)

    def test_data_from_the_user_counts_as_input(self):
        async def work():
            wire = Wire()
            await asyncio.sleep(10)
            wire.send(b'x')
            self.assertEqual(asyncio.get_running_loop().time(), wire.channel.last_input)

        run(work)

    def test_an_empty_message_does_not_count_as_input(self):
        """Otherwise a page could keep a session from becoming idle without sending a byte."""

        async def work():
            wire = Wire()
            await asyncio.sleep(10)
            wire.send(b'')
            self.assertTrue(wire.channel.last_input <= asyncio.get_running_loop().time() - 10)

        run(work)


class GreetingTest(RelayCase):
    def test_the_greeting_precedes_data_of_the_guest(self):
        async def work():
            wire = Wire(
                greeting=UserHandshake(), input_filter=ClientMessages(view_only=False), rest=b'ServerInit'
            )
            self.assertFalse(wire.channel.greeted)
            self.assertFalse(wire.guest.reading)
            wire.guest.sends(b' and more')
            self.assertEqual(V38, wire.receive())
            wire.send(V38)
            self.assertEqual(V38 + b'\1\1', wire.receive())
            self.assertEqual(b'', bytes(wire.guest.received))
            wire.send(b'\1')
            self.assertTrue(wire.channel.greeted)
            wire.guest.pump()
            self.assertEqual(V38 + b'\1\1' + b'\0\0\0\0' + b'ServerInit and more', wire.receive())
            self.assertEqual(b'', bytes(wire.guest.received), 'the greeting is not forwarded')
            wire.send(b'\1')
            self.assertEqual(b'\1', bytes(wire.guest.received))

        run(work)

    @unhurried
    @given(peers.cuts, st.booleans())
    def test_the_greeting_may_be_split_anywhere_and_followed_by_input(self, cuts, early):
        async def work():
            sent = V38 + b'\1' + b'\1' + b'\4\1\0\0\0\0\0\x41'
            pieces = [masked(Opcode.BINARY, piece) for piece in peers.pieces(sent, cuts)]
            first = pieces.pop(0) if early else b''
            wire = Wire(greeting=UserHandshake(), input_filter=ClientMessages(view_only=False), early=first)
            for piece in pieces:
                wire.user.sends(piece)
            self.assertTrue(wire.channel.greeted)
            self.assertTrue(wire.guest.reading)
            self.assertEqual(sent[13:], bytes(wire.guest.received))
            self.assertEqual(V38 + b'\1\1' + b'\0\0\0\0', wire.receive())

        run(work)

    def test_a_failed_greeting_ends_the_channel_with_an_explanation(self):
        async def work():
            for sent, farewell in (
                (b'RFB 003.003\n', b'Only version 3.8 of the protocol is supported.'),
                (V38 + b'\2', b'Only the security type None is offered.'),
                (b'GET / HTTP/1', b''),
            ):
                wire = Wire(greeting=UserHandshake())
                wire.send(sent)
                self.assertTrue(wire.receive().endswith(farewell))
                self.assertEqual([1002], [close.code for close in wire.close_frames()])
                await settle()
                self.assertEqual(EndReason.PROTOCOL_ERROR, wire.channel.reason)
                self.assertEqual(b'', bytes(wire.guest.received))
                self.assert_closed(wire)

        run(work)

    def test_only_harmless_messages_pass_in_view_only_mode(self):
        async def work():
            wire = Wire(input_filter=ClientMessages(view_only=True))
            key, update_request = b'\4\1\0\0\0\0\0\x41', b'\3\1\0\0\0\0\4\0\3\0'
            wire.send(b'\0')  # ClientInit that asks for exclusive access
            wire.send(key + update_request + key)
            wire.send(key)
            self.assertEqual(b'\1' + update_request, bytes(wire.guest.received))
            self.assertEqual(1 + 3 * len(key) + len(update_request), wire.channel.bytes_in)

        run(work)

    def test_input_that_cannot_be_filtered_ends_the_channel(self):
        async def work():
            wire = Wire(input_filter=ClientMessages(view_only=True))
            wire.send(b'\1')
            wire.send(b'\xc8' * 100)
            self.assertEqual([1002], [close.code for close in wire.close_frames()])
            await settle()
            self.assertEqual(b'\1', bytes(wire.guest.received))
            self.assert_closed(wire)

        run(work)

    def test_update_requests_of_the_display_do_not_count_as_input(self):
        async def work():
            wire = Wire(input_filter=ClientMessages(view_only=False))
            wire.send(b'\1')
            await asyncio.sleep(10)
            began = wire.channel.last_input
            wire.send(b'\3\1\0\0\0\0\4\0\3\0')
            self.assertEqual(began, wire.channel.last_input)
            wire.send(b'\5\0\0\1\0\1')
            self.assertEqual(asyncio.get_running_loop().time(), wire.channel.last_input)

        run(work)


class FlowTest(RelayCase):
    """A client that cannot stop reading acknowledges what it has processed."""

    def acknowledge(self, wire, text):
        wire.user.sends(masked(Opcode.TEXT, text))

    def test_the_guest_is_held_back_until_the_client_acknowledges(self):
        async def work():
            wire = Wire(window=Window())
            sent = 0
            for _ in range(100):
                wire.guest.sends(b'x' * 1000)
                sent += 1000
            self.assertTrue(wire.guest.reading)
            for _ in range(100):
                wire.guest.sends(b'x' * 1000)
                sent += 1000
            self.assertFalse(wire.guest.reading)
            self.assertTrue(WINDOW <= wire.channel.bytes_out < WINDOW + 1000)
            self.acknowledge(wire, b'1')
            self.assertTrue(wire.channel.bytes_out < WINDOW + 1000)
            while wire.channel.bytes_out < sent:
                self.acknowledge(wire, str(wire.channel.bytes_out).encode())
                wire.guest.pump()
            self.assertEqual(b'x' * sent, wire.receive())

        run(work)

    def test_acknowledgements_do_not_reach_the_guest_and_are_not_input(self):
        async def work():
            wire = Wire(window=Window())
            wire.guest.sends(b'prompt> ')
            await asyncio.sleep(10)
            self.acknowledge(wire, b'8')
            self.assertEqual(wire.channel.began, wire.channel.last_input)
            self.assertEqual(0, wire.channel.bytes_in)
            wire.send(b'key', fin=False)
            wire.client.send_continuation(b's', fin=True)
            wire.flush()
            self.assertEqual(b'keys', bytes(wire.guest.received))
            self.assertIsNone(wire.channel.reason)

        run(work)

    def test_without_flow_control_texts_are_data(self):
        async def work():
            wire = Wire()
            wire.guest.sends(b'x' * 2 * WINDOW)
            self.assertTrue(wire.guest.reading)
            self.acknowledge(wire, b'12')
            self.assertEqual(b'12', bytes(wire.guest.received))

        run(work)

    def test_a_text_that_is_no_acknowledgement_ends_the_channel(self):
        async def work():
            for text in (b'', b'hello', b'1'):
                wire = Wire(window=Window())
                self.acknowledge(wire, text)
                self.assertEqual(EndReason.PROTOCOL_ERROR, wire.channel.reason)
                self.assertEqual([1002], [close.code for close in wire.close_frames()])
                self.assertEqual(b'', bytes(wire.guest.received))

        run(work)

    def test_a_guest_that_waits_for_its_echo_to_be_taken_is_not_waited_for(self):
        """Acknowledgements are behind the input that it does not take; both would wait for ever."""

        async def work():
            wire = Wire(window=Window(), guest_room=0)
            wire.send(b'x' * 100000)
            self.acknowledge(wire, b'0')
            wire.guest.sends(b'x' * WINDOW)
            self.assertFalse(wire.guest.reading)
            wire.channel.note_progress()
            self.assertTrue(wire.guest.reading)
            wire.guest.sends(b'x' * WINDOW)
            self.assertFalse(wire.guest.reading, 'only one window at a time')

        run(work)

    def test_the_guest_is_not_read_while_either_reason_remains(self):
        async def work():
            wire = Wire(window=Window(), user_room=0)
            wire.guest.sends(b'x' * WINDOW)
            self.acknowledge(wire, str(WINDOW).encode())
            self.assertFalse(wire.guest.reading, 'unsent data')
            wire.user.takes()
            self.assertTrue(wire.guest.reading)
            wire = Wire(window=Window(), user_room=0)
            wire.guest.sends(b'x' * WINDOW)
            wire.user.takes()
            self.assertFalse(wire.guest.reading, 'unacknowledged data')

        run(work)
