# SPDX-License-Identifier: Apache-2.0
"""Types of command-line arguments: accepted values, and errors that do not repeat the value."""

import argparse
import uuid

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.cli import arguments

LONGEST = 20


class ArgumentsTest(testtools.TestCase):
    def assert_refused(self, convert, value):
        error = self.assertRaises(argparse.ArgumentTypeError, convert, value)
        if len(value) > 3:
            self.assertNotIn(value, str(error))

    @given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
    def test_at_least(self, minimum, value):
        convert = arguments.at_least(minimum)
        if value >= minimum:
            self.assertEqual(value, convert(str(value)))
        else:
            self.assert_refused(convert, str(value))

    def test_at_least_refuses_what_is_not_a_plain_integer(self):
        for value in ('', ' 1', '1 ', '+1', '1_0', '1.0', '\u0661', '9' * 10, 'x', '1\n'):
            self.assert_refused(arguments.at_least(0), value)

    @given(st.uuids())
    def test_uuid_is_canonical(self, value):
        self.assertEqual(str(value), arguments.uuid(str(value).upper()))

    def test_uuid_refuses_other_notations(self):
        value = uuid.uuid4()
        for text in ('', 'x', value.hex, f'{{{value}}}', value.urn, f'{value} '):
            self.assert_refused(arguments.uuid, text)

    @given(st.text(max_size=LONGEST + 5))
    def test_text_is_unchanged_or_refused(self, value):
        convert = arguments.text(LONGEST)
        if 1 <= len(value) <= LONGEST and value.isprintable() and value == value.strip():
            self.assertEqual(value, convert(value))
        else:
            self.assertRaises(argparse.ArgumentTypeError, convert, value)

    def test_checked_shows_the_reason(self):
        def check(value):
            raise ValueError('must be something else')

        error = self.assertRaises(argparse.ArgumentTypeError, arguments.checked(check), 'secret')
        self.assertEqual('must be something else', str(error))
