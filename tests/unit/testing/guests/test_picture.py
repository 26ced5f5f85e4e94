# SPDX-License-Identifier: Apache-2.0
"""What the pretended desktop is drawn with, and how its pixels travel."""

import datetime
import struct
import zlib

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.testing.guests import backdrop, font
from consoled.testing.guests.canvas import Canvas, Rect, mix
from consoled.testing.guests.desktop import MARK_BOX, MARK_COLOR, TEXT_BOX, Desktop, keysym_to_char
from consoled.testing.guests.rfb_encoding import TIGHT, Encoder, PixelFormat, compact_length

RETURN, BACKSPACE, CONTROL, SHIFT = 0xFF0D, 0xFF08, 0xFFE3, 0xFFE1

rects = st.builds(Rect, st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 9), st.integers(0, 9))


def points(rect):
    return {(x, y) for x in range(rect.x, rect.x + rect.width) for y in range(rect.y, rect.y + rect.height)}


class RectTest(testtools.TestCase):
    @given(rects, rects)
    def test_rectangles_are_sets_of_points(self, first, second):
        both = first & second
        self.assertEqual(points(first) & points(second), points(both) if both else set())
        self.assertTrue(points(first | second) >= points(first) | points(second))
        rest = [points(part) for part in first - second]
        if first:
            self.assertEqual(points(first) - points(second), set().union(*rest))
            self.assertEqual(len(points(first) - points(second)), sum(map(len, rest)))


class CanvasTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.canvas = Canvas(20, 10)

    def at(self, x, y):
        return tuple(self.canvas.cut(Rect(x, y, 1, 1))[:3])

    def test_filling_and_blending(self):
        self.canvas.fill(Rect(2, 3, 4, 5), (200, 100, 0))
        self.assertEqual([(0, 0, 0), (200, 100, 0), (0, 0, 0)], [self.at(x, 5) for x in (1, 2, 6)])
        self.canvas.blend(Rect(2, 3, 1, 1), (0, 200, 100), 0.5)
        for expected, got in zip((100, 150, 50), self.at(2, 3), strict=True):
            self.assertTrue(abs(expected - got) <= 1)
        self.assertEqual((50, 50, 50), mix((0, 0, 0), (100, 100, 100), 0.5))

    def test_all_is_clipped(self):
        size = len(self.canvas.pixels)
        for x, y in ((-30, -30), (-3, -3), (15, 5), (40, 40)):
            self.canvas.fill(Rect(x, y, 9, 9), (1, 2, 3))
            self.canvas.blend(Rect(x, y, 9, 9), (1, 2, 3), 0.3)
            self.canvas.panel(Rect(x, y, 9, 9), 3, (1, 2, 3), 0.3)
            self.canvas.text(x, y, 'Ag', (1, 2, 3), 2)
            self.canvas.line((x, y), (x + 9, y + 9), 2, (1, 2, 3))
            self.canvas.disc(x, y, 4, (1, 2, 3))
            self.canvas.ring(x, y, 4, 2, (1, 2, 3))
            self.canvas.copy(Canvas(20, 10), Rect(x, y, 9, 9))
        self.assertEqual(size, len(self.canvas.pixels))

    def test_a_disc_covers_its_area(self):
        canvas = Canvas(40, 40)
        canvas.disc(20, 20, 10, (255, 255, 255))
        self.assertAlmostEqual(314.16, sum(canvas.pixels[::4]) / 255, delta=3)


class FontTest(testtools.TestCase):
    def test_each_printable_character_has_a_glyph_of_its_own(self):
        glyphs = {font.runs(chr(code), 1) for code in range(0x20, 0x7F)}
        self.assertEqual(95, len(glyphs))
        self.assertNotIn(font.runs('世', 1), glyphs)

    def test_glyphs_stay_in_their_cell(self):
        for scale in (1, 2, 4):
            for code in range(0x20, 0x80):
                for y, x, length in font.runs(chr(code), scale):
                    self.assertTrue(0 <= y < font.HEIGHT * scale)
                    self.assertTrue(x >= 0 and length > 0 and x + length <= font.WIDTH * scale)


