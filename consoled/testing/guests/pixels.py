# SPDX-License-Identifier: Apache-2.0
"""Pixel formats and encodings of RFB (RFC 6143, sections 7.4 and 7.7; Tight and Zlib: TightVNC's)."""

from __future__ import annotations

import dataclasses
import functools
import struct
import zlib
from collections.abc import Sequence

from consoled.testing.guests.canvas import Rect

RAW, ZLIB, TIGHT = 0, 6, 7

_FORMAT = struct.Struct('>BBBBHHHBBB3x')
_LEVEL = 2  # of compression: the picture is simple, and a test machine has better things to do
_TIGHT_BASIC = 0x00  # stream 0, no filter
_TIGHT_UNCOMPRESSED = 12  # bytes; a smaller rectangle is sent as it is


@dataclasses.dataclass(frozen=True)
class PixelFormat:
    """How a client wants its pixels; true colour only.

    :param maxima: the greatest value of red, green, blue
    :param shifts: how many bits red, green, blue lie above the lowest one
    """

    bits: int = 32
    depth: int = 24
    big_endian: bool = False
    maxima: tuple[int, int, int] = (255, 255, 255)
    shifts: tuple[int, int, int] = (0, 8, 16)

    @classmethod
    def parse(cls, data: bytes) -> PixelFormat:
        """Read the 16 bytes of a PIXEL_FORMAT.

        :raises ValueError: it is not one that this can make
        """
        bits, depth, big_endian, true_color, *rest = _FORMAT.unpack(data)
        red, green, blue, *shifts = rest
        if bits not in (8, 16, 32) or not true_color:
            raise ValueError('pixel format is not true colour of 8, 16 or 32 bits')
        if any(maximum.bit_length() + shift > bits for maximum, shift in zip(rest[:3], shifts, strict=True)):
            raise ValueError('pixel format does not fit its size')
        return cls(bits, depth, bool(big_endian), (red, green, blue), (shifts[0], shifts[1], shifts[2]))

    def packed(self) -> bytes:
        return _FORMAT.pack(self.bits, self.depth, self.big_endian, 1, *self.maxima, *self.shifts)

    @property
    def three_bytes(self) -> bool:
        """Whether Tight leaves out the byte of no meaning, and sends red, green, blue."""
        return self.bits == 32 and self.depth == 24 and self.maxima == (255, 255, 255)

    def convert(self, pixels: bytes) -> bytes:
        """Turn pixels as ``Canvas`` has them into this format."""
        if self == PixelFormat():
            return pixels
        size = self.bits // 8
        converted = bytearray(len(pixels) // 4 * size)
        for place in range(size):
            parts = [
                pixels[channel::4].translate(table)
                for channel, table in enumerate(_tables(self)[place])
                if table is not None
            ]
            if parts:
                converted[place::size] = functools.reduce(_both, parts)
        return bytes(converted)


def _both(first: bytes, second: bytes) -> bytes:
    """The two combined bit by bit, as one big number, which is far faster than byte by byte."""
    combined = int.from_bytes(first, 'little') | int.from_bytes(second, 'little')
    return combined.to_bytes(len(first), 'little')


@functools.lru_cache(maxsize=16)
def _tables(pixel_format: PixelFormat) -> list[list[bytes | None]]:
    """For each byte of a pixel and each channel: what 0..255 adds to that byte; None for nothing."""
    tables = []
    for place in range(pixel_format.bits // 8):
        low = 8 * (pixel_format.bits // 8 - 1 - place if pixel_format.big_endian else place)
        row = []
        for maximum, shift in zip(pixel_format.maxima, pixel_format.shifts, strict=True):
            values = (((value * maximum + 127) // 255 << shift >> low) & 255 for value in range(256))
            table = bytes(values)
            row.append(table if any(table) else None)
        tables.append(row)
    return tables


class Encoder:
    """Encodes rectangles for one client; its zlib streams live as long as the connection."""

    def __init__(self) -> None:
        self.format = PixelFormat()
        self.encoding = RAW
        self._streams: dict[int, zlib._Compress] = {}

    def choose(self, encodings: Sequence[int]) -> None:
        """Take the best of what the client knows."""
        self.encoding = next((each for each in (TIGHT, ZLIB) if each in encodings), RAW)

    def encode(self, rect: Rect, pixels: bytes) -> bytes:
        """A rectangle of a FramebufferUpdate, its header first.

        :param pixels: as ``Canvas`` has them
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
            deflater = self._streams[stream] = zlib.compressobj(_LEVEL)
        return deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)


def compact_length(length: int) -> bytes:
    """A length below 2**22 as Tight writes it: 7, 7 and 8 bits, the lowest first."""
    if length < 1 << 7:
        return bytes((length,))
    if length < 1 << 14:
        return bytes((length & 0x7F | 0x80, length >> 7))
    return bytes((length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14))
