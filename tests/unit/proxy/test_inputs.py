# SPDX-License-Identifier: Apache-2.0
"""What may be done with a console in which mode."""

import testtools

from consoled import exception
from consoled.proxy import inputs
from consoled.proxy.security.messages import ClientMessages

KEY = b'\x04\x01\x00\x00\x00\x00\x00\x61'


class InputsTest(testtools.TestCase):
    def test_without_a_mode_everything_is_forwarded(self):
        for console_type in ('serial', 'spice-html5', 'webmks'):
            for mode in (None, ''):
                looks = inputs.input_of(console_type, mode)
                self.assertEqual((b'abc', True), looks.feed(b'abc'))
                self.assertEqual((b'', False), looks.feed(b''))

    def test_of_a_screen_it_is_known_what_the_user_did(self):
        looks = inputs.input_of('novnc', None)
        self.assertIsInstance(looks, ClientMessages)
        self.assertEqual((b'\x01', False), looks.feed(b'\x01'))
        self.assertEqual((KEY, True), looks.feed(KEY))

    def test_a_viewer_of_a_screen_does_nothing(self):
        looks = inputs.input_of('novnc', 'view')
        self.assertEqual(b'\x01', looks.feed(b'\x01')[0])
        self.assertEqual(b'', looks.feed(KEY)[0])

    def test_a_viewer_of_a_serial_port_does_nothing(self):
        self.assertEqual((b'', False), inputs.input_of('serial', 'view').feed(b'rm -rf /'))

    def test_what_can_not_be_kept_to_a_mode_is_refused(self):
        for console_type, mode in (
            ('spice-html5', 'view'),
            ('webmks', 'view'),
            ('novnc', 'admin'),
            ('serial', 'View'),
        ):
            self.assertRaises(exception.ModeUnsupported, inputs.input_of, console_type, mode)
