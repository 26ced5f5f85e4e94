# SPDX-License-Identifier: Apache-2.0
"""The guest with a VNC console: security types, less common messages, misbehaving clients."""

import contextlib
import resource
import socket
import ssl
import struct
import threading
import zlib

import trustme

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.rfb_encoding import RAW, TIGHT, ZLIB, PixelFormat
from consoled.testing.guests.vnc_guest import VncGuest
from tests.unit.testing.guests.test_vnc_guest import (
    DESKTOP_SIZE,
    NONE,
    QEMU_KEYS,
    TIMEOUT,
    VENCRYPT,
    X509_NONE,
    VncTestCase,
)


class SecurityTest(VncTestCase):
    def setUp(self):
        super().setUp()
        self.ca = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert('guest.example').configure_cert(self.server)
        self.tls = ssl.create_default_context()
        self.ca.configure_trust(self.tls)

    def test_offered_security_types(self):
        for security, types in (('none', [NONE]), ('vencrypt', [VENCRYPT]), ('both', [VENCRYPT, NONE])):
            context = None if security == 'none' else self.server
            guest = self.host.add(VncGuest(security=security, ssl_context=context))
            self.assertEqual(types, self.client(guest).version())

    def test_a_desktop_over_vencrypt(self):
        guest = self.host.add(VncGuest(security='vencrypt', ssl_context=self.server))
        for encoding in (RAW, TIGHT):
            vnc = self.client(guest).open(VENCRYPT, self.tls)
            vnc.encodings(encoding)
            vnc.request()
            position, color = VncGuest.MARK
            self.assertEqual(color, vnc.update().at(*position))
            vnc.type('tls')
        wait_until(lambda: guest.text == 'tlstls')
        self.assertEqual([], guest.errors)

    def test_none_where_the_client_may_choose(self):
        guest = self.host.add(VncGuest(security='both', ssl_context=self.server))
        vnc = self.client(guest).open(NONE)
        vnc.request()
        vnc.update()

    def test_a_client_certificate_can_be_demanded(self):
        self.ca.configure_trust(self.server)
        self.server.verify_mode = ssl.CERT_REQUIRED
        guest = self.host.add(VncGuest(security='vencrypt', ssl_context=self.server))
        # with TLS 1.2 the client's handshake fails; with 1.3 the alert would come later
        self.tls.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertRaises(ssl.SSLError, self.client(guest).open, VENCRYPT, self.tls)
        wait_until(lambda: 'CERTIFICATE' in ''.join(guest.errors).upper())
        self.ca.issue_cert('proxy.example').configure_cert(self.tls)
        self.client(guest).open(VENCRYPT, self.tls)

    def test_a_client_that_does_not_trust_the_guest(self):
        guest = self.host.add(VncGuest(security='vencrypt', ssl_context=self.server))
        self.assertRaises(ssl.SSLError, self.client(guest).open, VENCRYPT, ssl.create_default_context())
        wait_until(lambda: guest.clients == 0)
        self.assertEqual(1, len(guest.errors))

    def test_vencrypt_cannot_be_bypassed(self):
        guest = self.host.add(VncGuest(security='vencrypt', ssl_context=self.server))
        vnc = self.client(guest)
        vnc.version()
        vnc.send('>B', NONE)
        self.assertEqual((1,), vnc.unpack('>I'))
        self.assertIn('not offered', vnc.reason())
        self.assert_closed(vnc)
        for version, subtype, answer in (((0, 1), None, b'\1'), ((0, 2), 257, b'\0')):
            vnc = self.client(guest)
            vnc.version()
            vnc.send('>B', VENCRYPT)
            vnc.read(2)
            vnc.send('>BB', *version)
            if subtype:
                self.assertEqual((0, 1, X509_NONE), vnc.unpack('>BBI'))
                vnc.send('>I', subtype)
            self.assertEqual(answer, vnc.read(1))
            self.assert_closed(vnc)
        self.assertEqual(3, len(guest.errors))

    def test_versions(self):
        guest = self.host.add(VncGuest())
        self.assertEqual([NONE], self.client(guest).version(b'RFB 003.889\n'))
        for version in (b'RFB 003.003\n', b'RFB 003.007\n', b'RFB 004.001\n', b'GET / HTTP/1'):
            vnc = self.client(guest)
            self.assertEqual([], vnc.version(version))
            self.assertIn('3.8', vnc.reason())
            self.assert_closed(vnc)

    def test_arguments(self):
        self.assertRaises(ValueError, VncGuest, security='vencrypt')
        self.assertRaises(ValueError, VncGuest, ssl_context=self.server)
        self.assertRaises(ValueError, VncGuest, width=100)
        self.assertRaises(ValueError, VncGuest, height=5000)


