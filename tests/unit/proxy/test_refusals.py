# SPDX-License-Identifier: Apache-2.0
"""Refused websockets: counted, recorded, remembered, held against their address."""

from unittest import mock

import testtools

from consoled import exception
from consoled import token as tokens
from consoled.proxy.refusals import Refusals
from tests.unit.proxy import session_base
from tests.unit.proxy.session_base import ADDRESS, TOKEN


class RefusalsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.metrics, self.audit = mock.Mock(), mock.Mock()
        self.refusals = Refusals(2, self.metrics, self.audit)

    def refuse(self, error, token=TOKEN, session=None):
        self.refusals.refused(error, token, ADDRESS, session)

    def test_each_is_counted_recorded_and_remembered(self):
        error = exception.ConsoleInUse(since='noon')
        self.refuse(error)
        self.metrics.refused.assert_called_once_with('console_in_use')
        self.audit.refused.assert_called_once_with(error, ADDRESS, None)
        self.assertEqual(str(error), str(self.refusals.recent(TOKEN)))
        self.assertIsNone(self.refusals.recent(tokens.mint()))

    def test_whose_session_it_was_is_recorded_once_the_managers_have_said(self):
        process = session_base.Process()
        asked, granted = process.registry.create(TOKEN, ADDRESS), process.granted()
        self.refuse(exception.TargetFailed(), session=asked)
        self.assertIsNone(self.audit.refused.call_args.args[2])
        self.refuse(exception.TargetFailed(), session=granted)
        self.assertIs(granted, self.audit.refused.call_args.args[2])

    def test_tokens_that_do_not_exist_are_held_against_their_address(self):
        for _ in range(2):
            self.refusals.check_rate(ADDRESS)
            self.refuse(exception.InvalidToken(), tokens.mint())
        error = self.assertRaises(exception.RateLimited, self.refusals.check_rate, ADDRESS)
        self.refusals.check_rate('192.0.2.2')
        self.refuse(error)
        self.assertEqual(2, self.audit.refused.call_count, 'an address that guesses does not fill the log')
        self.assertEqual(3, self.metrics.refused.call_count)

    def test_one_that_was_granted_did_exist(self):
        granted = session_base.Process().granted()
        for _ in range(5):
            self.refuse(exception.InvalidToken(), session=granted)
        self.refusals.check_rate(ADDRESS)

    def test_nobody_is_held_responsible_for_other_refusals(self):
        for _ in range(5):
            self.refuse(exception.ConsoleGone())
        self.refusals.check_rate(ADDRESS)

    def test_a_malformed_request_is_counted_and_recorded(self):
        error = exception.OriginRefused()
        self.refusals.malformed(error, ADDRESS)
        self.metrics.refused.assert_called_once_with('origin_refused')
        self.audit.refused.assert_called_once_with(error, ADDRESS)
