# SPDX-License-Identifier: Apache-2.0
"""Filters by console type and mode."""

import testtools

from consoled import exception
from consoled.proxy import input_filter
from consoled.proxy.security.messages import ClientMessages

KEY = b'\x04\x01\x00\x00\x00\x00\x00\x61'


class InputFilterTest(testtools.TestCase):
    def test_without_a_mode_everything_is_forwarded(self):
        for console_type in ('serial', 'spice-html5', 'webmks'):  # SPICE begins with a header of 16 bytes
            for mode in (None, ''):
                found = input_filter.input_filter_for(console_type, mode)
                self.assertEqual((b'abc' * 6, True), found.feed(b'abc' * 6))
                self.assertEqual((b'', False), found.feed(b''))

    def test_reports_of_a_terminal_are_not_input(self):
        self.assertEqual(
            (b'\x1b[1;1R', False), input_filter.input_filter_for('serial', None).feed(b'\x1b[1;1R')
        )
        self.assertEqual(
            (b'\x1b[1;1R', True), input_filter.input_filter_for('webmks', None).feed(b'\x1b[1;1R')
        )

    def test_vnc_messages_are_told_apart(self):
        found = input_filter.input_filter_for('novnc', None)
        self.assertIsInstance(found, ClientMessages)
        self.assertEqual((b'\x01', False), found.feed(b'\x01'))
        self.assertEqual((KEY, True), found.feed(KEY))

    def test_a_viewer_of_a_vnc_console_sends_no_input(self):
        found = input_filter.input_filter_for('novnc', 'view')
        self.assertEqual(b'\x01', found.feed(b'\x01')[0])
        self.assertEqual(b'', found.feed(KEY)[0])

    def test_a_viewer_of_a_serial_console_sends_nothing(self):
        self.assertEqual((b'', False), input_filter.input_filter_for('serial', 'view').feed(b'rm -rf /'))

    def test_modes_that_cannot_be_enforced_are_refused(self):
        for console_type, mode in (
            ('spice-html5', 'view'),
            ('webmks', 'view'),
            ('novnc', 'admin'),
            ('serial', 'View'),
        ):
            self.assertRaises(exception.ModeUnsupported, input_filter.input_filter_for, console_type, mode)