class MessagesTest(VncTestCase):
    def setUp(self):
        super().setUp()
        self.guest = self.host.add(VncGuest())
        self.vnc = self.client(self.guest).open()

    def test_cut_text(self):
        self.vnc.sock.sendall(struct.pack('>Bxxxi', 6, 5) + 'Grüße'.encode('latin-1'))
        wait_until(lambda: self.guest.cut_text == 'Grüße')
        self.vnc.sock.sendall(struct.pack('>BxxxiI', 6, -8, 1 << 24) + b'none')  # extended clipboard
        self.vnc.type('x')
        wait_until(lambda: self.guest.keys == [ord('x')])
        self.assertEqual('Grüße', self.guest.cut_text)

    def test_keys_by_qemus_message_once_it_is_offered(self):
        self.vnc.encodings(TIGHT, QEMU_KEYS)
        self.vnc.request(area=(0, 0, 1, 1))
        self.assertEqual([(0, 0, 0, 0, QEMU_KEYS), (0, 0, 1, 1, TIGHT)], self.vnc.update().rects)
        self.vnc.send('>BBHII', 255, 0, 1, ord('q'), 0x10)
        self.vnc.send('>BBHII', 255, 0, 0, ord('q'), 0x10)
        wait_until(lambda: self.guest.keys == [ord('q')])

    def test_a_fence_comes_back(self):
        self.vnc.sock.sendall(struct.pack('>BxxxIB', 248, 1 << 31 | 0b101, 4) + b'here')
        self.assertEqual((248, 0b101, 4), self.vnc.unpack('>BxxxIB'))
        self.assertEqual(b'here', self.vnc.read(4))
        self.vnc.sock.sendall(struct.pack('>BxxxIB', 248, 0, 0))  # no request: no answer
        self.vnc.request(area=(0, 0, 1, 1))
        self.vnc.update()

    def test_the_size_stays(self):
        ask = struct.pack('>BxHHBx', 251, 1024, 768, 1) + struct.pack('>IHHHHI', 0, 0, 0, 1024, 768, 0)
        self.vnc.sock.sendall(ask)  # ignored: the client has not announced that it understands the reply
        self.vnc.encodings(DESKTOP_SIZE)
        self.vnc.request(area=(0, 0, 1, 1))
        self.assertEqual([(0, 0, 1, 1, RAW)], self.vnc.update().rects)
        self.vnc.sock.sendall(ask)
        self.vnc.request(area=(0, 0, 1, 1))
        self.assertIn((1, 1, 640, 400, DESKTOP_SIZE), self.vnc.update().rects)
        self.assertEqual((0, 0, 0, 640, 400, 0), self.vnc.screen)

    def test_messages_that_change_nothing(self):
        self.vnc.send('>BBHHHH', 150, 1, 0, 0, 640, 400)  # continuous updates
        self.vnc.send('>BxBB', 250, 1, 2)  # xvp: shut down
        self.vnc.type('still here')
        wait_until(lambda: self.guest.text == 'still here')
        self.assertEqual([], self.guest.errors)

    def test_an_invalid_message_disconnects_that_client_only(self):
        other = self.client(self.guest).open()
        wrong = (
            struct.pack('>B', 77),
            struct.pack('>BB', 255, 1),
            struct.pack('>BxH', 2, 1025),
            struct.pack('>Bxxxi', 6, 2**20 + 1),
            struct.pack('>Bxxxi', 6, -(2**31)),
            struct.pack('>BxxxIB', 248, 0, 65),
            struct.pack('>BxHHBx', 251, 1, 1, 17),
            struct.pack('>Bxxx', 0) + bytes(16),
            struct.pack('>Bxxx', 0) + PixelFormat(16, 16, False, (31, 63, 31), (12, 5, 0)).packed(),
        )
        for message in wrong:
            vnc = self.client(self.guest).open()
            vnc.sock.sendall(message)
            self.assert_closed(vnc)
        wait_until(lambda: len(self.guest.errors) == len(wrong))
        other.type('ok')
        wait_until(lambda: self.guest.text == 'ok')

    def test_a_client_that_does_not_read_fence_replies_is_disconnected(self):
        flooded = self.host.add(VncGuest(flood=True))
        vnc = self.client(flooded).open()
        vnc.request()
        wait_until(lambda: flooded.updates or vnc.sock.recv(1, socket.MSG_PEEK))
        fence = struct.pack('>BxxxIB', 248, 1 << 31, 64) + bytes(64)
        with contextlib.suppress(ConnectionError):
            while True:
                vnc.request()
                vnc.sock.sendall(fence)
        wait_until(lambda: flooded.errors == ['fence replies are not read'])


