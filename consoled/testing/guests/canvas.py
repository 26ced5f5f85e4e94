# SPDX-License-Identifier: Apache-2.0
"""A picture in memory, and the few things that the pretended desktop draws, all clipped to the picture."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

from consoled.testing.guests import font

Color = tuple[int, int, int]  # red, green, blue: 0..255


class Rect(NamedTuple):
    """A rectangle in pixels."""

    x: int
    y: int
    width: int
    height: int

    def __bool__(self) -> bool:
        return self.width > 0 and self.height > 0

    def __and__(self, other: Rect) -> Rect:
        """What both cover; false if that is nothing."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right = min(self.x + self.width, other.x + other.width)
        bottom = min(self.y + self.height, other.y + other.height)
        return Rect(x, y, right - x, bottom - y)

    def __or__(self, other: Rect) -> Rect:
        """The smallest one that covers both."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        right = max(self.x + self.width, other.x + other.width)
        bottom = max(self.y + self.height, other.y + other.height)
        return Rect(x, y, right - x, bottom - y)

    def __sub__(self, other: Rect) -> list[Rect]:
        """What the other one does not cover: above, below, left, right of it."""
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
        return Rect(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)


@functools.lru_cache(maxsize=4096)
def _towards(value: int, share: int) -> bytes:
    """A table from a channel's value to that value mixed with ``share``/255 of ``value``."""
    return bytes((old * (255 - share) + value * share + 127) // 255 for old in range(256))


def mix(first: Color, second: Color, share: float) -> Color:
    """``share`` (0..1) of the second colour, the rest of the first."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Canvas:
    """A picture: ``pixels`` has 4 bytes each, red, green, blue and one of no meaning, row by row."""

    def __init__(self, width: int, height: int, pixels: bytes | None = None) -> None:
        self.bounds = Rect(0, 0, width, height)
        self.pixels = bytearray(pixels if pixels is not None else width * height * 4)

    def _rows(self, rect: Rect) -> Iterator[tuple[int, int]]:
        """(start, end) in ``pixels`` of each row of a rectangle that lies inside."""
        stride = self.bounds.width * 4
        start = rect.y * stride + rect.x * 4
        for offset in range(start, start + rect.height * stride, stride):
            yield offset, offset + rect.width * 4

    def cut(self, rect: Rect) -> bytes:
        """The pixels of a rectangle that lies inside."""
        view = memoryview(self.pixels)
        return b''.join(view[start:end] for start, end in self._rows(rect))

    def copy(self, source: Canvas, rect: Rect) -> None:
        """Take a rectangle from a picture of the same size."""
        for start, end in self._rows(rect & self.bounds):
            self.pixels[start:end] = source.pixels[start:end]

    def fill(self, rect: Rect, color: Color) -> None:
        rect &= self.bounds
        if rect:
            row = bytes((*color, 255)) * rect.width
            for start, end in self._rows(rect):
                self.pixels[start:end] = row

    def blend(self, rect: Rect, color: Color, share: float) -> None:
        """Lay a colour over a rectangle; ``share``: 0 leaves it as it is, 1 fills it."""
        rect &= self.bounds
        if not rect:
            return
        tables = [_towards(value, round(share * 255)) for value in color]
        for start, end in self._rows(rect):
            for channel, table in enumerate(tables, start):
                self.pixels[channel:end:4] = self.pixels[channel:end:4].translate(table)

    def panel(self, rect: Rect, radius: int, color: Color, share: float) -> None:
        """A translucent rectangle with round corners."""
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
        """A line of text, its upper left corner at (x, y)."""
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
        self.line((x, y), (x, y), 2 * radius, color, share)

    def ring(self, x: float, y: float, radius: float, width: float, color: Color, share: float = 1.0) -> None:
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
        """A line with round ends and smooth edges."""
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
