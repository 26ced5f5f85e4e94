# SPDX-License-Identifier: Apache-2.0
"""The relay between two connections in memory, in time that does not pass by itself."""

import asyncio
import logging
import selectors
import struct
import time

import fixtures
import testtools
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side

from consoled.objects import EndReason
from consoled.proxy import close_codes, relay
from consoled.proxy.input_filter import AllowAll
from consoled.proxy.relay import Channel, ReadBuffer
from consoled.proxy.security.messages import ClientMessages
from consoled.proxy.security.rfb import UserHandshake
from tests.unit.proxy.security import peers

unhurried = settings(deadline=None)

CLOSE_TIMEOUT = 3.0
PLENTY = 10**9
V38 = b'RFB 003.008\n'
SILENT = logging.Logger('user', level=logging.CRITICAL + 1)


# --- an event loop whose clock jumps to what is due next, instead of waiting for it ---


class JumpingSelector(selectors.DefaultSelector):
    def __init__(self):
        super().__init__()
        self.now = time.monotonic()  # some of what is tested asks the real clock

    def select(self, timeout=None):
        if timeout is None:
            raise AssertionError('nothing will ever happen')
        self.now += max(timeout, 0)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self):
        return self.selector.now


def run(work):
    """Run a coroutine function; an error in a callback fails the test."""
    errors = []

    async def guarded():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        await work()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(guarded())
    if errors:
        raise AssertionError(errors)


