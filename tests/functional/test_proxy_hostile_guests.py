# SPDX-License-Identifier: Apache-2.0
"""Guests that refuse, stall, disconnect or stream endlessly; users and guests that do not read."""

import asyncio
import contextlib
import pathlib
import select
import socket
import struct

from consoled.proxy.flow import WINDOW
from consoled.testing.guests.tcp_guests import EchoGuest, ResetGuest, SilentGuest, StreamGuest, pattern
from tests.functional import base
from tests.functional.proxy_base import ScriptedGuest
from tests.functional.raw_user import MIB, PATIENCE, PING, PONG, TEXT, close_frame, frame, handshake

_FLAT = 8 * MIB  # limit for the growth of the worker's memory
_VERSION = b'RFB 003.008\n'


async def _notice_a_reset(reader, writer):
    """Read nothing, and end when the connection is reset, as QEMU does for a guest that does not read."""
    writer.transport.pause_reading()
    broken = select.poll()
    broken.register(writer.get_extra_info('socket').fileno(), 0)
    while not broken.poll(0):
        await asyncio.sleep(0.01)
    writer.transport.abort()


class Flow:
    """Users and guests that do not read."""

    def test_invariant_9_a_user_who_never_reads_while_the_guest_streams(self):
        guest = self.add(StreamGuest(total=2**40))
        before = self.ended_as('user_lost')
        with self.memory_within(_FLAT):
            self.opened(guest, rcvbuf=4096)
            self.wait_until(lambda: self.ended_as('user_lost') > before, 'the end of the session')
        self.assertLess(guest.sent, 32 * MIB)  # the kernel's buffers and the proxy's
        self.assert_slot_free(guest)

    def test_invariant_9_a_user_that_cannot_stop_reading_gets_what_it_acknowledges(self):
        guest = self.add(StreamGuest(total=2**40))
        offered = {'Sec_WebSocket_Protocol': 'binary, consoled.flow'}
        user, answer = self.ask(self.grant(guest), **offered)
        self.assertEqual('consoled.flow', answer.headers['sec-websocket-protocol'])
        data = b''
        while len(data) < MIB:
            data += user.message(1)
            user.send(frame(b'%d' % len(data), TEXT))
        data += user.message(WINDOW)
        data += self.before_pong(user)
        self.assertEqual([b''] * 5, [self.before_pong(user) for _ in range(5)])
        self.assertLess(guest.sent - len(data), 3 * MIB)  # the kernel's buffers
        user.send(frame(b'%d' % len(data), TEXT))
        data += user.message(WINDOW)
        self.assertEqual(pattern(0, len(data)), data)
        user.leave()
        self.assert_slot_free(guest)

    def before_pong(self, user):
        """Return what the guest has sent that comes before the answer to a ping."""
        user.send(frame(b'', PING))
        data = b''
        while (received := user.frame())[0] != PONG:
            data += received[1]
        return data

    def test_invariant_9_a_guest_that_never_reads_while_the_user_sends(self):
        guest = self.add(SilentGuest())
        before = self.ended_as('guest_stalled')
        with self.memory_within(_FLAT):
            user = self.opened(guest)
            self.assertLess(user.flood(frame(b'x' * 65000), seconds=0.3), 32 * MIB)
            self.assertEqual(1011, user.close_code())
            user.leave()
            self.assert_nothing_left()
        self.assertEqual(before + 1, self.ended_as('guest_stalled'))
        self.assert_slot_free(guest)

    def test_invariant_9_neither_reads_and_both_send(self):
        guest = self.add(ScriptedGuest(_pour))
        with self.memory_within(_FLAT):
            user = self.opened(guest, rcvbuf=4096)
            user.flood(frame(b'x' * 65000), seconds=0.3)
            self.assert_nothing_left()
        self.assert_slot_free(guest)

    def test_a_guest_that_does_not_read_while_the_user_reads(self):
        """The user gets a close code before the proxy gives up the guest's connection."""
        guest = self.add(ScriptedGuest(_pour))
        user = self.opened(guest, rcvbuf=4096)
        rest = user.flood(frame(b'x' * 65000), seconds=0.3) % len(frame(b'x' * 65000))
        user.send(frame(b'x' * 65000)[rest:] + close_frame())  # read after the session has ended
        self.wait_until(lambda: self.unread_of(user) == 0, 'the end of what was sent')
        self.assertEqual(1011, user.close_code())
        user.ended()
        user.leave()
        self.assert_slot_free(guest)

    def unread_of(self, user):
        """Return how many bytes from this user are in the proxy's receive queue."""
        ends = [f'{port:04X}' for port in (self.daemon.port, user.sock.getsockname()[1])]
        for line in pathlib.Path('/proc/net/tcp').read_text().splitlines()[1:]:
            local, remote, _, queues = line.split()[1:5]
            if [end.rpartition(':')[2] for end in (local, remote)] == ends:
                return int(queues.rpartition(':')[2], 16)
        return None


