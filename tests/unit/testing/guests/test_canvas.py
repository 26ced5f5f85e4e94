# SPDX-License-Identifier: Apache-2.0
"""Rectangles, and drawing on a canvas."""

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.testing.guests.canvas import Canvas, Rect, mix

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

    def test_drawing_is_clipped_to_the_canvas(self):
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
