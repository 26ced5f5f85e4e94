# SPDX-License-Identifier: Apache-2.0
"""The guests with simple TCP consoles, over real sockets."""

import contextlib
import random
import socket
import threading

from consoled.testing.guests.tcp_guests import (
    EchoGuest,
    PatternCheck,
    ResetGuest,
    SilentGuest,
    StreamGuest,
    pattern,
)
from tests.unit.testing.guests.test_host import GuestsTestCase


class EchoTest(GuestsTestCase):
    def test_it_echoes_until_the_client_closes(self):
        sock = self.connect(self.host.add(EchoGuest()))
        data = random.Random(1).randbytes(300_000)
        writer = threading.Thread(target=sock.sendall, args=(data,))
        writer.start()
        self.assertEqual(data, self.read(sock, len(data)))
        writer.join()
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(b'', sock.recv(1))


class StreamTest(GuestsTestCase):
    def test_the_pattern_depends_on_the_offset_only(self):
        whole = pattern(0, 200_000)
        self.assertEqual(200_000, len(whole))
        for offset in (0, 1, 65520, 65521, 65522, 131_042, 199_999):
            self.assertEqual(whole[offset:], pattern(offset, 200_000 - offset))
        self.assertEqual(b'', pattern(5, 0))

    def test_a_client_receives_the_pattern_and_eof(self):
        guest = self.host.add(StreamGuest(total=3_000_001))
        sock = self.connect(guest)
        check = PatternCheck()
        while piece := sock.recv(70_000):
            check.feed(piece)
        self.assertEqual((3_000_001, True), (check.received, check.correct))
        self.assertEqual(3_000_001, guest.sent)

    def test_a_client_that_does_not_read_stops_the_stream(self):
        guest = self.host.add(StreamGuest(total=2**30))
        self.connect(guest)
        sent = -1
        while sent != (sent := guest.sent) or not sent:
            self.host.settle()
        self.assertLess(guest.sent, 2**25)  # what the kernel buffers on loopback

    def test_uploads_are_compared_with_the_pattern(self):
        guest = self.host.add(StreamGuest(total=0))
        good, bad = self.connect(guest), self.connect(guest)
        good.sendall(pattern(0, 150_000))
        bad.sendall(pattern(0, 1000) + pattern(1001, 1000))
        for sock in (good, bad):
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(b'', sock.recv(1))
        self.assertEqual(
            [(2000, False), (150_000, True)], sorted((each.received, each.correct) for each in guest.uploads)
        )


class SilentTest(GuestsTestCase):
    def test_it_neither_reads_nor_writes(self):
        guest = self.host.add(SilentGuest())
        sock = self.connect(guest)
        self.host.settle()
        self.assertEqual(1, guest.clients)
        sock.setblocking(False)
        self.assertRaises(BlockingIOError, sock.recv, 1)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 2**26:
                sent += sock.send(bytes(2**16))
        self.assertLess(sent, 2**25)


class ResetTest(GuestsTestCase):
    def test_it_resets_immediately(self):
        guest = self.host.add(ResetGuest())
        # even connect may fail, if the reset arrives in time
        self.assertRaises(ConnectionResetError, lambda: self.connect(guest).recv(1))

    def test_it_resets_after_a_number_of_bytes(self):
        guest = self.host.add(ResetGuest(after=5))
        sock = self.connect(guest)
        sock.sendall(b'1234')
        self.host.settle()
        self.assertEqual(1, guest.clients)
        sock.sendall(b'5')
        self.assertRaises(ConnectionResetError, sock.recv, 1)
        self.host.settle()
        self.assertEqual((1, 0), (guest.connections, guest.clients))
