# SPDX-License-Identifier: Apache-2.0
"""Sessions of each console type: tunnels, SPICE's several websockets, VNC, and time limits."""

import asyncio
import json
import struct

import sqlalchemy as sa
import websockets.exceptions

from consoled.testing.guests.base import FakeGuest
from consoled.testing.guests.vnc_guest import VncGuest
from tests.functional import base, proxy_base, test_proxy
from tests.functional.raw_user import close_frame, frame, handshake

ELSEWHERE = '127.0.0.2'  # another user's address
OK = b'HTTP/1.1 200 Connected\r\nVia: 1.1 here\r\n\r\n'
REFUSED = b'HTTP/1.1 403 Forbidden\r\n\r\n'
PATH = '/ticket/6a?vm=1&x=%2F..%2F#~'

KEY = struct.pack('>BBxxI', 4, 1, 0x61)
POINTER = struct.pack('>BBHH', 5, 1, 20, 30)
CUT_TEXT = struct.pack('>BxxxI', 6, 5) + b'paste'
UPDATE_REQUEST = struct.pack('>BBHHHH', 3, 0, 0, 0, 1, 1)  # for one pixel
UPDATE_SIZE = 4 + 12 + 4  # bytes: header, rectangle, pixel


class TunnelGuest(FakeGuest):
    """An echo guest behind HTTP CONNECT.

    :param answer: the response to CONNECT
    :param held: send no response before ``respond`` is called
    :ivar asked: the heads of the requests
    """

    def __init__(self, answer=OK, *, held=False):
        super().__init__()
        self.answer = answer
        self.held = held
        self.asked = []
        self.waiting = []

    async def respond(self, number, answer):
        """Respond to the held request with this number."""
        self.waiting[number].set_result(answer)

    async def serve(self, reader, writer):
        self.asked.append(await reader.readuntil(b'\r\n\r\n'))
        if self.held:
            self.waiting.append(asyncio.get_running_loop().create_future())
            writer.write(await self.waiting[-1])
        else:
            writer.write(self.answer)
        while data := await reader.read(65536):
            writer.write(data)


class TunnelVncGuest(VncGuest):
    """A VNC guest behind HTTP CONNECT."""

    async def serve(self, reader, writer):
        await reader.readuntil(b'\r\n\r\n')
        writer.write(OK)
        await super().serve(reader, writer)


class TickingGuest(FakeGuest):
    """Sends output repeatedly, whatever it receives."""

    async def serve(self, reader, writer):
        leaving = asyncio.create_task(reader.read(-1))
        while not leaving.done():
            writer.write(b'tick')
            await asyncio.wait([leaving], timeout=0.1)


class AskingGuest(FakeGuest):
    """Asks its terminal for the position of the cursor, and asks again after each answer."""

    async def serve(self, reader, writer):
        writer.write(b'\x1b[6n')
        while await reader.read(65536):
            await asyncio.sleep(0.1)
            writer.write(b'\x1b[6n')


class Viewer:
    """A small RFB client (RFC 6143) on a user's websocket. The constructor completes the handshake."""

    def __init__(self, user):
        self._user = user
        self._held = b''
        self.received = [self.read(12)]
        for message, size in ((b'RFB 003.008\n', 2), (b'\1', 4), (b'\1', 24)):
            self.send(message)
            self.received.append(self.read(size))
        width, height, *_, length = struct.unpack('>HH16sI', self.received[3])
        self.desktop = width, height, self.read(length)

    def send(self, data):
        self._user.send(frame(data))

    def read(self, size):
        while len(self._held) < size:
            self._held += self._user.message(1)
        data, self._held = self._held[:size], self._held[size:]
        return data

    def sync(self, *messages):
        """Send messages and request a pixel: when it arrives, the guest has processed the messages."""
        self.send(b''.join((*messages, UPDATE_REQUEST)))
        return self.read(UPDATE_SIZE)


