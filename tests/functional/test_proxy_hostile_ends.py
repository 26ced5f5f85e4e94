# SPDX-License-Identifier: Apache-2.0
"""Users who close or reset the connection at every stage of a session: nothing is left behind."""

import json
import socket
import threading

import fixtures

from consoled import objects
from consoled.db import proxies
from consoled.testing.fixtures import FakeComputeAgent
from consoled.testing.guests.tcp_guests import EchoGuest, SilentGuest, StreamGuest
from tests.functional import base, proxy_base
from tests.functional.raw_user import close_frame, frame, handshake
from tests.functional.test_proxy_hostile_requests import client_hello

_ASKED = 'node-asked'  # a compute host whose agent is asked about its consoles
WAYS = ('leave', 'reset', 'eof')  # methods of User; after ``eof`` the user stays and reads nothing


class Ends:
    """Several users reach a stage and end there, each in one of the ``WAYS``."""

    def end_in_every_way(self, stage):
        """Let users reach a stage and end there, all at once.

        :param stage: returns a user who has reached it
        """
        users = [(stage(), way) for way in WAYS for _ in range(4)]
        for user, way in users:
            getattr(user, way)()
        self.assert_slot_free()

    def end_sessions_in_every_way(self, stage, new_guest=EchoGuest, times=2):
        """Let users with a session reach a stage and end there; repeated, to reuse the slots.

        :param stage: called with the user and the guest
        """
        guests = [self.add(new_guest()) for _ in WAYS]
        targets = [self.grant(guest) for guest in guests]
        for _ in range(times):
            users = [self.opened(target=target) for target in targets]
            for user, guest in zip(users, guests, strict=True):
                stage(user, guest)
            for user, way in zip(users, WAYS, strict=True):
                getattr(user, way)()
            self.assert_nothing_left()

    def test_before_the_first_byte(self):
        self.end_in_every_way(lambda: self.user(tls=None))

    def test_within_the_request(self):
        self.end_in_every_way(lambda: self.user().send(handshake(self.grant())[:60]))

    def test_after_the_request(self):
        self.end_in_every_way(lambda: self.user().send(handshake(self.grant())))

    def test_after_a_request_that_is_refused(self):
        self.end_in_every_way(lambda: self.user().send(handshake('/')))

    def test_after_the_upgrade(self):
        self.end_sessions_in_every_way(lambda user, guest: None)

    def test_within_the_header_of_a_frame(self):
        self.end_sessions_in_every_way(lambda user, guest: user.send(frame(b'x' * 1000)[:3]))

    def test_within_a_frame(self):
        self.end_sessions_in_every_way(lambda user, guest: user.send(frame(b'x' * 1000)[:500]))

    def test_within_a_message(self):
        self.end_sessions_in_every_way(lambda user, guest: user.send(frame(b'x' * 1000, fin=False)))

    def test_within_the_close_frame(self):
        self.end_sessions_in_every_way(lambda user, guest: user.send(close_frame()[:-1]))

    def test_after_the_close_frame(self):
        self.end_sessions_in_every_way(lambda user, guest: user.send(close_frame()))

    def test_after_the_close_frame_of_the_proxy(self):
        def closed(user, guest):
            self.assertEqual(1011, user.close_code())

        self.end_sessions_in_every_way(closed, lambda: proxy_base.ScriptedGuest(_leave))

    def test_while_the_guest_streams(self):
        self.end_sessions_in_every_way(lambda user, guest: user.message(100000), _endless)

    def test_while_the_user_does_not_read(self):
        def blocked(user, guest):
            seen = []
            self.wait_until(lambda: _is_stable(seen, guest.sent), 'the stream to stop')

        self.end_sessions_in_every_way(blocked, _endless, times=1)

    def test_while_the_guest_does_not_read(self):
        self.end_sessions_in_every_way(
            lambda user, guest: user.flood(frame(b'x' * 65000), seconds=0.3), SilentGuest, times=1
        )

    def test_while_the_proxy_connects_to_the_guest(self):
        guest = self.add(SilentGuest())
        target = self.grant(guest, console_type='novnc')
        users = [(self.user().send(handshake(target)), way) for way in WAYS for _ in range(3)]
        self.wait_until(lambda: guest.connections == len(users), 'the connections')
        for user, way in users:
            getattr(user, way)()
        self.assert_nothing_left()

    def test_within_the_rfb_handshake_with_the_user(self):
        """The guest completes its RFB handshake; the user does not."""
        target = self.grant(self.add(proxy_base.ScriptedGuest(_rfb)), console_type='novnc')
        users = []
        for sent in (b'', frame(b'RFB 003'), frame(b'RFB 003.008\n')):
            for way in (*WAYS, 'stay'):
                users.append((self.opened(target=target).send(sent), way))
        for user, way in users:
            getattr(user, way, lambda: None)()
        self.assert_nothing_left()


