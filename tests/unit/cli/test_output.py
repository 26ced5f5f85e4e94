# SPDX-License-Identifier: Apache-2.0
"""Formats of the output."""

import datetime

import testtools

from consoled.cli import output


class IsoTest(testtools.TestCase):
    def test_moments_are_in_utc_and_cut_to_seconds(self):
        berlin = datetime.timezone(datetime.timedelta(hours=1))
        for moment, text in (
            (datetime.datetime(2026, 1, 2, 4, 4, 5, 999999, berlin), '2026-01-02T03:04:05Z'),
            (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), '2026-01-02T00:00:00Z'),
            (None, None),
        ):
            self.assertEqual(text, output.iso(moment))
