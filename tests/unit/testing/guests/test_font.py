# SPDX-License-Identifier: Apache-2.0
"""The bitmap font."""

import testtools

from consoled.testing.guests import font


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