async def settle():
    """Let everything happen that needs no time."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- connections ---


class Transport(asyncio.Transport):
    """A connection to a peer in memory, that behaves as those of asyncio's selector loop do.

    What can't be sent at once is held as views, as from Python 3.12 on: whoever changes the memory behind
    them before it was sent is found out.

    :ivar room: bytes that the peer (its kernel) takes before it has to read
    :ivar received: what the peer has taken
    """

    def __init__(self, room=PLENTY):
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.room = room
        self.received = bytearray()
        self.reading = False
        self.lost = False  # or about to be
        self.lost_calls = 0
        self._inbox = bytearray()
        self._ended = False
        self._unsent = []
        self._closing = False
        self._writing_paused = False
        self._high, self._low = 64 * 1024, 16 * 1024
        self._protocol = None

    # what a protocol uses

    def set_protocol(self, protocol):
        self._protocol = protocol

    def get_protocol(self):
        return self._protocol

    def set_write_buffer_limits(self, high=None, low=None):
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        assert high >= low >= 0
        self._high, self._low = high, low
        self._maybe_pause()

    def get_write_buffer_size(self):
        return sum(map(len, self._unsent))

    def pause_reading(self):
        if not self._closing:
            self.reading = False

    def resume_reading(self):
        if not self._closing:
            self.reading = True

    def is_reading(self):
        return self.reading

    def write(self, data):
        if not data or self.lost:
            return
        view = memoryview(data)
        if not self._unsent:
            view = view[self._take(view) :]
        if view:
            self._unsent.append(view)
            self._maybe_pause()

    def is_closing(self):
        return self._closing

    def close(self):
        if self._closing:
            return
        self._closing = True
        self.reading = False
        if not self._unsent:
            self._lose()

    def abort(self):
        self._closing = True
        self.reading = False
        self._unsent.clear()
        self._lose()

    def _lose(self):
        if not self.lost:
            self.lost = True
            self._loop.call_soon(self._tell_lost)

    def _tell_lost(self):
        self.lost_calls += 1
        self._protocol.connection_lost(None)

    def _take(self, view):
        taken = min(self.room, len(view))
        self.received += view[:taken]
        self.room -= taken
        return taken

    def _maybe_pause(self):
        if self.get_write_buffer_size() > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    # what its peer does

    def takes(self, size=PLENTY):
        """The peer reads ``size`` bytes more."""
        self.room += size
        while self._unsent and self.room:
            view = self._unsent[0]
            taken = self._take(view)
            self._unsent[0] = view[taken:]
            if not self._unsent[0]:
                del self._unsent[0]
        if self._writing_paused and self.get_write_buffer_size() <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._closing and not self._unsent:
            self._lose()

    def sends(self, data):
        """The peer sends; it arrives as far as somebody reads here."""
        self._inbox += data
        self.pump()

    def pump(self):
        """Let arrive what was sent before; tells whether something did."""
        moved = False
        while self._inbox and self.reading:
            buffer = self._protocol.get_buffer(-1)
            size = min(len(buffer), len(self._inbox))
            buffer[:size] = self._inbox[:size]
            del self._inbox[:size]
            del buffer
            self._protocol.buffer_updated(size)
            moved = True
        if self._ended and self.reading and not self._protocol.eof_received():
            self.close()
        return moved

    def ends(self):
        """The peer sends no more: it is found out once all that it sent was read."""
        self._ended = True
        self.pump()

    def fails(self):
        """The connection breaks."""
        self.abort()


class Wire:
    """A channel with its user and its guest.

    :ivar client: the user's websocket
    """

    def __init__(
        self, read_buffer=None, *, user_room=PLENTY, guest_room=PLENTY, max_size=2**20, early=b'', **values
    ):
        self.user, self.guest = Transport(user_room), Transport(guest_room)
        self.client = Protocol(Side.CLIENT, max_size=None, logger=SILENT)
        self.released, self.closed = [], 0
        self._read = 0
        self.messages = []  # payloads of data frames that the user has received
        self.control = []  # other frames
        self.channel = Channel(
            self.user,
            self.guest,
            read_buffer or ReadBuffer(),
            max_message_size=max_size,
            close_timeout=CLOSE_TIMEOUT,
            input_filter=values.pop('input_filter', AllowAll()),
            released=self.released.append,
            closed=self._count_closed,
            **values,
        )
        self.channel.start(early)

    def _count_closed(self):
        self.closed += 1

    def send(self, data, **values):
        """The user sends a message, or a fragment of one."""
        self.client.send_binary(data, **values)
        self.flush()

    def flush(self):
        """What the user's websocket wants to send is sent."""
        for data in self.client.data_to_send():
            if data:
                self.user.sends(data)

    def hear(self):
        """The user's websocket reads what has come, and answers it."""
        self.client.receive_data(bytes(self.user.received[self._read :]))
        self._read = len(self.user.received)
        for frame in self.client.events_received():
            if frame.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                self.messages.append(bytes(frame.data))
            else:
                self.control.append(frame)
        self.flush()
        return b''.join(self.messages)

    def close_frames(self):
        self.hear()
        return [Close.parse(bytes(frame.data)) for frame in self.control if frame.opcode is Opcode.CLOSE]

    def everything(self):
        """Everybody takes and sends until nothing moves any more."""
        moved = True
        while moved:
            before = len(self.user.received), len(self.guest.received)
            self.user.takes()
            self.guest.takes()
            moved = self.user.pump() | self.guest.pump()
            moved = moved or before != (len(self.user.received), len(self.guest.received))
        return self.hear()


def masked(opcode, data, *, fin=True, mask=True):
    return Frame(opcode, data, fin).serialize(mask=mask)


class RelayCase(testtools.TestCase):
    def assert_over(self, wire):
        self.assertEqual([wire.channel], wire.released)
        self.assertEqual(1, wire.closed)
        self.assertEqual((1, 1), (wire.user.lost_calls, wire.guest.lost_calls))


