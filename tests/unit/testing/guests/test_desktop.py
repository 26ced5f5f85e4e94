# SPDX-License-Identifier: Apache-2.0
"""The desktop: its contents, and the rectangles it reports as changed."""

import datetime

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.testing.guests.canvas import Canvas, Rect
from consoled.testing.guests.desktop import MARK_BOX, MARK_COLOR, TEXT_BOX, Desktop, keysym_to_char
from tests.unit.testing.guests.test_canvas import points

RETURN, BACKSPACE, CONTROL, SHIFT = 0xFF0D, 0xFF08, 0xFFE3, 0xFFE1


class DesktopTest(testtools.TestCase):
    now = datetime.datetime(2026, 1, 2, 3, 4, 5)

    def setUp(self):
        super().setUp()
        self.desktop = Desktop('a guest', 'for tests', 640, 400)

    def type(self, *keysyms):
        for keysym in keysyms:
            self.desktop.key(keysym, True)
            self.desktop.key(keysym, False)

    def test_nothing_changes_outside_the_returned_rectangles(self):
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

    def test_only_the_mark_has_its_colour(self):
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
    def test_any_keysym(self, keysym):
        char = keysym_to_char(keysym)
        self.assertTrue(char is None or len(char) == 1)
        self.desktop.key(keysym, True)
        self.desktop.key(keysym, False)

    def test_sizes_and_long_names(self):
        for width, height in ((480, 240), (560, 300), (800, 600)):
            desktop = Desktop('x' * 300 + '\ud800', 'y' * 300, width, height)
            desktop.tick(self.now, 'z')
            self.assertEqual(width * height * 4, len(desktop.screen.pixels))
