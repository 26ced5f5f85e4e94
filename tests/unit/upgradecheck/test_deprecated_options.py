# SPDX-License-Identifier: Apache-2.0
"""Deprecated options, found by their names in the configuration files."""

import testtools
from oslo_config import cfg

from consoled.upgradecheck import deprecated_options


class FindTest(testtools.TestCase):
    KNOWN = [
        ('one', cfg.StrOpt('kept')),
        ('one', cfg.StrOpt('new-name', deprecated_name='old-name')),
        ('two', cfg.StrOpt('moved', deprecated_group='DEFAULT')),
        ('two', cfg.StrOpt('far', deprecated_name='away', deprecated_group='Other')),
        (
            'two',
            cfg.StrOpt('done', deprecated_for_removal=True, deprecated_reason='No\n  use.'),
        ),
        ('two', cfg.StrOpt('mute', deprecated_for_removal=True)),
    ]

    def found(self, *names):
        return deprecated_options.find(set(names), self.KNOWN)

    def test_options_that_are_not_deprecated(self):
        self.assertEqual([], self.found())
        self.assertEqual([], self.found(('one', 'kept'), ('one', 'new_name'), ('two', 'moved'), ('x', 'y')))

    def test_options_that_will_be_removed(self):
        self.assertEqual(
            ['[two] done will be removed: No use.', '[two] mute will be removed.'],
            self.found(('two', 'mute'), ('two', 'done'), ('two', 'far')),
        )

    def test_old_names_of_options(self):
        for name, said in (
            (('one', 'old-name'), '[one] old-name is now called [one] new_name.'),
            (('one', 'old_name'), '[one] old_name is now called [one] new_name.'),
            (('DEFAULT', 'moved'), '[DEFAULT] moved is now called [two] moved.'),
            (('other', 'away'), '[other] away is now called [two] far.'),
        ):
            self.assertEqual([said], self.found(name))
