# SPDX-License-Identifier: Apache-2.0
"""Pixel formats and encodings."""

import struct
import zlib

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.testing.guests.canvas import Rect
from consoled.testing.guests.rfb_encoding import TIGHT, Encoder, PixelFormat, compact_length


class PixelFormatTest(testtools.TestCase):
    pixels = bytes(range(256)) * 4

    def expected(self, form):
        """Convert pixel by pixel, in the simplest way."""
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
    def test_any_format_that_can_be_parsed_converts(self, data):
        try:
            form = PixelFormat.parse(data)
        except ValueError:
            return
        self.assertEqual(256 * form.bits // 8, len(form.convert(self.pixels)))

    def test_tight_in_a_format_without_three_byte_pixels(self):
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