class Ports:
    """Serial ports that take one connection at a time, and do not notice its end while nobody reads them."""

    def taken(self, guest):
        """Return a user whose five keys the guest has not read."""
        user = self.opened(guest)
        user.send(frame(b'login'))
        self.wait_until(lambda: guest.clients == 1, 'the connection')
        return user

    def assert_free(self, guest):
        self.assert_nothing_left()
        self.wait_until(lambda: guest.clients == 0, 'the free port')

    def test_the_port_of_a_guest_that_does_not_read_is_free_when_its_user_has_left(self):
        guest = self.add(ScriptedGuest(_notice_a_reset, clients=1))
        for way in ('leave', 'reset', 'eof'):
            with self.subTest(way):
                getattr(self.taken(guest), way)()
                self.assert_free(guest)

    def test_the_port_of_a_guest_that_does_not_read_is_free_when_its_user_was_cut(self):
        guest = self.add(ScriptedGuest(_notice_a_reset, clients=1))
        user = self.taken(guest)
        self.api.revoke(self.context, 'left_the_project', instance_uuid=self.instance)
        self.assertEqual(4403, user.close_code())
        user.leave()
        self.assert_free(guest)

    def test_the_port_of_a_guest_that_does_not_read_is_free_when_the_proxy_was_killed(self):
        guest = self.add(ScriptedGuest(_notice_a_reset, clients=1))
        self.use_another()
        self.taken(guest)
        self.daemon.kill()
        self.wait_until(lambda: guest.clients == 0, 'the free port')
        self.daemon.start()  # a new life of the proxy, which ends the session of the earlier one
        self.daemon.wait_ready()
        [self.worker] = self.daemon.worker_pids()

    def test_what_a_user_typed_before_leaving_is_delivered(self):
        guest = self.add(StreamGuest(total=0))
        for way in ('leave', 'reset', 'eof'):
            user = self.opened(guest)
            before = len(guest.uploads)
            user.send(frame(pattern(0, 60000)) + close_frame())
            self.assertEqual(1000, user.close_code())
            getattr(user, way)()
            self.assert_nothing_left()
            upload = guest.uploads[before - 1]
            self.assertEqual((60000, True), (upload.received, upload.correct))