class BytesTest(RelayCase):
    @settings(deadline=None, max_examples=150)
    @given(st.data())
    def test_bytes_pass_unchanged_and_in_order(self, data):
        """Whatever pieces they come in, whoever is slow, and whatever else uses the same memory."""
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
                self.assertTrue(wire.user.get_write_buffer_size() <= relay._CHUNK + 10 + 125)
                # a fragment is passed on as a whole
                self.assertTrue(wire.guest.get_write_buffer_size() <= relay._TARGET_BUFFER + 2**20)
            for piece in from_user:
                wire.user.sends(piece)
            for piece in from_guest:
                wire.guest.sends(piece)
            self.assertEqual(b''.join(to_user), wire.everything())
            self.assertEqual(b''.join(to_guest), bytes(wire.guest.received))
            self.assertEqual(len(b''.join(to_user)), wire.channel.bytes_out)
            self.assertEqual(len(b''.join(to_guest)), wire.channel.bytes_in)
            self.assertIsNone(wire.channel.reason)

        run(work)

    @unhurried
    @given(st.binary(max_size=2000), peers.cuts, peers.cuts)
    def test_any_split_of_messages_and_of_the_stream(self, data, messages, reads):
        async def work():
            wire = Wire()
            stream = b''
            for number, piece in enumerate(peers.pieces(data, messages)):
                stream += masked(Opcode.TEXT if number % 3 == 2 else Opcode.BINARY, piece)
            for piece in peers.pieces(stream, reads):
                wire.user.sends(piece)
            self.assertEqual(data, bytes(wire.guest.received))

        run(work)

    def test_byte_by_byte(self):
        async def work():
            wire = Wire()
            for piece in peers.bytewise(masked(Opcode.BINARY, b'a' * 126) + masked(Opcode.BINARY, b'b')):
                wire.user.sends(piece)
            self.assertEqual(b'a' * 126 + b'b', bytes(wire.guest.received))

        run(work)

    def test_fragments_are_passed_on_as_they_come(self):
        async def work():
            wire = Wire()
            wire.send(b'one', fin=False)
            self.assertEqual(b'one', bytes(wire.guest.received))
            wire.client.send_ping(b'')
            wire.client.send_continuation(b'two', fin=True)
            wire.flush()
            self.assertEqual(b'onetwo', bytes(wire.guest.received))

        run(work)

    def test_what_the_guest_sends_at_once_is_one_message(self):
        """With the shortest header that says its length (RFC 6455, section 5.2)."""

        async def work():
            for size, header in (
                (1, '8201'),
                (125, '827d'),
                (126, '827e007e'),
                (65535, '827effff'),
                (65536, '827f0000000000010000'),
                (relay._CHUNK, '827f0000000000040000'),
            ):
                wire = Wire()
                data = bytes(number % 251 for number in range(size))
                wire.guest.sends(data)
                self.assertEqual(bytes.fromhex(header) + data, bytes(wire.user.received), size)
                self.assertEqual(data, wire.hear())

        run(work)

    def test_more_than_is_read_at_once_is_several(self):
        async def work():
            wire = Wire()
            wire.guest.sends(b'x' * (relay._CHUNK + 1))
            wire.hear()
            self.assertEqual([relay._CHUNK, 1], [len(message) for message in wire.messages])

        run(work)

    def test_what_each_had_sent_before(self):
        async def work():
            wire = Wire(rest=b'hello', early=masked(Opcode.BINARY, b'hi'))
            wire.guest.sends(b' world')
            self.assertEqual(b'hello world', wire.hear())
            self.assertEqual(b'hi', bytes(wire.guest.received))
            self.assertEqual((2, 11), (wire.channel.bytes_in, wire.channel.bytes_out))

        run(work)

    def test_the_websocket_library_logs_nothing(self):
        """It would be keys that users press."""

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
    """The user's stream of these messages, some in fragments, in pieces as they are read."""
    stream = b''
    for message in messages:
        parts = peers.pieces(message, data.draw(peers.cuts))
        for number, part in enumerate(parts):
            opcode = Opcode.CONT if number else Opcode.BINARY
            stream += masked(opcode, part, fin=number == len(parts) - 1)
            if data.draw(st.booleans()):
                stream += masked(Opcode.PONG, b'')
    return peers.pieces(stream, data.draw(peers.cuts))