class PixelFormatTest(testtools.TestCase):
    pixels = bytes(range(256)) * 4

    def expected(self, form):
        """The same, pixel by pixel and in the plainest way."""
        result = b''
        for start in range(0, len(self.pixels), 4):
            value = 0
            for channel in range(3):
                scaled = (self.pixels[start + channel] * form.maxima[channel] + 127) // 255
                value |= scaled << form.shifts[channel]
            result += value.to_bytes(form.bits // 8, 'big' if form.big_endian else 'little')
        return result

    def test_formats(self):
        for form in (
            PixelFormat(big_endian=True),
            PixelFormat(shifts=(16, 8, 0)),
            PixelFormat(shifts=(24, 16, 8), big_endian=True),
            PixelFormat(depth=30, maxima=(1023, 1023, 1023), shifts=(20, 10, 0)),
            PixelFormat(16, 16, False, (31, 63, 31), (11, 5, 0)),
            PixelFormat(16, 15, True, (31, 31, 31), (10, 5, 0)),
            PixelFormat(8, 8, False, (7, 7, 3), (0, 3, 6)),
            PixelFormat(8, 1, False, (1, 0, 0), (0, 0, 0)),
        ):
            self.assertEqual(form, PixelFormat.parse(form.packed()))
            self.assertEqual(self.expected(form), form.convert(self.pixels), form)
        self.assertEqual(self.pixels, PixelFormat().convert(self.pixels))

    @given(st.binary(min_size=16, max_size=16))
    def test_whatever_a_client_wishes(self, data):
        try:
            form = PixelFormat.parse(data)
        except ValueError:
            return
        self.assertEqual(256 * form.bits // 8, len(form.convert(self.pixels)))

    def test_tight_in_a_format_that_is_not_of_three_bytes(self):
        encoder = Encoder()
        encoder.format = form = PixelFormat(16, 16, False, (31, 63, 31), (11, 5, 0))
        encoder.choose((TIGHT,))
        data = encoder.encode(Rect(1, 2, 16, 16), self.pixels)
        self.assertEqual((1, 2, 16, 16, TIGHT, 0), struct.unpack('>HHHHiB', data[:13]))
        length = data[13] & 0x7F | data[14] << 7
        self.assertEqual(length, len(data) - 15)
        self.assertEqual(form.convert(self.pixels), zlib.decompressobj().decompress(data[15:]))

    def test_lengths_of_tight(self):
        for length, packed in (
            (0, b'\0'),
            (127, b'\x7f'),
            (128, b'\x80\x01'),
            (10000, b'\x90\x4e'),
            (16383, b'\xff\x7f'),
            (16384, b'\x80\x80\x01'),
            (2**22 - 1, b'\xff\xff\xff'),
        ):
            self.assertEqual(packed, compact_length(length))


class DesktopTest(testtools.TestCase):
    now = datetime.datetime(2026, 1, 2, 3, 4, 5)

    def setUp(self):
        super().setUp()
        self.desktop = Desktop('a guest', 'for tests', 640, 400)

    def type(self, *keysyms):
        for keysym in keysyms:
            self.desktop.key(keysym, True)
            self.desktop.key(keysym, False)

    def test_only_what_is_said_to_have_changed_has(self):
        steps = (
            lambda: self.desktop.tick(self.now, '1 client'),
            lambda: self.desktop.key(ord('a'), True),
            lambda: self.desktop.point(300, 200, 1),
            lambda: self.desktop.point(60, 110, 0),
            lambda: self.desktop.key(ord('b'), True),  # beneath the pointer
            lambda: self.desktop.point(570, 90, 0),
            lambda: self.desktop.tick(self.now + datetime.timedelta(seconds=7), '2 clients'),
            lambda: self.desktop.fade(),
            lambda: self.desktop.point(639, 399, 7),
        )
        for number, step in enumerate(steps):
            before = Canvas(640, 400, bytes(self.desktop.screen.pixels))
            changed = step()
            self.assertNotEqual(before.pixels, self.desktop.screen.pixels, f'step {number}')
            for rect in changed:
                self.assertEqual(rect, rect & self.desktop.bounds)
                before.copy(self.desktop.screen, rect)
            self.assertEqual(before.pixels, self.desktop.screen.pixels, f'step {number}')

    def test_the_mark_stays_and_is_the_only_one_of_its_colour(self):
        self.type(*map(ord, 'anything'))
        self.desktop.tick(self.now, '')
        marked = bytes((*MARK_COLOR, 255))
        self.assertEqual({marked}, {self.desktop.screen.cut(Rect(x, y, 1, 1)) for x, y in points(MARK_BOX)})
        pixels = bytes(self.desktop.screen.pixels)
        found = sum(pixels[start : start + 3] == marked[:3] for start in range(0, len(pixels), 4))
        self.assertEqual(MARK_BOX.width * MARK_BOX.height, found)

    def test_typing(self):
        self.type(SHIFT, ord('H'), ord('x'), BACKSPACE, ord('i'), 0x010020AC, 0xFFB7)
        self.assertEqual('Hi€7', self.desktop.text)
        self.desktop.key(CONTROL, True)
        self.type(ord('c'))
        self.assertEqual('Hi€7', self.desktop.text)
        self.desktop.release_all()
        before = self.desktop.screen.cut(TEXT_BOX)
        self.type(ord('!'))
        self.assertNotEqual(before, self.desktop.screen.cut(TEXT_BOX))
        self.type(RETURN)
        self.assertEqual('', self.desktop.text)
        self.type(*map(ord, 'x' * 1000))
        self.assertEqual(256, len(self.desktop.text))

    @given(st.integers(0, 2**32 - 1))
    def test_whatever_key(self, keysym):
        char = keysym_to_char(keysym)
        self.assertTrue(char is None or len(char) == 1)
        self.desktop.key(keysym, True)
        self.desktop.key(keysym, False)

    def test_each_size_and_name(self):
        for width, height in ((480, 240), (560, 300), (800, 600)):
            desktop = Desktop('x' * 300 + '\ud800', 'y' * 300, width, height)
            desktop.tick(self.now, 'z')
            self.assertEqual(width * height * 4, len(desktop.screen.pixels))

    def test_landscapes(self):
        some = {backdrop.landscape(name, 480, 240) for name in ('a', 'b', 'c', 'd')}
        self.assertEqual(4, len(some))
