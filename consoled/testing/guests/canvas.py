# SPDX-License-Identifier: Apache-2.0
"""A picture in memory, with the drawing operations of the fake desktop, all clipped to the picture."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

from consoled.testing.guests import font

Color = tuple[int, int, int]  # red, green, blue: 0..255


class Rect(NamedTuple):
    """A rectangle in pixels; false when it is empty."""

    x: int
    y: int
    width: int
    height: int

    def __bool__(self) -> bool:
        return self.width > 0 and self.height > 0

    def __and__(self, other: Rect) -> Rect:
        """Return the intersection, which is false when it is empty."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right = min(self.x + self.width, other.x + other.width)
        bottom = min(self.y + self.height, other.y + other.height)
        return Rect(x, y, right - x, bottom - y)

    def __or__(self, other: Rect) -> Rect:
        """Return the smallest rectangle that contains both."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        right = max(self.x + self.width, other.x + other.width)
        bottom = max(self.y + self.height, other.y + other.height)
        return Rect(x, y, right - x, bottom - y)

    def __sub__(self, other: Rect) -> list[Rect]:
        """Return the parts of this rectangle that the other does not cover: above, below, left, right."""
        inner = self & other
        if not inner:
            return [self]
        right, bottom = inner.x + inner.width, inner.y + inner.height
        parts = (
            Rect(self.x, self.y, self.width, inner.y - self.y),
            Rect(self.x, bottom, self.width, self.y + self.height - bottom),
            Rect(self.x, inner.y, inner.x - self.x, inner.height),
            Rect(right, inner.y, self.x + self.width - right, inner.height),
        )
        return [part for part in parts if part]

    def grown(self, by: int) -> Rect:
        """Return the rectangle enlarged by that many pixels on each side."""
        return Rect(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)


@functools.lru_cache(maxsize=4096)
def _blend_table(value: int, share: int) -> bytes:
    """Return a translation table that mixes each channel value with ``share``/255 of ``value``."""
    return bytes((old * (255 - share) + value * share + 127) // 255 for old in range(256))


def mix(first: Color, second: Color, share: float) -> Color:
    """Mix two colours.

    :param share: of the second colour, 0..1
    """
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Canvas:
    """A picture.

    :ivar pixels: 4 bytes a pixel (red, green, blue, unused), row by row
    :ivar bounds: the whole picture as a rectangle
    """

    def __init__(self, width: int, height: int, pixels: bytes | None = None) -> None:
        self.bounds = Rect(0, 0, width, height)
        self.pixels = bytearray(pixels if pixels is not None else width * height * 4)

    def _rows(self, rect: Rect) -> Iterator[tuple[int, int]]:
        """Yield (start, end) in ``pixels`` of each row of a rectangle inside the picture."""
        stride = self.bounds.width * 4
        start = rect.y * stride + rect.x * 4
        for offset in range(start, start + rect.height * stride, stride):
            yield offset, offset + rect.width * 4

    def cut(self, rect: Rect) -> bytes:
        """Return the pixels of a rectangle inside the picture."""
        view = memoryview(self.pixels)
        return b''.join(view[start:end] for start, end in self._rows(rect))

    def copy(self, source: Canvas, rect: Rect) -> None:
        """Copy a rectangle from a picture of the same size."""
        for start, end in self._rows(rect & self.bounds):
            self.pixels[start:end] = source.pixels[start:end]

    def fill(self, rect: Rect, color: Color) -> None:
        """Fill a rectangle with a colour."""
        rect &= self.bounds
        if rect:
            row = bytes((*color, 255)) * rect.width
            for start, end in self._rows(rect):
                self.pixels[start:end] = row

    def blend(self, rect: Rect, color: Color, share: float) -> None:
        """Blend a colour over a rectangle.

        :param share: opacity, 0..1
        """
        rect &= self.bounds
        if not rect:
            return
        tables = [_blend_table(value, round(share * 255)) for value in color]
        for start, end in self._rows(rect):
            for channel, table in enumerate(tables, start):
                self.pixels[channel:end:4] = self.pixels[channel:end:4].translate(table)

    def panel(self, rect: Rect, radius: int, color: Color, share: float) -> None:
        """Draw a translucent rectangle with rounded corners."""
        for y in range(rect.height):
            depth = max(0.0, radius - y - 0.5, y + 0.5 - (rect.height - radius))
            inset = radius - math.sqrt(max(0.0, radius * radius - depth * depth))
            whole = int(inset)
            line = Rect(rect.x + whole, rect.y + y, rect.width - 2 * whole, 1)
            if inset == whole:
                self.blend(line, color, share)
                continue
            self.blend(Rect(line.x + 1, line.y, line.width - 2, 1), color, share)
            edge = share * (1 - (inset - whole))
            self.blend(Rect(line.x, line.y, 1, 1), color, edge)
            self.blend(Rect(line.x + line.width - 1, line.y, 1, 1), color, edge)

    def text(self, x: int, y: int, text: str, color: Color, scale: int = 1) -> None:
        """Draw a line of text with its upper left corner at (x, y).

        :param scale: 1, 2 or 4
        """
        pixel = bytes((*color, 255))
        stride = self.bounds.width * 4
        for char in text:
            for row, left, length in font.runs(char, scale):
                run = Rect(x + left, y + row, length, 1) & self.bounds
                if run:
                    start = run.y * stride + run.x * 4
                    self.pixels[start : start + run.width * 4] = pixel * run.width
            x += font.ADVANCE * scale

    def disc(self, x: float, y: float, radius: float, color: Color, share: float = 1.0) -> None:
        """Draw a filled circle with smooth edges."""
        self.line((x, y), (x, y), 2 * radius, color, share)

    def ring(self, x: float, y: float, radius: float, width: float, color: Color, share: float = 1.0) -> None:
        """Draw a circle with smooth edges."""
        for px, py in self._near(Rect(int(x), int(y), 1, 1).grown(int(radius + width) + 1)):
            distance = abs(math.hypot(px + 0.5 - x, py + 0.5 - y) - radius)
            self._dab(px, py, color, share * min(1.0, width / 2 + 0.5 - distance))

    def line(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        width: float,
        color: Color,
        share: float = 1.0,
    ) -> None:
        """Draw a line with round ends and smooth edges."""
        (x, y), (across, along) = start, (end[0] - start[0], end[1] - start[1])
        square = across * across + along * along
        box = Rect(int(x), int(y), 1, 1) | Rect(int(end[0]), int(end[1]), 1, 1)
        reach = width / 2 + 0.5
        for px, py in self._near(box.grown(int(reach) + 1)):
            dx, dy = px + 0.5 - x, py + 0.5 - y
            if square:
                at = max(0.0, min(1.0, (dx * across + dy * along) / square))
                dx, dy = dx - at * across, dy - at * along
            distance = math.hypot(dx, dy)
            if distance < reach:
                self._dab(px, py, color, share * min(1.0, reach - distance))

    def _near(self, box: Rect) -> Iterator[tuple[int, int]]:
        box &= self.bounds
        for y in range(box.y, box.y + box.height):
            for x in range(box.x, box.x + box.width):
                yield x, y

    def _dab(self, x: int, y: int, color: Color, share: float) -> None:
        if share <= 0:
            return
        share = min(1.0, share)
        offset = (y * self.bounds.width + x) * 4
        for channel, value in enumerate(color, offset):
            old = self.pixels[channel]
            self.pixels[channel] = round(old + (value - old) * share)