class PressureTest(RelayCase):
    def test_a_user_who_does_not_read_stops_the_guest(self):
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
            self.assertEqual(b'x' * 1000 + b'y' * 10**6, wire.everything())

        run(work)

    def test_memory_that_is_still_to_be_sent_is_not_written_to(self):
        async def work():
            read_buffer = ReadBuffer()
            slow, quick = Wire(read_buffer, user_room=5), Wire(read_buffer)
            before = read_buffer.memory
            slow.guest.sends(b's' * 100000)
            self.assertIsNot(before, read_buffer.memory)
            quick.guest.sends(b'q' * 200000)
            quick.send(b'q' * 16000)
            self.assertEqual(b's' * 100000, slow.everything())
            self.assertEqual(b'q' * 200000, quick.hear())

        run(work)

    def test_memory_that_was_sent_is_used_again(self):
        async def work():
            read_buffer = ReadBuffer()
            wire = Wire(read_buffer)
            before = read_buffer.memory
            for _ in range(10):
                wire.guest.sends(b'x' * 100000)
            self.assertIs(before, read_buffer.memory)

        run(work)

    def test_a_guest_that_does_not_read_stops_its_user(self):
        async def work():
            wire = Wire(guest_room=0)
            self.assertIsNone(wire.channel.stalled)
            for _ in range(8):
                wire.send(b'x' * 16000)
            self.assertFalse(wire.user.reading)
            self.assertEqual(asyncio.get_running_loop().time(), wire.channel.stalled)
            self.assertTrue(wire.guest.get_write_buffer_size() <= relay._TARGET_BUFFER + relay._USER_CHUNK)
            wire.guest.takes(wire.guest.get_write_buffer_size() - 16 * 1024)
            self.assertIsNone(wire.channel.stalled)
            self.assertTrue(wire.user.reading)
            wire.everything()
            self.assertEqual(b'x' * 16000 * 8, bytes(wire.guest.received))

        run(work)

    def test_one_direction_goes_on_while_the_other_is_stopped(self):
        async def work():
            wire = Wire(guest_room=0)
            wire.send(b'x' * 100000)
            wire.guest.sends(b'picture')
            self.assertEqual(b'picture', wire.hear())
            wire = Wire(user_room=0)
            wire.guest.sends(b'x' * 100000)
            wire.send(b'key')
            self.assertEqual(b'key', bytes(wire.guest.received))

        run(work)

    def test_a_user_who_asks_and_does_not_listen_may_ask_no_more(self):
        """Answers to pings are held in memory too."""

        async def work():
            wire = Wire(user_room=0)
            ping = masked(Opcode.PING, b'x' * 125)
            for _ in range(3000):
                wire.user.sends(ping)
            self.assertFalse(wire.user.reading)
            self.assertTrue(wire.user.get_write_buffer_size() < relay._USER_BUFFER + 2 * relay._USER_CHUNK)
            wire.everything()
            self.assertTrue(wire.user.reading)
            self.assertEqual(3000, len([frame for frame in wire.control if frame.opcode is Opcode.PONG]))
            wire.send(b'key')
            self.assertEqual(b'key', bytes(wire.guest.received))

        run(work)

    def test_nor_if_the_guest_takes_what_it_was_sent_meanwhile(self):
        async def work():
            wire = Wire(user_room=0, guest_room=0)
            ping = masked(Opcode.PING, b'x' * 125)
            wire.user.sends(ping * 500 + masked(Opcode.BINARY, b'x' * 60000))
            self.assertTrue(wire.user.reading)
            wire.user.sends(ping * 30 + masked(Opcode.BINARY, b'x' * 8000))
            self.assertFalse(wire.user.reading, 'for two reasons')
            wire.guest.takes()
            self.assertIsNone(wire.channel.stalled)
            self.assertFalse(wire.user.reading, 'for one')
            wire.user.takes()
            self.assertTrue(wire.user.reading)

        run(work)

    def test_nor_once_the_session_has_ended(self):
        async def work():
            wire = Wire(user_room=0)
            wire.channel.end(EndReason.IDLE)
            for _ in range(3000):
                wire.user.sends(masked(Opcode.PING, b'x' * 125))
            self.assertTrue(wire.user.get_write_buffer_size() < relay._USER_BUFFER + 2 * relay._USER_CHUNK)

        run(work)

    def test_what_comes_before_a_slow_user_was_greeted_waits(self):
        async def work():
            wire = Wire(user_room=0, greeting=UserHandshake(), rest=b'rest')
            wire.guest.sends(b' and more')
            wire.user.takes()
            self.assertFalse(wire.guest.reading, 'the greeting is not over')
            wire.send(V38 + b'\1')
            self.assertEqual(V38 + b'\1\1' + b'\0\0\0\0' + b'rest and more', wire.everything())

        run(work)


