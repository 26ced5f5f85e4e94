# SPDX-License-Identifier: Apache-2.0
"""The guest with a VNC console, with a small client of the tests' own over real sockets."""

import contextlib
import socket
import struct
import zlib

import testtools

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.fixture import GuestHostFixture
from consoled.testing.guests.rfb_encoding import RAW, TIGHT, ZLIB, PixelFormat
from consoled.testing.guests.vnc_guest import VncGuest

TIMEOUT = 10  # seconds, for what takes milliseconds
NONE, VENCRYPT = 1, 19
X509_NONE = 260
QEMU_KEYS, DESKTOP_SIZE = -258, -308


class VncClient:
    """A small RFB client.

    ``canvas`` is the picture it has received, 4 bytes a pixel in the server's default format.
    """

    def __init__(self, guest):
        self.sock = socket.create_connection((guest.host, guest.port), TIMEOUT)
        self.inflaters = {ZLIB: zlib.decompressobj(), TIGHT: zlib.decompressobj()}
        self.pixel = 4
        self.rects = []  # (x, y, width, height, encoding) of the last update

    def read(self, length):
        data = bytearray()
        while len(data) < length:
            piece = self.sock.recv(length - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def unpack(self, form):
        return struct.unpack(form, self.read(struct.calcsize(form)))

    def send(self, form, *values):
        self.sock.sendall(struct.pack(form, *values))

    def version(self, version=b'RFB 003.008\n'):
        assert self.read(12) == b'RFB 003.008\n'
        self.sock.sendall(version)
        return list(self.read(self.read(1)[0]))

    def reason(self):
        return self.read(self.unpack('>I')[0]).decode()

    def secure(self, security=NONE, tls=None):
        types = self.version()
        self.send('>B', security)
        if security == VENCRYPT:
            assert self.read(2) == b'\0\2'
            self.send('>BB', 0, 2)
            assert self.unpack('>BBI') == (0, 1, X509_NONE)
            self.send('>I', X509_NONE)
            assert self.read(1) == b'\1'
            self.sock = tls.wrap_socket(self.sock, server_hostname='guest.example')
        assert self.unpack('>I') == (0,)
        return types

    def open(self, security=NONE, tls=None):
        self.secure(security, tls)
        self.send('>B', 0)
        self.width, self.height, self.format, length = self.unpack('>HH16sI')
        self.name = self.read(length).decode()
        self.canvas = bytearray(self.width * self.height * 4)
        return self

    def encodings(self, *encodings):
        self.send(f'>BxH{len(encodings)}i', 2, len(encodings), *encodings)

    def request(self, incremental=False, area=None):
        self.send('>BBHHHH', 3, incremental, *(area or (0, 0, self.width, self.height)))

    def key(self, keysym, down=True):
        self.send('>BBxxI', 4, down, keysym)

    def type(self, text):
        for char in text:
            self.key(ord(char))
            self.key(ord(char), False)

    def update(self):
        """Receive one framebuffer update."""
        kind, count = self.unpack('>BxH')
        assert kind == 0, kind
        self.rects = []
        for _ in range(count):
            x, y, width, height, encoding = self.unpack('>HHHHi')
            self.rects.append((x, y, width, height, encoding))
            if encoding >= 0:
                pixels = self.decode(encoding, width * height)
                if self.pixel == 4:
                    self.draw(x, y, width, height, pixels)
            elif encoding == DESKTOP_SIZE:
                assert self.unpack('>Bxxx') == (1,)
                self.screen = self.unpack('>IHHHHI')
        return self

    def decode(self, encoding, pixels):
        if encoding == RAW:
            return self.read(pixels * self.pixel)
        if encoding == ZLIB:
            return self.inflate(ZLIB, self.unpack('>I')[0], pixels * 4)
        assert self.read(1) == b'\0'  # basic, stream 0
        size = pixels * 3
        data = self.inflate(TIGHT, self.compact(), size) if size >= 12 else self.read(size)
        rgbx = bytearray(pixels * 4)
        for channel in range(3):
            rgbx[channel::4] = data[channel::3]
        return bytes(rgbx)

    def compact(self):
        length = shift = 0
        while True:
            (byte,) = self.read(1)
            if shift == 14:
                return length | byte << 14
            length |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return length
            shift += 7

    def inflate(self, stream, length, expected):
        data = self.inflaters[stream].decompress(self.read(length))
        assert len(data) == expected
        return data

    def draw(self, x, y, width, height, pixels):
        for row in range(height):
            start = ((y + row) * self.width + x) * 4
            self.canvas[start : start + width * 4] = pixels[row * width * 4 : (row + 1) * width * 4]

    def at(self, x, y):
        start = (y * self.width + x) * 4
        return tuple(self.canvas[start : start + 3])

    def cut(self, x, y, width, height):
        rows = range(y, y + height)
        return [
            bytes(self.canvas[(row * self.width + x) * 4 : (row * self.width + x + width) * 4])
            for row in rows
        ]


class VncTestCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.host = self.useFixture(GuestHostFixture())

    def client(self, guest):
        client = VncClient(guest)
        self.addCleanup(lambda: client.sock.close())
        return client

    @staticmethod
    def assert_closed(client):
        with contextlib.suppress(ConnectionError):
            while client.sock.recv(2**16):  # TimeoutError, if it is not
                pass


class PictureTest(VncTestCase):
    def setUp(self):
        super().setUp()
        self.guest = self.host.add(VncGuest(name='web-01'))
        self.vnc = self.client(self.guest).open()

    def test_server_init(self):
        self.assertEqual(('web-01', 640, 400), (self.vnc.name, self.vnc.width, self.vnc.height))
        self.assertEqual(PixelFormat(), PixelFormat.parse(self.vnc.format))
        self.assertEqual((1, 1), (self.guest.clients, self.guest.connections))
        wait_until(lambda: self.guest.viewers == 1)

    def test_the_mark_in_each_encoding(self):
        position, color = VncGuest.MARK
        pictures = []
        for wanted, encodings in (
            (RAW, ()),
            (RAW, (1, 2, 5)),
            (ZLIB, (5, ZLIB, 0)),
            (TIGHT, (ZLIB, TIGHT, 0)),
        ):
            self.vnc.encodings(*encodings)
            self.vnc.canvas = bytearray(len(self.vnc.canvas))
            self.vnc.request()
            self.vnc.update()
            self.assertEqual(color, self.vnc.at(*position))
            self.assertEqual({wanted}, {rect[4] for rect in self.vnc.rects})
            self.assertEqual(640 * 400, sum(width * height for _, _, width, height, _ in self.vnc.rects))
            rows = self.vnc.cut(250, 200, 60, 150)  # hills, which stay as they are
            pictures.append([row[channel::4] for row in rows for channel in range(3)])
        self.assertGreater(len(set(pictures[0])), 10)
        self.assertEqual([pictures[0]] * 4, pictures)

    def test_two_names_have_two_landscapes(self):
        other = self.client(self.host.add(VncGuest(name='db-1'))).open()
        for each in (self.vnc, other):
            each.request()
            each.update()
        self.assertNotEqual(self.vnc.canvas, other.canvas)

    def test_a_key_changes_the_text_and_little_else(self):
        self.vnc.request()
        self.vnc.update()
        before = self.vnc.cut(*VncGuest.TEXT_BOX)
        self.vnc.type('Hi')
        wait_until(lambda: self.guest.text == 'Hi')
        self.vnc.request(incremental=True)
        self.vnc.update()
        self.assertNotEqual(before, self.vnc.cut(*VncGuest.TEXT_BOX))
        self.assertEqual([ord('H'), ord('i')], self.guest.keys)
        sent = sum(width * height for _, _, width, height, _ in self.vnc.rects)
        self.assertLess(sent, 640 * 400 / 4)  # it may hold the clock too

    def test_only_the_clock_changes_by_itself(self):
        self.vnc.request()
        before = self.vnc.update().cut(498, 150, 116, 37)
        self.vnc.request(incremental=True)
        while before == self.vnc.update().cut(498, 150, 116, 37):
            self.vnc.request(incremental=True)
        for x, y, _, height, _ in self.vnc.rects:
            self.assertTrue(x >= 496 and y + height <= 200 or y >= 374, self.vnc.rects)

    def test_the_pointer_is_drawn_and_recorded(self):
        self.vnc.request()
        before = self.vnc.update().cut(300, 250, 40, 40)
        self.vnc.send('>BBHH', 5, 1, 320, 270)
        wait_until(lambda: self.guest.pointer == (320, 270, 1))
        self.vnc.request(incremental=True)
        self.assertNotEqual(before, self.vnc.update().cut(300, 250, 40, 40))
        self.vnc.send('>BBHH', 5, 0, 60000, 60000)
        wait_until(lambda: self.guest.pointer == (60000, 60000, 0))
        wait_until(lambda: not self.guest._desktop.fading)
        while before != self.vnc.cut(300, 250, 40, 40):
            self.vnc.request(incremental=True)
            self.vnc.update()

    def test_clients_share_the_desktop(self):
        other = self.client(self.guest).open()
        for each in (self.vnc, other):
            each.request()
            each.update()
        self.vnc.type('shared')
        wait_until(lambda: self.guest.text == 'shared')
        other.type('!')
        wait_until(lambda: self.guest.text == 'shared!')
        for each in (self.vnc, other):
            each.request(incremental=True)
            each.update()
        self.assertEqual(self.vnc.cut(*VncGuest.TEXT_BOX), other.cut(*VncGuest.TEXT_BOX))

    def test_only_the_requested_area_is_sent(self):
        self.vnc.request(area=(100, 100, 7, 5))
        self.assertEqual([(100, 100, 7, 5, RAW)], self.vnc.update().rects)
        self.vnc.request(area=(630, 390, 100, 100))
        self.assertEqual([(630, 390, 10, 10, RAW)], self.vnc.update().rects)
        self.vnc.request(area=(2000, 0, 5, 5))  # outside: never answered
        self.vnc.request(area=(0, 0, 1, 1))
        self.assertEqual([(0, 0, 1, 1, RAW)], self.vnc.update().rects)

    def test_tiny_rectangles_of_tight(self):
        self.vnc.encodings(TIGHT)
        position, color = VncGuest.MARK
        for width in (1, 3, 4, 12):
            self.vnc.canvas = bytearray(len(self.vnc.canvas))
            self.vnc.request(area=(*position, width, 1))
            self.assertEqual(color, self.vnc.update().at(*position))

    def test_a_pixel_format_chosen_by_the_client(self):
        self.vnc.pixel = 2
        self.vnc.send('>Bxxx', 0)
        self.vnc.sock.sendall(PixelFormat(16, 16, True, (31, 63, 31), (11, 5, 0)).packed())
        (x, y), (red, green, blue) = VncGuest.MARK
        self.vnc.request(area=(x, y, 1, 1))
        self.assertEqual((0, 1, x, y, 1, 1, RAW), self.vnc.unpack('>BxHHHHHi'))
        expected = round(red * 31 / 255) << 11 | round(green * 63 / 255) << 5 | round(blue * 31 / 255)
        self.assertEqual((expected,), self.vnc.unpack('>H'))
