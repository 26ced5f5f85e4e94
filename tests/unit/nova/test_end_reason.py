# SPDX-License-Identifier: Apache-2.0
"""Which sessions end, and why."""

import datetime

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.db.watch import Watched
from consoled.nova.database import Instance
from consoled.nova.end_reason import Facts, Launch, find_end_reason

BEGAN = datetime.datetime(2026, 11, 30, 12, 0)
MINUTES = st.integers(-10_000, 10_000).map(lambda minutes: BEGAN + datetime.timedelta(minutes=minutes))


def at(seconds):
    """Return a moment so many seconds after the session began."""
    return BEGAN + datetime.timedelta(seconds=seconds)


def reason(*, host='cmp1', launched=-3600, issued=-5, deleted=False, before=None, exists=True):
    """Return why a session on cmp1 must end; moments are seconds from its beginning, or None."""
    launched_at = None if launched is None else at(launched)
    instance = Instance(1, 'uuid', host, launched_at, 'state') if exists else None
    facts = Facts(instance, None if issued is None else at(issued), deleted)
    session = Watched('id', 'uuid', 'cmp1', BEGAN, 'hash', 600)
    return find_end_reason(session, facts, before)


class EndReasonTest(testtools.TestCase):
    def test_what_is_as_it_was(self):
        for before in (None, Launch(at(-3600))):
            self.assertIsNone(reason(before=before))
            self.assertIsNone(reason(before=before, issued=None))  # the token has expired

    def test_instances_that_are_gone_or_elsewhere(self):
        for before in (None, Launch(at(-3600))):
            self.assertEqual('instance_gone', reason(before=before, exists=False))
            self.assertEqual('instance_gone', reason(before=before, host=None))
            self.assertEqual('console_moved', reason(before=before, host='cmp2'))
            self.assertEqual('console_moved', reason(before=before, host='cmp2', launched=5, deleted=True))
            self.assertEqual('console_gone', reason(before=before, deleted=True, issued=None))

    def test_a_launch_after_the_first_look_whatever_the_clocks_say(self):
        for launched in (-3601, -3599, -10, 0, 1, 10_000):
            self.assertEqual('console_gone', reason(before=Launch(at(-3600)), launched=launched))

    def test_the_first_launch_ends_no_session(self):
        self.assertIsNone(reason(before=Launch(None), launched=5))
        self.assertIsNone(reason(launched=None))
        self.assertIsNone(reason(before=Launch(at(-3600)), launched=None))

    def test_a_launch_before_the_first_look_is_compared_with_the_token(self):
        self.assertIsNone(reason(launched=-5, issued=-5))
        self.assertEqual('console_gone', reason(launched=-4, issued=-5))

    def test_or_with_the_session_if_the_token_is_gone(self):
        """By other clocks, so they may be a minute apart."""
        self.assertIsNone(reason(launched=60, issued=None))
        self.assertEqual('console_gone', reason(launched=61, issued=None))

    @given(
        st.sampled_from(['cmp1', 'cmp2', None]),
        st.none() | MINUTES,
        st.none() | MINUTES,
        st.booleans(),
        st.none() | st.builds(Launch, st.none() | MINUTES),
    )
    def test_a_session_goes_on_only_on_its_host_and_with_its_launch(
        self, host, launched_at, issued_at, deleted, before
    ):
        session = Watched('id', 'uuid', 'cmp1', BEGAN, 'hash', 600)
        instance = Instance(1, 'uuid', host, launched_at, 'state')
        if find_end_reason(session, Facts(instance, issued_at, deleted), before) is None:
            self.assertEqual(('cmp1', False), (host, deleted))
            if before is not None and before.at is not None:
                self.assertIn(launched_at, (before.at, None))
            elif before is None and launched_at is not None and issued_at is not None:
                self.assertTrue(launched_at <= issued_at)