class EndTest(RelayCase):
    def test_the_user_closes(self):
        async def work():
            wire = Wire()
            wire.send(b'last words')
            wire.client.send_close(1000, 'bye')
            wire.flush()
            await settle()
            self.assertEqual([Close(1000, 'bye')], wire.close_frames())
            self.assertEqual(EndReason.USER_LEFT, wire.channel.reason)
            self.assertEqual(b'last words', bytes(wire.guest.received))
            self.assert_over(wire)

        run(work)

    def test_the_guest_closes(self):
        async def work():
            wire = Wire()
            wire.guest.sends(b'last words')
            wire.guest.ends()
            await settle()
            self.assertEqual(([wire.channel], 0), (wire.released, wire.closed))
            self.assertEqual(b'last words', wire.hear())
            self.assertEqual([Close(1011, 'The guest closed its console.')], wire.close_frames())
            await settle()
            self.assertEqual(EndReason.GUEST_CLOSED, wire.channel.reason)
            self.assert_over(wire)

        run(work)

    def test_either_breaks(self):
        async def work():
            for which, reason in (('user', EndReason.USER_LEFT), ('guest', EndReason.GUEST_CLOSED)):
                wire = Wire()
                getattr(wire, which).fails()
                await settle()
                wire.hear()
                await settle()
                self.assertEqual(reason, wire.channel.reason)
                self.assert_over(wire)

        run(work)

    def test_each_reason_is_told(self):
        async def work():
            for reason in (*EndReason, 'an operator made this up'):
                wire = Wire()
                wire.channel.end(reason)
                how = close_codes.ending(reason)
                self.assertEqual([Close(how.code, how.text)], wire.close_frames())
                await settle()
                self.assertEqual(reason, wire.channel.reason)
                self.assert_over(wire)

        run(work)

    def test_the_first_reason_stays_and_is_told_once(self):
        async def work():
            wire = Wire()
            for reason in (EndReason.IDLE, EndReason.TIME_OVER, EndReason.IDLE):
                wire.channel.end(reason)
            self.assertEqual(EndReason.IDLE, wire.channel.reason)
            self.assertEqual([4408], [close.code for close in wire.close_frames()])

        run(work)

    def test_after_the_end_nothing_passes(self):
        async def work():
            wire = Wire(guest_room=0)
            wire.send(b'before')
            wire.guest.sends(b'before')
            wire.channel.end('revoked')
            wire.send(b'after')
            wire.guest.sends(b'after')
            self.assertEqual(b'before', wire.everything())
            self.assertEqual(b'before', bytes(wire.guest.received))

        run(work)

    def test_nor_what_a_transport_had_read_before(self):
        """As asyncio's TLS may hand on after it was closed."""

        async def work():
            wire = Wire()
            wire.channel.end('revoked')
            before = bytes(wire.user.received)
            wire.guest.get_protocol().get_buffer(-1)[:5] = b'after'
            wire.guest.get_protocol().buffer_updated(5)
            self.assertEqual(before, bytes(wire.user.received))
            self.assertEqual(0, wire.channel.bytes_out)

        run(work)

    def test_the_console_is_free_at_once_whatever_the_user_does(self):
        async def work():
            wire = Wire(user_room=0)
            wire.channel.end('revoked')
            await settle()
            self.assertEqual([wire.channel], wire.released)

        run(work)

    def test_one_who_does_not_answer_is_left_alone_after_a_while(self):
        async def work():
            wire = Wire()
            wire.channel.end('revoked')
            await asyncio.sleep(CLOSE_TIMEOUT - 0.1)
            self.assertEqual(0, wire.closed)
            await asyncio.sleep(0.2)
            self.assert_over(wire)

        run(work)

    def test_so_is_one_who_reads_nothing(self):
        async def work():
            wire = Wire(user_room=0)
            wire.guest.sends(b'x' * 100000)
            wire.channel.end('revoked')
            await asyncio.sleep(CLOSE_TIMEOUT + 0.1)
            self.assert_over(wire)

        run(work)

    def test_one_who_still_reads_is_waited_for(self):
        async def work():
            wire = Wire(user_room=0)
            wire.guest.sends(b'x' * 100000)
            wire.channel.end('revoked')
            for _ in range(10):
                wire.user.takes(10000)
                await asyncio.sleep(CLOSE_TIMEOUT - 0.1)
                self.assertEqual(([wire.channel], 0), (wire.released, wire.closed))
            wire.user.takes()
            self.assertEqual(b'x' * 100000, wire.hear())
            self.assertEqual([4403], [close.code for close in wire.close_frames()])
            await settle()
            self.assert_over(wire)

        run(work)

    def test_a_console_is_not_held_by_a_user_who_reads_slowly(self):
        """What the guest does not take is one thing, what the user takes another."""

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

    def test_without_a_lease_it_is_not_held_at_all(self):
        """A tenth of the lease is left, which may be less than a close may take (invariant 4)."""

        async def work():
            wire = Wire(guest_room=0)
            wire.send(b'x')
            wire.channel.end(EndReason.LEASE_LOST)
            await settle()
            self.assertEqual([wire.channel], wire.released)

        run(work)

    def test_nor_if_it_has_been_ending_for_another_reason(self):
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
                self.assert_over(wire)

        run(work)

    def test_input_that_was_taken_on_is_still_delivered(self):
        async def work():
            wire = Wire(guest_room=0)
            wire.send(b'shutdown -h now\n')
            wire.client.send_close()
            wire.flush()
            wire.guest.takes()
            await settle()
            self.assertEqual(b'shutdown -h now\n', bytes(wire.guest.received))
            self.assert_over(wire)

        run(work)

    def test_no_timer_is_left(self):
        async def work():
            wire = Wire()
            wire.channel.end('revoked')
            wire.hear()
            await settle()
            self.assert_over(wire)
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
                    'user hears',
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
    def test_it_ends_once_however_it_ends(self, steps, user_room, guest_room, greets):
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
                'user hears': wire.hear,
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
            self.assert_over(wire)
            self.assertIsNotNone(wire.channel.reason)

        run(work)


