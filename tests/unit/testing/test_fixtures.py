# SPDX-License-Identifier: Apache-2.0
"""The helpers that need no service."""

import testtools

from consoled.testing import fixtures


class WaitUntilTest(testtools.TestCase):
    def test_returns_the_first_true_value(self):
        values = iter([None, 0, '', 'ready', 'later'])
        self.assertEqual('ready', fixtures.wait_until(lambda: next(values)))

    def test_names_what_did_not_happen(self):
        error = self.assertRaises(
            TimeoutError, fixtures.wait_until, lambda: False, timeout=0, what='the session'
        )
        self.assertEqual('the session: not within 0 s', str(error))


class ConfTest(testtools.TestCase):
    def test_overrides_are_named_by_group_and_option(self):
        config = self.useFixture(fixtures.Conf(host='node-1', manager__lease=5))
        self.assertEqual(('node-1', 5), (config.conf.host, config.conf.manager.lease))
        config.set(manager__lease=7)
        self.assertEqual(7, config.conf.manager.lease)

    def test_two_configurations_are_independent(self):
        first = self.useFixture(fixtures.Conf(manager__lease=5))
        second = self.useFixture(fixtures.Conf())
        self.assertEqual((5, 60), (first.conf.manager.lease, second.conf.manager.lease))