class EndsInTLS:
    def test_within_the_tls_handshake(self):
        hello = client_hello()
        for data in (hello[:1], hello[:100], hello):
            with self.subTest(len(data)):
                self.end_in_every_way(lambda data=data: self.user(tls=None).send(data))

    def test_within_a_tls_record(self):
        def half_a_record(user, guest):
            user.sock.setblocking(False)
            socket.socket.send(user.sock, b'\x17\x03\x03\x40\x00' + b'x' * 100)

        self.end_sessions_in_every_way(half_a_record)


class EndsAtTheManager:
    """Users who end while the manager is asked: it may open the session all the same."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.asked_agent = cls.fixture(FakeComputeAgent(cls.cell.transport, _ASKED))

    def define_asked(self):
        """Define the guest's console on a compute host whose agent answers when ``self.answer`` is set.

        :returns: the path of the console's websocket
        """
        self.answer = threading.Event()
        self.addCleanup(self.answer.set)
        self.asked_agent.answer = lambda asked: self.answer.wait(1.8)  # the manager waits for 2 s
        console = base.a_console(self.instance, self.guest.port, host='127.0.0.1', compute_host=_ASKED)
        consoles = objects.ConsoleConnectionList(objects=[console])
        self.api.define_consoles(self.context, self.instance, _ASKED, consoles)
        self.wait_until(lambda: self.ports() == [self.guest.port], 'the definition')
        return self.grant(compute_host=_ASKED)

    def asked(self, target):
        """Return a user about whose request the compute agent is being asked."""
        before = len(self.asked_agent.asked)
        user = self.user().send(handshake(target))
        self.wait_until(lambda: len(self.asked_agent.asked) > before, 'the question')
        return user

    def test_users_who_end_before_the_answer(self):
        target = self.define_asked()
        for way in WAYS:
            for confirmed in (True, False):
                with self.subTest(way, confirmed=confirmed):
                    self.answer.clear()
                    self.asked_agent.answer = lambda asked, confirmed=confirmed: (
                        self.answer.wait(1.8) and confirmed
                    )
                    getattr(self.asked(target), way)()
                    self.answer.set()
                    self.assert_nothing_left()
        self.asked_agent.answer = lambda asked: True
        with self.opened(target=target) as user:
            self.assert_echo(user)
        self.assert_nothing_left()

    def test_invariant_7_no_connection_to_the_guest_before_the_manager_agrees(self):
        user = self.asked(self.define_asked())
        self.guests.settle()
        self.assertEqual(0, self.guest.connections)
        self.answer.set()
        self.assertEqual(101, user.answer().status)
        self.assert_echo(user)
        self.assertEqual(1, self.guest.connections)
        user.leave()
        self.assert_nothing_left()


class LateAnswers(EndsAtTheManager):
    """Replies that arrive after their caller's timeout."""

    def test_invariant_4_a_reply_that_comes_too_late_keeps_no_slot(self):
        target = self.define_asked()
        self.set(manager__lease=4)
        self.use_another(authorize_timeout=1.5, max_pending_opens=1)
        self.useFixture(fixtures.MockPatchObject(proxies, 'OPEN_TAKES_AT_MOST', 1))
        waiting = self.asked(target)
        one_more = self.ask(target, Accept='application/json')[1]
        self.assertEqual((503, 'proxy_busy'), (one_more.status, json.loads(one_more.body)['code']))
        answer = waiting.answer()
        self.assertEqual(503, answer.status)
        self.assertIn('retry-after', answer.headers)
        self.answer.set()
        self.wait_until(lambda: self.opens(target), 'the free slot')
        self.assert_nothing_left()

    def opens(self, target):
        """Return whether the console can be opened."""
        with self.user() as user:
            return self.ask(target, user)[1].status == 101


def _endless():
    return StreamGuest(total=2**40)


def _is_stable(seen, value):
    """Record a value in ``seen``, and return whether the last ten values are the same."""
    seen.append(value)
    return len(seen) > 10 and len(set(seen[-10:])) == 1


async def _leave(reader, writer):
    """A guest that closes its console."""


async def _rfb(reader, writer):
    """Perform the hypervisor's part of the handshake (RFC 6143, section 7.1), security type None."""
    writer.write(b'RFB 003.008\n')
    await reader.readexactly(12)
    writer.write(b'\1\1')
    await reader.readexactly(1)
    writer.write(bytes(4))
    await reader.read()