class ProtocolTest(RelayCase):
    async def broken(self, data, **values):
        wire = Wire(**values)
        wire.send(b'before')
        wire.user.sends(data)
        codes = [close.code for close in wire.close_frames()]
        await settle()
        self.assert_over(wire)
        self.assertEqual(b'before', bytes(wire.guest.received)[:6])
        return codes, wire

    def test_what_breaks_the_protocol_ends_it(self):
        async def work():
            for data in (
                masked(Opcode.BINARY, b'x', mask=False),
                b'\xc2\x80\0\0\0\0',  # a reserved bit
                b'\x83\x80\0\0\0\0',  # an unknown opcode
                b'\x09\x80\0\0\0\0',  # a ping in fragments
                b'\x89\xfe\0\x7e\0\0\0\0' + b'x' * 126,  # a ping that is too long
                masked(Opcode.CONT, b'x'),
                masked(Opcode.BINARY, b'x', fin=False) + masked(Opcode.BINARY, b'y'),
                masked(Opcode.CLOSE, b'x'),
                masked(Opcode.CLOSE, struct.pack('!H', 1005)),
            ):
                codes, wire = await self.broken(data)
                self.assertEqual([1002], codes, data)
                self.assertEqual(EndReason.PROTOCOL_ERROR, wire.channel.reason)

        run(work)

    def test_what_comes_behind_it_is_not_read(self):
        async def work():
            _, wire = await self.broken(masked(Opcode.CONT, b'x') + masked(Opcode.BINARY, b'after'))
            self.assertEqual(b'before', bytes(wire.guest.received))

        run(work)

    def test_a_message_that_is_too_big_ends_it_by_its_header(self):
        async def work():
            for data in (
                b'\x82\xfe\x03\xe9\0\0\0\0',  # 1001
                b'\x82\xff' + struct.pack('!Q', 2**63 - 1) + b'\0\0\0\0',
                masked(Opcode.BINARY, b'x' * 600, fin=False) + masked(Opcode.CONT, b'x' * 401, fin=False),
            ):
                codes, wire = await self.broken(data, max_size=1000)
                self.assertEqual([1009], codes)
                self.assertEqual(EndReason.MESSAGE_TOO_BIG, wire.channel.reason)

        run(work)

    def test_one_as_big_as_it_may_be_passes(self):
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
            wire.hear()
            self.assertEqual([Frame(Opcode.PONG, b'are you there')], wire.control)
            self.assertEqual(b'', bytes(wire.guest.received))

        run(work)

    def test_the_user_is_asked_and_answers(self):
        async def work():
            loop = asyncio.get_running_loop()
            wire = Wire()
            await asyncio.sleep(10)
            wire.channel.ping()
            asked = loop.time()
            self.assertEqual(asked, wire.channel.pinged)
            await asyncio.sleep(1)
            wire.hear()
            self.assertEqual([Opcode.PING], [frame.opcode for frame in wire.control])
            self.assertIsNone(wire.channel.pinged)
            self.assertEqual(loop.time(), wire.channel.last_heard)
            self.assertEqual(wire.channel.began, wire.channel.last_input, 'a pong is no input')

        run(work)

    def test_one_who_has_something_to_read_is_not_asked(self):
        async def work():
            wire = Wire(user_room=0)
            wire.guest.sends(b'x')
            before = wire.user.get_write_buffer_size()
            wire.channel.ping()
            self.assertIsNone(wire.channel.pinged)
            self.assertEqual(before, wire.user.get_write_buffer_size())

        run(work)

    def test_nor_is_one_who_was_told_to_end(self):
        async def work():
            wire = Wire()
            wire.channel.end('revoked')
            wire.channel.ping()
            self.assertIsNone(wire.channel.pinged)

        run(work)

    def test_a_user_who_reads_is_alive(self):
        async def work():
            wire = Wire(user_room=0)
            wire.guest.sends(b'x' * 1000)
            await asyncio.sleep(10)
            wire.user.takes()
            self.assertEqual(asyncio.get_running_loop().time(), wire.channel.last_heard)

        run(work)

    def test_input_is_what_the_user_sends(self):
        async def work():
            wire = Wire()
            await asyncio.sleep(10)
            wire.send(b'x')
            self.assertEqual(asyncio.get_running_loop().time(), wire.channel.last_input)

        run(work)

    def test_an_empty_message_is_no_input(self):
        """Else a page could keep a session from being idle without a byte."""

        async def work():
            wire = Wire()
            await asyncio.sleep(10)
            wire.send(b'')
            self.assertTrue(wire.channel.last_input <= asyncio.get_running_loop().time() - 10)

        run(work)


