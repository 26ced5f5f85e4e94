# SPDX-License-Identifier: Apache-2.0
"""Foreign text is shown without anything that a terminal obeys."""

import unicodedata

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import printable

_OBEYED = {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}  # controls, format characters, surrogates, separators of lines


class PrintableTest(testtools.TestCase):
    @given(st.text(st.characters(codec=None)))
    def test_a_line_has_nothing_that_acts(self, text):
        line = printable.line(text)
        self.assertEqual(set(), {unicodedata.category(char) for char in line} & _OBEYED)
        self.assertEqual(line, printable.line(line))

    @given(st.text(st.characters(categories=('L', 'N', 'P', 'S', 'M'))))
    def test_what_is_printable_is_not_changed(self, text):
        self.assertEqual(text, printable.line(text))

    def test_what_becomes_of_the_rest(self):
        for text, shown in (
            ('a\x1b]0;title\x07b', r'a\x1b]0;title\x07b'),
            ('one\r\ntwo\tthree', r'one\r\ntwo\tthree'),
            ('\x9b31m', r'\x9b31m'),
            ('user\u202egnp.exe\u2066\u200b', r'user\u202egnp.exe\u2066\u200b'),
            ('\udc1b\u2028', r'\udc1b\u2028'),
        ):
            self.assertEqual(shown, printable.line(text))

    def test_lines_keep_their_ends_only(self):
        self.assertEqual('a\\x1b[2J\nb\\r', printable.lines('a\x1b[2J\nb\r'))

    def test_colours_are_kept_on_request(self):
        self.assertEqual(
            '\x1b[31mred\x1b[0m\\x1b[2J', printable.lines('\x1b[31mred\x1b[0m\x1b[2J', colours=True)
        )
