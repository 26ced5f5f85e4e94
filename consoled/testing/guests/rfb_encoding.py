# SPDX-License-Identifier: Apache-2.0
"""Pixel formats and encodings of RFB.

Sources: RFC 6143, sections 7.4 and 7.7; for Tight and Zlib the community's rfbproto document.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
import zlib
from collections.abc import Sequence

from consoled.testing.guests.canvas import Rect

RAW, ZLIB, TIGHT = 0, 6, 7

_FORMAT = struct.Struct('>BBBBHHHBBB3x')
_COMPRESSION_LEVEL = 2  # low: the picture is simple, and CPU is scarce on a test machine
_TIGHT_BASIC = 0x00  # stream 0, no filter
_TIGHT_UNCOMPRESSED = 12  # bytes; smaller rectangles are not compressed


@dataclasses.dataclass(frozen=True)
class PixelFormat:
    """A pixel format that a client asks for; true colour only (RFC 6143, section 7.4).

    :param bits: bits per pixel: 8, 16 or 32
    :param maxima: the maximum values of red, green, blue
    :param shifts: the positions of red, green, blue, in bits from the lowest one
    """

    bits: int = 32
    depth: int = 24
    big_endian: bool = False
    maxima: tuple[int, int, int] = (255, 255, 255)
    shifts: tuple[int, int, int] = (0, 8, 16)

    @classmethod
    def parse(cls, data: bytes) -> PixelFormat:
        """Parse the 16 bytes of a PIXEL_FORMAT.

        :raises ValueError: when the format is invalid or not supported
        """
        bits, depth, big_endian, true_color, *rest = _FORMAT.unpack(data)
        red, green, blue, *shifts = rest
        if bits not in (8, 16, 32) or not true_color:
            raise ValueError('pixel format is not true colour with 8, 16 or 32 bits')
        if any(maximum.bit_length() + shift > bits for maximum, shift in zip(rest[:3], shifts, strict=True)):
            raise ValueError('pixel format does not fit into its bits')
        return cls(bits, depth, bool(big_endian), (red, green, blue), (shifts[0], shifts[1], shifts[2]))

    def packed(self) -> bytes:
        """Return the 16 bytes of a PIXEL_FORMAT."""
        return _FORMAT.pack(self.bits, self.depth, self.big_endian, 1, *self.maxima, *self.shifts)

    @property
    def three_bytes(self) -> bool:
        """Whether Tight sends three bytes a pixel (red, green, blue) instead of the whole pixel."""
        return self.bits == 32 and self.depth == 24 and self.maxima == (255, 255, 255)

    def convert(self, pixels: bytes) -> bytes:
        """Convert pixels from the layout of ``Canvas`` to this format."""
        if self == PixelFormat():
            return pixels
        size = self.bits // 8
        converted = bytearray(len(pixels) // 4 * size)
        for index in range(size):
            parts = [
                pixels[channel::4].translate(table)
                for channel, table in enumerate(_translation_tables(self)[index])
                if table is not None
            ]
            if parts:
                converted[index::size] = functools.reduce(_bitwise_or, parts)
        return bytes(converted)


def _bitwise_or(first: bytes, second: bytes) -> bytes:
    """Combine two byte strings bit by bit. As big integers this is far faster than byte by byte."""
    combined = int.from_bytes(first, 'little') | int.from_bytes(second, 'little')
    return combined.to_bytes(len(first), 'little')


@functools.lru_cache(maxsize=16)
def _translation_tables(pixel_format: PixelFormat) -> list[list[bytes | None]]:
    """Return a table for each byte of a pixel and each channel: what the values 0..255 add to that byte.

    A table is None where a channel adds nothing.
    """
    tables = []
    for index in range(pixel_format.bits // 8):
        low = 8 * (pixel_format.bits // 8 - 1 - index if pixel_format.big_endian else index)
        row = []
        for maximum, shift in zip(pixel_format.maxima, pixel_format.shifts, strict=True):
            values = (((value * maximum + 127) // 255 << shift >> low) & 255 for value in range(256))
            table = bytes(values)
            row.append(table if any(table) else None)
        tables.append(row)
    return tables


class Encoder:
    """Encodes rectangles for one client. Its zlib streams last as long as the connection."""

    def __init__(self) -> None:
        self.format = PixelFormat()
        self.encoding = RAW
        self._streams: dict[int, zlib._Compress] = {}

    def choose(self, encodings: Sequence[int]) -> None:
        """Choose the best of the encodings that the client supports."""
        self.encoding = next((each for each in (TIGHT, ZLIB) if each in encodings), RAW)

    def encode(self, rect: Rect, pixels: bytes) -> bytes:
        """Return a rectangle of a FramebufferUpdate, with its header.

        :param pixels: in the layout of ``Canvas``
        """
        header = struct.pack('>HHHHi', *rect, self.encoding)
        if self.encoding == ZLIB:
            data = self._deflate(ZLIB, self.format.convert(pixels))
            return header + struct.pack('>I', len(data)) + data
        if self.encoding == TIGHT:
            return header + bytes((_TIGHT_BASIC,)) + self._tight(pixels)
        return header + self.format.convert(pixels)

    def _tight(self, pixels: bytes) -> bytes:
        if self.format.three_bytes:
            data = bytearray(len(pixels) // 4 * 3)
            for channel in range(3):
                data[channel::3] = pixels[channel::4]
        else:
            data = bytearray(self.format.convert(pixels))
        if len(data) < _TIGHT_UNCOMPRESSED:
            return bytes(data)
        deflated = self._deflate(TIGHT, bytes(data))
        return compact_length(len(deflated)) + deflated

    def _deflate(self, stream: int, data: bytes) -> bytes:
        deflater = self._streams.get(stream)
        if deflater is None:
            deflater = self._streams[stream] = zlib.compressobj(_COMPRESSION_LEVEL)
        return deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)


def compact_length(length: int) -> bytes:
    """Return a length below 2**22 in Tight's format: 7, 7 and 8 bits, least significant first."""
    if length < 1 << 7:
        return bytes((length,))
    if length < 1 << 14:
        return bytes((length & 0x7F | 0x80, length >> 7))
    return bytes((length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14))