class _Tunnels:
    def tunnel_guest(self, **how):
        return self.add(TunnelGuest(**how))

    def tunnel_to(self, guest, path=PATH, **changes):
        """Authorize the console of a tunnel guest, and return the path of its websocket."""
        return self.grant(guest, options={'internal_access_path': path}, **changes)

    def test_connect_uses_the_internal_access_path_unchanged(self):
        for console_type in ('webmks', 'serial'):
            with self.subTest(console_type):
                guest = self.tunnel_guest()
                user = self.opened(target=self.tunnel_to(guest, console_type=console_type))
                self.assert_echo(user)
                request = f'CONNECT {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{guest.port}\r\n\r\n'
                self.assertEqual([request.encode()], guest.asked)

    def test_data_right_after_the_response_to_connect_reaches_the_user(self):
        guest = self.tunnel_guest(answer=b'HTTP/1.0 204 No Content\r\n\r\nwelcome')
        user = self.opened(target=self.tunnel_to(guest))
        self.assertEqual(b'welcome', user.message(7))
        self.assert_echo(user)

    def test_a_screen_through_a_tunnel(self):
        guest = self.add(TunnelVncGuest())
        viewer = Viewer(self.opened(target=self.tunnel_to(guest, console_type='novnc')))
        viewer.sync(KEY)
        self.assertEqual([0x61], guest.keys)

    def test_a_refused_tunnel_is_502_and_only_the_log_has_the_reason(self):
        for reply, reason in (
            (b'HTTP/1.1 403 Secret\r\n\r\n', 'tunnel_refused: 403'),
            (b'HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n', 'tunnel_refused: 302'),
            (b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n', 'tunnel_refused: 100'),
            (b'SSH-2.0-OpenSSH\r\n\r\n', 'tunnel_reply: not HTTP/1: SSH'),
            (b'HTTP/1.1 200 ' + b'x' * 9000, 'tunnel_reply: header of more than'),
        ):
            with self.subTest(reason):
                guest = self.tunnel_guest(answer=reply)
                user, answer = self.ask(self.tunnel_to(guest), Accept='application/json')
                self.assertEqual(502, answer.status)
                body = {'code': 'target_failed', 'reason': "The guest's console cannot be reached."}
                self.assertEqual(body | {'retryable': True}, json.loads(answer.body))
                line = f'console 127.0.0.1:{guest.port}: {reason}'
                self.wait_until(lambda line=line: line in self.daemon.log(), f'"{line}" in the log')
                user.leave()
                self.assert_nothing_left()


class _Spice:
    def sessions(self):
        return self.count('console_session')

    def test_websockets_of_one_spice_client_are_one_session(self):
        self.set(spice__max_sessions=1)
        target = self.grant(console_type='spice-html5')
        first, second = self.opened(target=target), self.opened(target=target)
        self.assert_echo(first, b'main')
        self.assert_echo(second, b'display')
        self.assertEqual(1, self.sessions())
        self.assertEqual(2, self.guest.connections)
        first.leave()
        self.wait_until(lambda: self.guest.clients == 1, 'the end of the first')
        self.assert_echo(second, b'display')
        other, refused = self.ask(target, self.user(source=ELSEWHERE))
        self.assertEqual(409, refused.status)
        other.leave()
        second.send(close_frame())
        self.assertEqual(1000, second.close_code())
        second.leave()
        self.assert_nothing_left()
        self.assert_echo(self.opened(target=target, source=ELSEWHERE))

    def test_the_same_token_from_another_address_is_another_session(self):
        target = self.grant(console_type='spice-html5')
        here, there = self.opened(target=target), self.opened(target=target, source=ELSEWHERE)
        addresses = self.rows('SELECT client_address FROM console_session ORDER BY client_address')
        self.assertEqual([('127.0.0.1',), (ELSEWHERE,)], addresses)
        here.leave()
        self.wait_until(lambda: self.sessions() == 1, 'the end of the first')
        self.assert_echo(there)

    def test_invariant_9_the_channels_of_a_spice_session_are_limited(self):
        target = self.grant(console_type='spice-html5')
        users = [self.opened(target=target) for _ in range(3)]
        _, answer = self.ask(target, Accept='application/json')
        self.assertEqual((429, 'too_many_sessions'), (answer.status, json.loads(answer.body)['code']))
        self.assertIn('retry-after', answer.headers)
        for user in users:
            self.assert_echo(user)
        self.assertEqual((1, 3), (self.sessions(), self.guest.connections))
        users.pop().leave()
        self.wait_until(lambda: self.guest.clients == 2, 'the end of the last')
        users.append(self.opened(target=target))
        for user in users:
            self.assert_echo(user)

    def test_a_page_of_another_origin_cannot_join_a_spice_session(self):
        target = self.grant(console_type='spice-html5')
        user = self.opened(target=target)
        _, refused = self.ask(target, Origin='https://evil.example.org')
        self.assertEqual(403, refused.status)
        _, joined = self.ask(target, Origin='https://console.example.org')
        self.assertEqual(101, joined.status)
        self.assert_echo(user)
        self.assertEqual(2, self.guest.connections)

    def long_ago(self, column):
        """Set a moment of all tokens to long ago."""
        change = sa.text(f"UPDATE console_auth_token SET {column} = '2020-01-01 00:00:00.000000'")
        self.cell.db.single(lambda conn: conn.execute(change))

    def test_an_expired_token_joins_no_spice_session(self):
        target = self.grant(console_type='spice-html5')
        user, joined = self.opened(target=target), self.opened(target=target)
        self.long_ago('expires')
        self.assertEqual(401, self.ask(target)[1].status)
        self.assert_echo(user)
        self.assert_echo(joined)
        self.assertEqual(1, self.sessions())

    def test_a_spent_token_joins_its_spice_session_for_a_short_time_only(self):
        self.set(consoleauth__single_use=True)
        target = self.grant(console_type='spice-html5')
        user, joined = self.opened(target=target), self.opened(target=target)
        self.long_ago('used_at')
        self.assertEqual(401, self.ask(target)[1].status)
        self.assert_echo(user)
        self.assert_echo(joined)

    def test_all_websockets_of_a_spice_session_are_cut_together(self):
        target = self.grant(console_type='spice-html5')
        users = [self.opened(target=target) for _ in range(2)]
        self.api.revoke(self.context, 'left_the_project', instance_uuid=self.instance)
        self.assertEqual([4403, 4403], [user.close_code() for user in users])

    def held(self, guest, target):
        """Return a user whose websocket is waiting for the guest's response to CONNECT."""
        before = len(guest.waiting)
        user = self.user().send(handshake(target))
        self.wait_until(lambda: len(guest.waiting) == before + 1, 'the connection')
        return user

    def test_a_reloaded_spice_page_keeps_its_session(self):
        """The new page's first websocket is already being opened when the old page's last one ends."""
        guest = self.tunnel_guest()
        target = self.tunnel_to(guest, console_type='spice-html5')
        old = self.opened(target=target)
        guest.held = True
        new = self.held(guest, target)
        old.leave()
        self.wait_until(lambda: guest.clients == 1, 'the end of the old page')
        self.guests.host.call(guest.respond(0, OK))
        self.assertEqual(101, new.answer().status)
        self.assert_echo(new)
        self.assertEqual(1, self.sessions())

    def test_a_spice_websocket_that_fails_does_not_take_another_with_it(self):
        guest = self.tunnel_guest(held=True)
        target = self.tunnel_to(guest, console_type='spice-html5')
        first, second = self.held(guest, target), self.held(guest, target)
        self.guests.host.call(guest.respond(1, REFUSED))
        self.assertEqual(502, second.answer().status)
        self.guests.host.call(guest.respond(0, OK))
        self.assertEqual(101, first.answer().status)
        self.assert_echo(first)

    def test_a_spice_session_whose_websockets_all_fail_ends(self):
        self.set(spice__max_sessions=1)
        guest = self.tunnel_guest(held=True)
        target = self.tunnel_to(guest, console_type='spice-html5')
        users = [self.held(guest, target) for _ in range(2)]
        for number, user in enumerate(users):
            self.guests.host.call(guest.respond(number, REFUSED))
            self.assertEqual(502, user.answer().status)
        self.wait_until(lambda: self.sessions() == 0, 'the end of the session')
        guest.held = False
        self.assert_echo(self.opened(target=target, source=ELSEWHERE))


class _Screens:
    def test_a_screen_through_vnc(self):
        guest = self.add(VncGuest())
        viewer = Viewer(self.opened(target=self.grant(guest, console_type='novnc')))
        self.assertEqual([b'RFB 003.008\n', b'\1\1', b'\0\0\0\0'], viewer.received[:3])
        self.assertEqual((640, 400, b'desktop'), viewer.desktop)
        viewer.sync(KEY, POINTER, CUT_TEXT)
        self.assertEqual(([0x61], (20, 30, 1), 'paste'), (guest.keys, guest.pointer, guest.cut_text))

    def test_a_view_only_user_sends_no_input(self):
        guest = self.add(VncGuest())
        target = self.grant(guest, console_type='novnc', options={'mode': 'view'})
        viewer = Viewer(self.opened(target=target))
        self.assertEqual((640, 400, b'desktop'), viewer.desktop)
        viewer.sync(KEY, POINTER, CUT_TEXT)
        viewer.sync(*(bytes([byte]) for byte in KEY))
        self.assertEqual(([], None, None), (guest.keys, guest.pointer, guest.cut_text))
        self.instance = base.new_uuid()  # another instance with the same console, without that option
        other = Viewer(self.opened(target=self.grant(guest, console_type='novnc')))
        other.sync(KEY)
        viewer.sync(KEY)
        self.assertEqual([0x61], guest.keys)

    def test_a_client_that_does_not_speak_rfb(self):
        guest = self.add(VncGuest())
        user = self.opened(target=self.grant(guest, console_type='novnc'))
        user.send(frame(b'SSH-2.0-OpenSSH\r\n'))
        self.assertEqual(1002, user.close_code())
        user.leave()
        self.assert_nothing_left()
        self.assertEqual(0, guest.viewers)


class _Time:
    def test_a_session_ends_with_its_token_when_configured(self):
        self.set(consoleauth__enforce_session_timeout=True)
        ending = self.opened(target=self.grant(ttl=2))
        self.set(consoleauth__enforce_session_timeout=False)
        self.instance = base.new_uuid()
        staying = self.opened(target=self.grant(self.add(TunnelGuest()), ttl=2))
        self.assert_echo(ending)
        before = self.ended_as('time_over')
        self.assertEqual(4408, ending.close_code())
        self.wait_until(lambda: self.ended_as('time_over') == before + 1, 'the metric')
        staying.send(frame(b'\r\n\r\n'))
        self.assertTrue(staying.message(10).startswith(b'HTTP/1.1'))

    def test_ping_and_idle_timeouts(self):
        """Three users: one sends nothing, one only answers and sends pings, one types."""
        self.use_another(ping_interval=1, ping_timeout=1, idle_timeout=5)
        ticker = self.add(TickingGuest())
        looking = self.connected(self.grant(ticker, console_type='webmks'))
        silent = self.opened(target=self.grant(ticker, console_type='webmks'))
        typing = self.connected(self.grant())
        closed = self.assertRaises(
            websockets.exceptions.ConnectionClosed, self.watch_while_another_types, looking, typing
        )
        # not 1001, like the silent user: this one has answered the pings
        self.assertEqual(4408, closed.rcvd.code)
        self.assertEqual(1001, silent.close_code())
        typing.send(b'still here')
        self.assertEqual(b'still here', typing.recv(timeout=proxy_base.PATIENCE))
        self.wait_until(
            lambda: (self.ended_as('user_lost'), self.ended_as('idle')) == (1, 1), 'the metrics of both ends'
        )

    def test_a_guest_cannot_keep_a_session_alive_by_asking_the_terminal(self):
        self.use_another(idle_timeout=3)
        asked = self.connected(self.grant(self.add(AskingGuest())))
        typing = self.connected(self.grant())

        def answer():
            while True:
                asked.recv(timeout=proxy_base.PATIENCE)
                asked.send(b'\x1b[24;80R')
                typing.send(b'\x1b[A')

        closed = self.assertRaises(websockets.exceptions.ConnectionClosed, answer)
        self.assertEqual(4408, closed.rcvd.code)
        typing.send(b'a')
        while typing.recv(timeout=proxy_base.PATIENCE)[-1:] != b'a':
            pass

    def watch_while_another_types(self, looking, typing):
        while True:
            looking.recv(timeout=proxy_base.PATIENCE)
            looking.ping()
            typing.send(b'x')
            self.assertEqual(b'x', typing.recv(timeout=proxy_base.PATIENCE))


class SessionsTest(_Tunnels, _Spice, _Screens, _Time, test_proxy.UsersTestCase):
    proxy_options = {'max_channels': 3}
