# SPDX-License-Identifier: Apache-2.0
"""Refused websockets: counted, recorded, remembered, and limited per address."""

import gc
import weakref
from unittest import mock

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import exception
from consoled import token as tokens
from consoled.proxy import refusals
from consoled.proxy.refusals import Refusals
from tests.unit.proxy import session_base
from tests.unit.proxy.session_base import ADDRESS, TOKEN
from tests.unit.proxy.test_responses import CLASSES, make_error


class RefusalsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.metrics, self.audit = mock.Mock(), mock.Mock()
        self.refusals = Refusals(2, self.metrics, self.audit)

    def refuse(self, error, token=TOKEN, session=None, foreign=False):
        self.refusals.refused(error, token, ADDRESS, session, foreign=foreign)

    def doubtful(self, address=ADDRESS, foreign=False):
        return self.refusals.doubtful_for(address, foreign=foreign) > 0

    def test_a_refusal_is_counted_recorded_and_remembered(self):
        error = exception.ConsoleInUse(since='noon')
        self.refuse(error)
        self.metrics.refused.assert_called_once_with('console_in_use')
        self.audit.refused.assert_called_once_with(error, ADDRESS, None)
        self.assertEqual(str(error), str(self.refusals.recent(TOKEN)))
        self.assertIsNone(self.refusals.recent(tokens.mint()))

    def test_what_is_free_instead_is_remembered(self):
        self.refuse(exception.ConsoleInUse(since='noon', serial_ports=4, free_ports=[2, 'x' * 10**6, 4]))
        kept = self.refusals.recent(TOKEN).kwargs
        self.assertEqual({'since': 'noon', 'serial_ports': 4, 'free_ports': [2, 4]}, kept)

    def test_the_session_is_recorded_only_if_it_was_granted(self):
        process = session_base.Process()
        asked, granted = process.registry.create(TOKEN, ADDRESS), process.granted()
        self.refuse(exception.TargetFailed(), session=asked)
        self.assertIsNone(self.audit.refused.call_args.args[2])
        self.refuse(exception.TargetFailed(), session=granted)
        self.assertIs(granted, self.audit.refused.call_args.args[2])

    def test_invalid_tokens_count_against_their_address(self):
        for _ in range(2):
            self.assertFalse(self.doubtful())
            self.refuse(exception.InvalidToken(), tokens.mint())
        self.assertTrue(self.doubtful())
        self.assertFalse(self.doubtful('192.0.2.2'))
        self.refuse(exception.RateLimited(seconds=1))
        self.assertEqual(2, self.audit.refused.call_count, 'a client that guesses must not flood the log')
        self.assertEqual(3, self.metrics.refused.call_count)

    def test_invalid_tokens_of_another_sites_page_are_counted_apart(self):
        for _ in range(2):
            self.refuse(exception.InvalidToken(), tokens.mint(), foreign=True)
        self.assertTrue(self.doubtful(foreign=True))
        self.assertFalse(self.doubtful())

    def test_users_whose_address_is_unknown_are_not_doubted(self):
        for _ in range(5):
            self.refusals.token_failed(None, foreign=False)
        self.assertFalse(self.doubtful(None))

    def test_explanations_that_need_a_manager_are_limited(self):
        self.assertEqual([True, True, False], [self.refusals.may_explain(ADDRESS) for _ in range(3)])
        self.assertTrue(self.refusals.may_explain('192.0.2.2'))

    def test_a_refusal_that_is_left_out_of_the_log_is_counted(self):
        self.refuse(exception.ConsoleGone())
        self.metrics.left_out.assert_not_called()
        self.audit.refused.return_value = False
        self.refuse(exception.ConsoleGone())
        self.refusals.malformed(exception.OriginRefused(), ADDRESS)
        self.assertEqual(
            [mock.call('console_gone'), mock.call('origin_refused')], self.metrics.left_out.call_args_list
        )

    def test_a_granted_token_that_becomes_invalid_does_not_count(self):
        granted = session_base.Process().granted()
        for _ in range(5):
            self.refuse(exception.InvalidToken(), session=granted)
        self.assertFalse(self.doubtful())

    def test_other_refusals_do_not_count(self):
        for _ in range(5):
            self.refuse(exception.ConsoleGone())
        self.assertFalse(self.doubtful())

    def test_a_malformed_request_is_counted_and_recorded(self):
        error = exception.OriginRefused()
        self.refusals.malformed(error, ADDRESS)
        self.metrics.refused.assert_called_once_with('origin_refused')
        self.audit.refused.assert_called_once_with(error, ADDRESS, None)