class LoadTest(VncTestCase):
    def test_a_flood_sends_new_noise_for_every_request(self):
        guest = self.host.add(VncGuest(flood=True))
        vnc = self.client(guest).open()
        vnc.encodings(TIGHT, ZLIB)
        seen = set()
        for _ in range(5):
            vnc.request(incremental=True)
            vnc.update()
            self.assertEqual({RAW}, {rect[4] for rect in vnc.rects})
            seen.add(zlib.crc32(vnc.canvas))
        self.assertEqual(5, len(seen))
        self.assertGreater(len(zlib.compress(bytes(vnc.canvas[:100_000]), 1)), 99_000)
        wait_until(lambda: guest.updates == 5)

    def test_a_client_that_does_not_read_delays_nobody_and_uses_no_memory(self):
        guest = self.host.add(VncGuest(flood=True))
        stuck, other = self.client(guest).open(), self.client(guest).open()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(60):  # updates of 1 MB
            stuck.request()
            other.request()
            other.update()
        self.assertLess(guest.updates, 100)
        self.assertLess(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, 20 * 1024)  # KiB

    def test_no_clock_without_clients(self):
        guest = self.host.add(VncGuest())
        self.assertIsNone(guest._clock)
        vnc = self.client(guest).open()
        wait_until(lambda: guest._clock is not None)
        vnc.sock.close()
        wait_until(lambda: guest.viewers == 0 and guest._clock is None)

    def test_stopping_with_clients_at_each_stage(self):
        guest = self.host.add(VncGuest(flood=True))
        early = self.client(guest)
        late = self.client(guest).open()
        late.request()
        busy = self.client(guest).open()
        ended = threading.Event()

        def watch():
            try:
                while True:
                    busy.request()
                    busy.update()
            except (EOFError, OSError):
                ended.set()

        threading.Thread(target=watch, daemon=True).start()
        wait_until(lambda: guest.updates > 3)
        self.host.remove(guest)
        self.assertTrue(ended.wait(TIMEOUT))
        for each in (early, late):
            self.assert_closed(each)
        self.assertEqual((0, 0), (guest.clients, guest.viewers))

    def test_a_guest_that_is_started_again_works(self):
        guest = self.host.add(VncGuest())
        vnc = self.client(guest).open()
        vnc.request()
        vnc.update()
        self.host.remove(guest)
        self.host.add(guest)
        vnc = self.client(guest).open()
        vnc.request()
        position, color = VncGuest.MARK
        self.assertEqual(color, vnc.update().at(*position))
