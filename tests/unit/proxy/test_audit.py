# SPDX-License-Identifier: Apache-2.0
"""The audit trail: one log line for each session that opens, is joined or closes, and for each refusal."""

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy.audit import Audit
from consoled.testing import fixtures
from tests.unit.proxy import session_base
from tests.unit.proxy.session_base import ADDRESS, TOKEN


class Channel:
    """Fake of a channel that has ended."""

    reason = EndReason.GUEST_CLOSED
    bytes_in, bytes_out = 2, 5


class AuditTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.audit = Audit(self.useFixture(fixtures.Conf()).conf, 'consoled-proxy.host')
        self.log = self.useFixture(fixtures_library.FakeLogger())
        self.process = session_base.Process()

    def line(self):
        """Return the event and the values of the only log line."""
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

    def test_a_session_that_opens_is_recorded(self):
        session = self.process.granted()
        self.audit.opened(session)
        self.assertEqual(('opened', self.facts(session)), self.line())

    def test_a_websocket_that_joins_a_session_is_recorded_with_their_number(self):
        session = self.process.granted()
        session.channels = {Channel(), Channel()}
        self.audit.joined(session)
        self.assertEqual(('joined', {**self.facts(session), 'channels': '2'}), self.line())

    def test_a_session_that_closes_is_recorded_with_its_statistics(self):
        session, channel = self.process.granted(), Channel()
        session.connected(channel)
        session.channel_released(channel)
        self.audit.ended(session)
        event, values = self.line()
        self.assertEqual('closed', event)
        self.assertTrue(0 <= float(values.pop('seconds')) < 60)
        ended = {'reason': 'guest_closed', 'bytes_in': '2', 'bytes_out': '5'}
        self.assertEqual({**self.facts(session), **ended}, values)

    def test_the_end_of_a_session_that_never_opened_is_not_recorded(self):
        session = self.process.granted()
        session.abandon(EndReason.OPEN_FAILED)
        self.audit.ended(session)
        self.assertEqual('', self.log.output)

    def test_a_refusal_of_an_unknown_user_has_the_address(self):
        self.audit.refused(exception.InvalidToken(), ADDRESS)
        expected = {'code': 'invalid_token', 'status': '401', 'client_address': ADDRESS}
        self.assertEqual(('refused', expected), self.line())

    def test_a_refusal_of_a_granted_session_has_its_facts(self):
        session = self.process.granted()
        self.audit.refused(exception.TargetFailed(), ADDRESS, session)
        expected = {'code': 'target_failed', 'status': '502', **self.facts(session)}
        self.assertEqual(('refused', expected), self.line())

    def test_a_value_with_spaces_or_quotes_is_quoted_on_one_line(self):
        session = self.process.granted()
        session.user_id = 'a b="c"\nd'
        self.audit.opened(session)
        self.assertIn(r'user_id="a b=\"c\"\nd" ', self.log.output)
        self.assertEqual(1, self.log.output.count('\n'))

    def test_invariant_1_no_line_has_the_token(self):
        session = self.process.granted()
        self.audit.opened(session)
        self.audit.refused(exception.TargetFailed(), ADDRESS, session)
        self.assertNotIn(TOKEN, self.log.output)
