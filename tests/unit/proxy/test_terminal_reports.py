# SPDX-License-Identifier: Apache-2.0
"""Reports of a terminal are told apart from what its user does."""

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.input_filter import input_filter_for
from tests.unit.proxy.security import peers

ST = b'\x1b\\'
# What xterm.js 6, xterm, VTE, kitty and Konsole answer to a guest that asks, and when it turns reports on.
REPORTS = [
    b'\x1b[1;1R',  # position of the cursor
    b'\x1b[24;80R',
    b'\x1b[?24;80;1R',
    b'\x1b[0n',  # status
    b'\x1b[?10n',
    b'\x1b[?997;1n',
    b'\x1b[?1;2c',  # device attributes
    b'\x1b[>0;276;0c',
    b'\x1bP!|00000000' + ST,
    b'\x1b[?2026;2$y',  # modes
    b'\x1b[4;2$y',
    b'\x1bP1$r0m' + ST,  # settings
    b'\x1bP0$r' + ST,
    b'\x1bP1$u1;1;1;0@' + ST,
    b'\x1bP1+r544e=787465726d' + ST,  # capabilities
    b'\x1bP>|XTerm(390)' + ST,
    b'\x1b]4;1;rgb:cdcd/0000/0000' + ST,  # colours
    b'\x1b]11;rgb:0b0b/0e0e/1414\x07',
    b'\x1b]52;c;aGVsbG8=' + ST,  # the clipboard
    b'\x1b]lroot@guest: ~ \xe2\x82\xac' + ST,  # the title
    b'\x1b]L' + ST,
    b'\x1b[8;24;80t',  # the window
    b'\x1b[1t',
    b'\x1b[2;1;1;128;128;1;0x',
    b'\x1b[0&w',
    b'\x1b[24;80;1;1;1"w',  # the page, space for macros, colours: xterm
    b'\x1b[0*{',
    b'\x1b[0;1;38:2::1:2:3m',
    b'\x1b[?1u',  # protocol of the keyboard
    b'\x1b_Gi=31;OK' + ST,
    b'\x1b[I',  # focus
    b'\x1b[O',
    b'\x1b/Z',
    b'\x9b1;1R',  # the same with C1 control characters, alone and in UTF-8
    b'\xc2\x9b1;1R',
    b'\x9d11;rgb:0/0/0\x9c',
    b'\xc2\x90>|XTerm(390)\xc2\x9c',
]
# What keys, the mouse and pasting send.
INPUT = [
    *(b'a', b'\r', b'\x03', b'\t', b'\x7f', b'\x00', b'R', b'0n', b'\xc3\xa9', b'\xc4\x9b', b'\xe2\x9b\x84'),
    *(b'\x1b', b'\x1b\x1b', b'\x1ba', b'\x1b\r', b'\x1b[[A'),  # Escape, Alt, and a key of a Linux console
    *(
        b'\x1b[A',
        b'\x1bOA',
        b'\x1b[1;5A',
        b'\x1b[H',
        b'\x1b[5~',
        b'\x1b[3;5~',
        b'\x1b[Z',
        b'\x1b[c',
        b'\x1b[R',
    ),
    *(b'\x1bOR', b'\x1b[1;2P', b'\x1b[15~', b'\x1b[13~'),
    *(b'\x1b[97;5u', b'\x1b[27;5;93~'),  # kitty's protocol and xterm's modifyOtherKeys
    *(b'\x1b[<0;10;20M', b'\x1b[<0;10;20m', b'\x1b[M !!', b'\x1b[32;1;1M'),
    b'\x1b[200~0n\x1b[201~',
    b'\x1bPlease\r',  # Alt+P and more keys
    b'\x1b]l\r',
    b'\x1b]0;\x03',
]


class TerminalReportsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.filter = input_filter_for('serial', None)

    def is_input(self, *pieces):
        """Return whether any of the pieces is input; everything must be forwarded unchanged."""
        found = []
        for piece in pieces:
            data, is_input = self.filter.feed(piece)
            self.assertEqual(piece, data)
            found.append(is_input)
        return any(found)

    @given(st.lists(st.sampled_from(REPORTS), max_size=20), peers.cuts)
    def test_reports_are_not_input_however_they_are_split(self, reports, cuts):
        self.filter = input_filter_for('serial', None)
        stream = b''.join(reports)
        pieces = [piece for piece in peers.pieces(stream, cuts) if piece != b'\x1b']
        if b''.join(pieces) == stream:  # a lone ESC is the Escape key
            self.assertFalse(self.is_input(*pieces))

    @given(
        st.lists(st.sampled_from(REPORTS), max_size=5),
        st.sampled_from(INPUT).filter(lambda typed: typed != b'\x1b'),
        st.lists(st.sampled_from(REPORTS), max_size=5),
        peers.cuts,
    )
    def test_input_among_reports_is_found_however_they_are_split(self, before, typed, after, cuts):
        self.filter = input_filter_for('serial', None)
        self.assertTrue(self.is_input(*peers.pieces(b''.join([*before, typed, *after]), cuts)))

    def test_each_report_is_recognized(self):
        for report in REPORTS:
            self.assertFalse(self.is_input(report), report)
            self.assertEqual(b'', self.filter._unfinished)

    def test_each_input_counts(self):
        for typed in INPUT:
            self.filter = input_filter_for('serial', None)
            self.assertTrue(self.is_input(typed), typed)

    def test_the_escape_key_counts_each_time(self):
        for _ in range(3):
            self.assertTrue(self.is_input(b'\x1b'))

    def test_what_may_become_a_report_counts_with_the_next_key(self):
        for typed in (
            b'\x1b[',
            b'\x1b[23$',
            b'\x1bP',
            b'\xc2',
        ):  # Alt+[, a key of rxvt, Alt+P, half a character
            self.filter = input_filter_for('serial', None)
            self.assertFalse(self.is_input(typed), typed)
            self.assertTrue(self.is_input(b'\r'), typed)

    def test_f3_with_shift_does_not_count_because_it_looks_like_a_report(self):
        self.assertFalse(self.is_input(b'\x1b[1;2R'))

    def test_a_user_is_found_behind_a_string_that_does_not_end(self):
        self.assertFalse(self.is_input(b'\x1b]52;c;'))
        for _ in range(3):
            self.assertFalse(self.is_input(b'x' * 5000))
        self.assertTrue(self.is_input(b'\r'))
        self.assertTrue(self.is_input(b'a'))

    @given(st.lists(st.binary(max_size=60), max_size=20))
    def test_invariant_9_little_is_remembered(self, pieces):
        self.filter = input_filter_for('serial', None)
        for piece in pieces:
            self.is_input(piece)
            self.assertTrue(len(self.filter._unfinished) <= 70)

    def test_nothing_is_not_input(self):
        self.assertFalse(self.is_input(b'', b''))
