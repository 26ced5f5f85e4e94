# SPDX-License-Identifier: Apache-2.0
"""The wallpaper."""

import testtools

from consoled.testing.guests import backdrop


class LandscapeTest(testtools.TestCase):
    def test_each_name_has_its_own_landscape(self):
        landscapes = {backdrop.landscape(name, 480, 240) for name in ('a', 'b', 'c', 'd')}
        self.assertEqual(4, len(landscapes))
