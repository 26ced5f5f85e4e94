# SPDX-License-Identifier: Apache-2.0
"""The audit trail: one line for each session that opens or closes, and for each refusal."""

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy.audit import Audit
from consoled.testing import fixtures
from tests.unit.proxy import session_base
from tests.unit.proxy.session_base import ADDRESS, TOKEN


class Channel:
    """What a session has of a channel."""

    reason = EndReason.GUEST_CLOSED
    bytes_in, bytes_out = 2, 5


class AuditTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.audit = Audit(self.useFixture(fixtures.Conf()).conf, 'consoled-proxy.host')
        self.log = self.useFixture(fixtures_library.FakeLogger())
        self.process = session_base.Process()

    def line(self):
        """The values of the only line that was logged."""
        (line,) = self.log.output.splitlines()
        event, *values = line.removeprefix('session ').split(' ')
        return event, dict(value.split('=', 1) for value in values)

    def facts(self, session):
        return {
            'session_id': session.id,
            'instance_uuid': session.console.instance_uuid,
            'console_type': 'novnc',
            'user_id': 'user',
            'project_id': 'project',
            'client_address': ADDRESS,
        }

    def test_a_session_that_opens(self):
        session = self.process.granted()
        self.audit.opened(session)
        self.assertEqual(('opened', self.facts(session)), self.line())

    def test_a_session_that_closes(self):
        session, channel = self.process.granted(), Channel()
        session.connected(channel)
        session.channel_released(channel)
        self.audit.ended(session)
        event, values = self.line()
        self.assertEqual('closed', event)
        self.assertTrue(0 <= float(values.pop('seconds')) < 60)
        ended = {'reason': 'guest_closed', 'bytes_in': '2', 'bytes_out': '5'}
        self.assertEqual({**self.facts(session), **ended}, values)

    def test_a_session_that_never_opened_has_no_end(self):
        session = self.process.granted()
        session.abandon(EndReason.OPEN_FAILED)
        self.audit.ended(session)
        self.assertEqual('', self.log.output)

    def test_a_refusal_of_somebody_unknown(self):
        self.audit.refused(exception.InvalidToken(), ADDRESS)
        expected = {'code': 'invalid_token', 'status': '401', 'client_address': ADDRESS}
        self.assertEqual(('refused', expected), self.line())

    def test_a_refusal_of_a_known_user(self):
        session = self.process.granted()
        self.audit.refused(exception.TargetFailed(), ADDRESS, session)
        expected = {'code': 'target_failed', 'status': '502', **self.facts(session)}
        self.assertEqual(('refused', expected), self.line())

    def test_a_value_is_one_word(self):
        session = self.process.granted()
        session.user_id = 'a b="c"\nd'
        self.audit.opened(session)
        self.assertIn(r'user_id="a b=\"c\"\nd" ', self.log.output)
        self.assertEqual(1, self.log.output.count('\n'))

    def test_no_line_has_the_token(self):
        session = self.process.granted()
        self.audit.opened(session)
        self.audit.refused(exception.TargetFailed(), ADDRESS, session)
        self.assertNotIn(TOKEN, self.log.output)