class GreetingTest(RelayCase):
    def test_the_greeting_comes_before_what_the_guest_says(self):
        async def work():
            wire = Wire(
                greeting=UserHandshake(), input_filter=ClientMessages(view_only=False), rest=b'ServerInit'
            )
            self.assertFalse(wire.channel.greeted)
            self.assertFalse(wire.guest.reading)
            wire.guest.sends(b' and more')
            self.assertEqual(V38, wire.hear())
            wire.send(V38)
            self.assertEqual(V38 + b'\1\1', wire.hear())
            self.assertEqual(b'', bytes(wire.guest.received))
            wire.send(b'\1')
            self.assertTrue(wire.channel.greeted)
            wire.guest.pump()
            self.assertEqual(V38 + b'\1\1' + b'\0\0\0\0' + b'ServerInit and more', wire.hear())
            self.assertEqual(b'', bytes(wire.guest.received), "the greeting is ours, not the guest's")
            wire.send(b'\1')
            self.assertEqual(b'\1', bytes(wire.guest.received))

        run(work)

    @unhurried
    @given(peers.cuts, st.booleans())
    def test_in_any_pieces(self, cuts, early):
        """What follows the greeting in the same message is the guest's."""

        async def work():
            said = V38 + b'\1' + b'\1' + b'\4\1\0\0\0\0\0\x41'
            pieces = [masked(Opcode.BINARY, piece) for piece in peers.pieces(said, cuts)]
            first = pieces.pop(0) if early else b''
            wire = Wire(greeting=UserHandshake(), input_filter=ClientMessages(view_only=False), early=first)
            for piece in pieces:
                wire.user.sends(piece)
            self.assertTrue(wire.channel.greeted)
            self.assertTrue(wire.guest.reading)
            self.assertEqual(said[13:], bytes(wire.guest.received))
            self.assertEqual(V38 + b'\1\1' + b'\0\0\0\0', wire.hear())

        run(work)

    def test_one_who_does_not_know_how_is_told_so(self):
        async def work():
            for said, farewell in (
                (b'RFB 003.003\n', b'Only version 3.8 of the protocol is supported.'),
                (V38 + b'\2', b'Only the security type None is offered.'),
                (b'GET / HTTP/1', b''),
            ):
                wire = Wire(greeting=UserHandshake())
                wire.send(said)
                self.assertTrue(wire.hear().endswith(farewell))
                self.assertEqual([1002], [close.code for close in wire.close_frames()])
                await settle()
                self.assertEqual(EndReason.PROTOCOL_ERROR, wire.channel.reason)
                self.assertEqual(b'', bytes(wire.guest.received))
                self.assert_over(wire)

        run(work)

    def test_a_viewer_does_nothing(self):
        async def work():
            wire = Wire(input_filter=ClientMessages(view_only=True))
            key, ask = b'\4\1\0\0\0\0\0\x41', b'\3\1\0\0\0\0\4\0\3\0'
            wire.send(b'\0')  # ClientInit: alone, please
            wire.send(key + ask + key)
            wire.send(key)
            self.assertEqual(b'\1' + ask, bytes(wire.guest.received))
            self.assertEqual(1 + 3 * len(key) + len(ask), wire.channel.bytes_in)

        run(work)

    def test_input_that_cannot_be_filtered_ends_it(self):
        async def work():
            wire = Wire(input_filter=ClientMessages(view_only=True))
            wire.send(b'\1')
            wire.send(b'\xc8' * 100)
            self.assertEqual([1002], [close.code for close in wire.close_frames()])
            await settle()
            self.assertEqual(b'\1', bytes(wire.guest.received))
            self.assert_over(wire)

        run(work)

    def test_what_only_the_display_needs_is_no_input(self):
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
