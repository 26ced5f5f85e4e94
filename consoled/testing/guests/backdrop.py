# SPDX-License-Identifier: Apache-2.0
"""Wallpaper of the fake desktop: a landscape with sky, sun, hills and trees, different for each name."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import zlib

from consoled.testing.guests.canvas import Canvas, Color, mix

_HORIZON = 0.80  # as a share of the height: where the sky reaches its lowest colour
_SUN, _GLOW = 0.085, 0.34  # radii as shares of the height


@dataclasses.dataclass(frozen=True)
class _Palette:
    sky: tuple[Color, ...]  # from top to horizon, evenly spaced
    sun: Color
    mist: Color  # between the hills
    far: Color
    near: Color
    stars: int = 0


_PALETTES = (
    _Palette(
        sky=((30, 34, 84), (92, 72, 138), (206, 112, 128), (250, 178, 122), (255, 222, 164)),
        sun=(255, 240, 206),
        mist=(214, 138, 132),
        far=(150, 96, 130),
        near=(26, 22, 52),
        stars=40,
    ),
    _Palette(
        sky=((44, 110, 178), (88, 154, 208), (150, 200, 226), (206, 230, 234), (240, 244, 232)),
        sun=(255, 252, 232),
        mist=(186, 212, 204),
        far=(122, 164, 168),
        near=(18, 58, 50),
    ),
    _Palette(
        sky=((7, 11, 32), (16, 28, 66), (34, 56, 104), (70, 100, 144), (118, 146, 172)),
        sun=(238, 242, 250),
        mist=(76, 104, 138),
        far=(48, 72, 112),
        near=(5, 10, 22),
        stars=150,
    ),
    _Palette(
        sky=((62, 84, 140), (118, 128, 182), (192, 164, 196), (244, 196, 188), (255, 226, 202)),
        sun=(255, 246, 226),
        mist=(226, 190, 196),
        far=(142, 134, 176),
        near=(20, 42, 64),
    ),
)


@functools.lru_cache(maxsize=8)
def landscape(name: str, width: int, height: int) -> bytes:
    """Return the pixels of the landscape for a name, in the layout of ``Canvas``."""
    seed = zlib.crc32(name.encode(errors='replace'))
    return _Landscape(_PALETTES[seed % len(_PALETTES)], random.Random(seed), width, height).pixels()


class _Landscape:
    def __init__(self, palette: _Palette, rng: random.Random, width: int, height: int) -> None:
        self.palette = palette
        self.rng = rng
        self.width = width
        self.height = height
        self.sun_x = width * rng.uniform(0.42, 0.62)
        self.sun_y = height * rng.uniform(0.5, 0.55)

    def pixels(self) -> bytes:
        # The picture is built column by column, because a column is some sky and then a slice of each hill.
        # The planes therefore hold the transposed picture; slices with a step transpose it back.
        sky = [self._sky_at(y) for y in range(self.height)]
        hills = [self._hill(layer, 4) for layer in range(4)]
        planes = [bytearray(), bytearray(), bytearray()]
        for x in range(self.width):
            column = self._sunny(sky, x)
            for crest, profile in hills:
                self._raise(column, crest[x], profile)
            for plane, values in zip(planes, zip(*column, strict=True), strict=True):
                plane += bytes(values)
        canvas = Canvas(self.width, self.height)
        for channel, plane in enumerate(planes):
            for y in range(self.height):
                start = y * self.width * 4
                canvas.pixels[start + channel : start + self.width * 4 : 4] = plane[y :: self.height]
        self._stars(canvas, min(min(crest) for crest, _ in hills))
        return bytes(canvas.pixels)

    def _sky_at(self, y: int) -> Color:
        at = min(1.0, y / (self.height * _HORIZON)) * (len(self.palette.sky) - 1)
        index = min(int(at), len(self.palette.sky) - 2)
        return mix(self.palette.sky[index], self.palette.sky[index + 1], at - index)

    def _sunny(self, sky: list[Color], x: int) -> list[Color]:
        column = list(sky)
        radius, glow = self.height * _SUN, self.height * _GLOW
        across = x + 0.5 - self.sun_x
        reach = math.sqrt(max(0.0, glow * glow - across * across))
        for y in range(max(0, int(self.sun_y - reach)), min(self.height, int(self.sun_y + reach))):
            distance = math.hypot(across, y + 0.5 - self.sun_y)
            shine = 0.6 * max(0.0, 1 - distance / glow) ** 2
            disc = max(0.0, min(1.0, radius + 0.5 - distance))
            column[y] = mix(column[y], self.palette.sun, max(shine, disc))
        return column

    def _hill(self, layer: int, layers: int) -> tuple[list[float], list[Color]]:
        """Return a chain of hills: the height of its crest at each x, its colour at each y."""
        depth = layer / (layers - 1)  # 0 far, 1 near
        base = self.height * (0.60 + 0.27 * depth)
        swing = self.height * (0.075 - 0.025 * depth)
        waves = [
            (self.rng.uniform(0.7, 1.3) * step * math.tau / self.width, self.rng.uniform(0, math.tau), size)
            for step, size in ((1.3, 1.0), (3.1, 0.5), (7.3, 0.18), (17.0, 0.06 * (1 - depth)))
        ]
        crest = [
            base + swing * sum(size * math.sin(rate * x + phase) for rate, phase, size in waves)
            for x in range(self.width)
        ]
        if layer == layers - 2:
            self._plant(crest)
        color = mix(self.palette.far, self.palette.near, depth)
        top, fall = base - swing, self.height * 0.3
        profile = [
            mix(color, self.palette.mist, 0.5 * (1 - depth) * max(0.0, min(1.0, (y - top) / fall)))
            for y in range(self.height)
        ]
        return crest, profile

    def _plant(self, crest: list[float]) -> None:
        """Plant groups of firs along a crest."""
        ground = list(crest)
        x = 0.0
        while x < self.width:
            for _ in range(self.rng.randint(2, 6)):
                x += self.rng.uniform(5, 15)
                size = self.height * self.rng.uniform(0.035, 0.075)
                for px in range(max(0, int(x - size / 3)), min(self.width, int(x + size / 3) + 1)):
                    outer = abs(px + 0.5 - x) / (size / 3)
                    jagged = 1 - outer - 0.12 * ((outer * 4) % 1)
                    crest[px] = min(crest[px], ground[px] - size * max(0.0, jagged))
            x += self.rng.uniform(40, 130)

    def _raise(self, column: list[Color], crest: float, profile: list[Color]) -> None:
        top = max(0, min(self.height - 1, math.ceil(crest)))
        column[top:] = profile[top:]
        if top > crest and top > 0:  # the pixel that the crest crosses
            column[top - 1] = mix(column[top - 1], profile[top - 1], top - crest)

    def _stars(self, canvas: Canvas, floor: float) -> None:
        for _ in range(self.palette.stars):
            x, y = self.rng.uniform(0, self.width), self.rng.uniform(0, floor * 0.8)
            size = self.rng.choice((0.6, 0.6, 0.9, 1.3))
            canvas.disc(x, y, size, self.palette.sun, self.rng.uniform(0.3, 0.9) * (1 - y / floor))
