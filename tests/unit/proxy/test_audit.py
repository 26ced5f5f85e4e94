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
        self.now = 1000.0
        conf = self.useFixture(fixtures.Conf()).conf
        self.audit = Audit(conf, 'consoled-proxy.host', lambda: self.now)
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

    def refuse(self, number, address=ADDRESS, session=None):
        return [self.audit.refused(exception.InvalidToken(), address, session) for _ in range(number)]

    def test_refusals_of_an_address_are_limited_and_those_left_out_counted(self):
        self.assertEqual([True] * 60 + [False] * 440, self.refuse(500))
        self.assertEqual([True], self.refuse(1, '192.0.2.2'))
        self.assertEqual(61, self.log.output.count('session refused'))
        self.audit.record_left_out()
        self.assertNotIn('left_out', self.log.output, 'only once a minute')
        self.now += 60
        self.audit.record_left_out()
        self.audit.record_left_out()
        self.assertEqual(
            [f'session left_out client_address={ADDRESS} refusals=440 seconds=60'],
            self.log.output.splitlines()[61:],
        )
        self.assertEqual([True], self.refuse(1))

    def test_addresses_that_are_named_as_left_out_are_bounded(self):
        for number in range(100):
            self.refuse(61, f'192.0.2.{number}')
        self.audit.stop()
        lines = [line for line in self.log.output.splitlines() if 'left_out' in line]
        self.assertEqual(17, len(lines))
        self.assertEqual('session left_out client_address=others refusals=84 seconds=0', lines[-1])

    def test_a_client_cannot_hide_refusals_of_others_behind_its_address(self):
        session = self.process.granted()
        self.refuse(100)
        self.assertEqual([True] * 60 + [False], self.refuse(61, session=session))

    def test_lost_notifications_are_logged_once_a_minute(self):
        for _ in range(1000):
            self.audit._lose('the queue is full')
        self.now += 60
        self.audit._lose('the queue is full')
        self.assertEqual(
            [
                'Notifications lost: 1, the last one because of: the queue is full',
                'Notifications lost: 1000, the last one because of: the queue is full',
            ],
            self.log.output.splitlines(),
        )

    def test_invariant_1_no_line_has_the_token(self):
        session = self.process.granted()
        self.audit.opened(session)
        self.audit.refused(exception.TargetFailed(), ADDRESS, session)
        self.assertNotIn(TOKEN, self.log.output)