class Guests:
    """Guests that cannot be reached, or that disconnect at any stage."""

    def status_of(self, guest, **console):
        """Request a console that fails; return the status, and assert that nothing is left."""
        user, answer = self.ask(self.grant(guest, **console))
        user.leave()
        self.assertNotIn(str(guest.port).encode(), answer.body)
        self.assert_nothing_left()
        return answer.status

    # connecting

    def test_a_closed_port(self):
        closed = EchoGuest(port=socket_port())
        self.assertEqual(502, self.status_of(closed))

    def test_a_port_that_does_not_answer(self):
        with socket.create_server(('127.0.0.1', 0), backlog=0) as full, contextlib.ExitStack() as waiting:
            guest = EchoGuest(port=full.getsockname()[1])
            for _ in range(3):  # Linux accepts one more than the backlog, and drops further ones
                waiting.enter_context(sock := socket.socket())
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            self.assertEqual(504, self.status_of(guest))

    def test_a_guest_that_is_silent_in_the_handshake(self):
        guest = self.add(SilentGuest())
        path, secure = {'internal_access_path': 'x'}, {'use_tls': 'true'}
        users = []
        for console in ({}, {'options': path}, {'console_type': 'serial', 'options': secure}):
            self.instance = base.new_uuid()
            target = self.grant(guest, **{'console_type': 'novnc', **console})
            users.append(self.user().send(handshake(target)))
        self.assertEqual([504] * 3, [user.answer().status for user in users])
        for user in users:
            user.leave()
        self.assert_nothing_left()

    def test_a_guest_that_disconnects_in_the_handshake(self):
        for data in (
            b'',
            b'RFB',
            _VERSION,
            _VERSION + b'\2\1',
            _VERSION + b'\1\1\0\0',
            b'HTTP/1.1 200 OK\r\n',
        ):
            for end in (_leave, _reset):
                with self.subTest(data=data, end=end.__name__):
                    guest = self.add(ScriptedGuest(_then(data, end)))
                    self.assertEqual(502, self.status_of(guest, console_type='novnc'))
                    self.assertEqual(502, self.status_of(guest, options={'use_tls': 'true'}))

    def test_a_guest_that_sends_garbage_in_the_handshake(self):
        for data in (b'\0' * 100000, b'SSH-2.0-OpenSSH_9.2\r\n', _VERSION + b'\xff' + b'\7' * 255 + bytes(8)):
            with self.subTest(data[:20]):
                guest = self.add(ScriptedGuest(_then(data, _stay)))
                self.assertEqual(502, self.status_of(guest, console_type='novnc'))

    def test_invariant_9_a_guest_with_an_endless_handshake(self):
        for data in (b'RFB 003.008\n\1\1' + bytes(4), b'x', b'HTTP/1.1 200 OK\r\nX: '):
            path = {'internal_access_path': 'x'} if data.startswith(b'HTTP') else {}
            with self.subTest(data), self.memory_within(_FLAT):
                guest = self.add(ScriptedGuest(_then(data, _endless)))
                user, answer = self.ask(self.grant(guest, console_type='novnc', options=path))
                self.assertIn(answer.status, (101, 502))
                user.leave()
                self.assert_nothing_left()

    def test_a_guest_that_disconnects_at_once(self):
        for end in (_leave, _reset):
            for data in (b'', b'goodbye', b'x' * 100000):
                with self.subTest(data=data[:10], end=end.__name__):
                    guest = self.add(ScriptedGuest(_then(data, end)))
                    target = self.grant(guest)
                    for _ in range(5):
                        user, answer = self.ask(target)
                        self.assertIn(answer.status, (101, 502))
                        if answer.status == 101:
                            self.assertIn(user.close_code(), (1011, None))
                        user.leave()
                        self.assert_nothing_left()

    def test_stopping_the_proxy_does_not_wait_for_stalled_connections(self):
        self.use_another()
        streaming, silent, stalling = StreamGuest(total=2**40), SilentGuest(), SilentGuest()
        for guest in (streaming, silent, stalling):
            self.add(guest)
        self.opened(streaming, rcvbuf=4096)
        self.opened(silent).flood(frame(b'x' * 65000), seconds=0.3)
        self.user().send(b'GET')
        self.user().send(handshake(self.grant(stalling, console_type='novnc')))
        self.wait_until(lambda: stalling.connections == 1, 'the connection')
        self.assertEqual(0, self.daemon.stop(PATIENCE))
        self.assertEqual(0, self.count('console_session'))

    # a session

    def test_a_guest_that_disconnects_after_its_last_output(self):
        guest = self.add(ScriptedGuest(_then(b'x' * 3000000, _leave)))
        for _ in range(3):
            with self.opened(guest) as user:
                self.assertEqual(3000000, len(user.message(3000000)))
                self.assertEqual(1011, user.close_code())
            self.assert_nothing_left()

    def test_a_guest_that_resets_during_a_session(self):
        guest = self.add(ResetGuest(after=10))
        before = self.ended_as('guest_closed')
        user = self.opened(guest)
        user.send(frame(b'x' * 10))
        self.assertEqual(1011, user.close_code())
        self.assert_nothing_left()
        self.assertEqual(before + 1, self.ended_as('guest_closed'))
        self.assert_slot_free(guest)

    def test_a_guest_that_resets_while_it_streams(self):
        guest = self.add(StreamGuest(total=2**40))
        user = self.opened(guest)
        self.assertEqual(pattern(0, 100000), user.message(100000)[:100000])
        self.guests.disconnect(guest)
        self.assertIn(user.close_code(), (1011, None))
        self.assert_slot_free(guest)

    def test_a_guest_that_resets_while_its_user_leaves(self):
        guest = self.add(ResetGuest(after=1))
        target = self.grant(guest)
        for _ in range(10):
            user = self.opened(target=target)
            user.send(frame(b'x') + close_frame())
            self.assertIn(user.close_code(), (1000, 1011, None))
            user.leave()
            self.assert_nothing_left()

    def test_a_user_who_ignores_that_the_guest_has_closed(self):
        guest = self.add(ScriptedGuest(_then(b'goodbye', _leave)))
        user = self.opened(guest)  # neither reads nor writes
        self.assert_nothing_left()
        self.assert_slot_free(guest)
        user.leave()


def socket_port():
    """Return a port that nobody listens on."""
    with socket.create_server(('127.0.0.1', 0)) as sock:
        return sock.getsockname()[1]


def _then(data, end):
    """Return the script of a guest that sends ``data`` at once and then runs ``end``."""

    async def script(reader, writer):
        writer.write(data)
        await writer.drain()
        await end(reader, writer)

    return script


async def _leave(reader, writer):
    """A guest that closes its console."""


async def _reset(reader, writer):
    sock = writer.get_extra_info('socket')
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    writer.transport.abort()


async def _stay(reader, writer):
    await reader.read()


async def _endless(reader, writer):
    while True:
        writer.write(b'x' * 65536)
        await writer.drain()


async def _pour(reader, writer):
    writer.transport.pause_reading()
    await _endless(reader, writer)
