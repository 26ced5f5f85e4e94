# SPDX-License-Identifier: Apache-2.0
"""Pushing cuts to the proxies."""

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.context import RequestContext
from consoled.manager.session_cutter import SessionCutter
from consoled.objects import EndReason
from tests.unit.manager import base


class SessionCutterTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.casts = []
        self.proxies = base.Proxies()
        self.proxies.on_cut = self.casts.append
        self.cutter = SessionCutter(self.proxies)

    def cut(self, count):
        self.cutter.cut(RequestContext(), [str(number) for number in range(count)], EndReason.CONSOLE_GONE)

    def test_a_cast_has_a_thousand_sessions_at_most(self):
        self.cut(2001)
        self.assertEqual([1000, 1000, 1], [len(session_ids) for session_ids in self.casts])
        self.assertEqual(2001, len(set(self.proxies.cuts)))

    def test_nothing_to_cut_is_not_sent(self):
        self.cut(0)
        self.assertEqual([], self.casts)

    def test_an_unreachable_bus_is_logged(self):
        logged = self.useFixture(fixtures_library.FakeLogger())

        def unreachable(session_ids):
            raise exception.ManagerUnreachable(reason='no route')

        self.proxies.on_cut = unreachable
        self.cut(1)
        self.assertIn('Could not ask the proxies to cut sessions: ', logged.output)
        self.assertIn('no route', logged.output)