class RecentRefusalsTest(testtools.TestCase):
    def test_a_refusal_is_remembered_for_a_while(self):
        recent = refusals.RecentRefusals(keep=60)
        recent.note(TOKEN, exception.ConsoleInUse(since='noon'), 100.0)
        for now in (100.0, 130.0, 160.0):
            error = recent.recent(TOKEN, now)
            self.assertIsInstance(error, exception.ConsoleInUse)
            self.assertEqual('The console has been in use since noon.', str(error))
            self.assertEqual({'since': 'noon'}, error.kwargs)
        self.assertIsNone(recent.recent(TOKEN, 160.1))

    def test_other_tokens_have_no_refusal(self):
        recent = refusals.RecentRefusals()
        recent.note(TOKEN, exception.ConsoleGone(), 100.0)
        self.assertIsNone(recent.recent(tokens.mint(), 100.0))

    def test_the_last_refusal_counts(self):
        recent = refusals.RecentRefusals(keep=60)
        recent.note(TOKEN, exception.ConsoleGone(), 100.0)
        recent.note(TOKEN, exception.TargetTimeout(), 150.0)
        self.assertIsInstance(recent.recent(TOKEN, 205.0), exception.TargetTimeout)

    @given(st.integers(1, 5), st.lists(st.integers(0, 9), max_size=30))
    def test_the_latest_refusals_are_kept_up_to_the_limit(self, limit, numbers):
        recent = refusals.RecentRefusals(keep=1000, limit=limit)
        latest = []
        for now, number in enumerate(numbers):
            recent.note(f'{number:016}', exception.ConsoleGone(), float(now))
            latest = [number, *(each for each in latest if each != number)]
            for each in range(10):
                known = recent.recent(f'{each:016}', float(now)) is not None
                self.assertEqual(each in latest[:limit], known)

    def test_invariant_1_no_token_is_kept(self):
        recent = refusals.RecentRefusals()
        recent.note(TOKEN, exception.ConsoleGone(), 100.0)
        self.assertNotIn(TOKEN, repr(vars(recent)))

    def test_invariant_1_the_traceback_is_not_kept(self):
        """It would keep frames alive, and with them the connection and the clear token."""

        class Connection:
            pass

        def refuse(connection):
            try:
                try:
                    raise OSError(connection)
                except OSError as exc:
                    raise exception.TargetFailed() from exc
            except exception.TargetFailed as exc:
                recent.note(TOKEN, exc, 100.0)

        recent = refusals.RecentRefusals()
        connection = Connection()
        alive = weakref.ref(connection)
        refuse(connection)
        del connection
        gc.collect()
        self.assertIsNone(alive())
        self.assertIsInstance(recent.recent(TOKEN, 100.0), exception.TargetFailed)

    def test_what_is_remembered_is_small(self):
        recent = refusals.RecentRefusals()
        for error in (
            exception.InstanceNotReady('x' * 10**6),
            exception.InstanceNotReady(instance_uuid='x' * 10**6, reason=['x' * 10**6]),
        ):
            recent.note(TOKEN, error, 100.0)
            known = recent.recent(TOKEN, 100.0)
            self.assertIs(exception.InstanceNotReady, type(known))
            self.assertTrue(len(repr(vars(known))) + len(str(known)) < 2000)

    def test_what_is_too_old_is_forgotten(self):
        recent = refusals.RecentRefusals(keep=60)
        for number in range(100):
            recent.note(f'{number:016}', exception.ConsoleGone(), float(number))
        self.assertEqual(61, len(recent._recent))
        recent.recent(TOKEN, 1000.0)
        self.assertEqual(0, len(recent._recent))

    def test_the_original_error_keeps_its_traceback(self):
        recent = refusals.RecentRefusals()
        try:
            raise exception.TargetFailed()
        except exception.TargetFailed as exc:
            recent.note(TOKEN, exc, 100.0)
            self.assertIsNotNone(exc.__traceback__)

    def test_each_error_can_be_remembered(self):
        for cls in CLASSES:
            recent = refusals.RecentRefusals()
            error = make_error(cls)
            recent.note(TOKEN, error, 100.0)
            known = recent.recent(TOKEN, 100.0)
            self.assertEqual((type(error), str(error), error.kwargs), (type(known), str(known), known.kwargs))
