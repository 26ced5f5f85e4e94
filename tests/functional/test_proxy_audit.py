# SPDX-License-Identifier: Apache-2.0
"""The proxy's audit trail: log, notifications, metrics; and that none of them contains a token."""

import contextlib
import itertools
import json
import pathlib
import re
import time
import urllib.request

import fixtures
import oslo_messaging

from consoled import exception
from consoled.testing.services import free_port
from tests.functional import proxy_base, test_proxy
from tests.functional.raw_user import close_frame, frame, handshake

EVERYTHING = ','.join(
    f'{name}={level}'
    for name, level in {
        'amqp': 'DEBUG',
        'asyncio': 'DEBUG',
        'consoled': 'TRACE',
        'h11': 'DEBUG',
        'kombu': 'DEBUG',
        'oslo.messaging': 'TRACE',
        'oslo_messaging': 'TRACE',
        'websockets': 'DEBUG',
    }.items()
)
EVENT = re.compile(r'consoled\.proxy\.audit .* session (?:opened|closed|refused) ')
INVALID = 'canary-CANARY-canary-CANARY-canary-CANARY-'


class Listener(fixtures.Fixture):
    """Receives notifications, and records them in ``seen`` as (event, publisher, facts)."""

    def __init__(self, conf):
        super().__init__()
        self._conf = conf
        self.seen = []

    def _setUp(self):  # noqa: N802 - the name that fixtures calls
        transport = oslo_messaging.get_notification_transport(self._conf)
        self.addCleanup(transport.cleanup)
        targets = [oslo_messaging.Target(topic='notifications')]
        listener = oslo_messaging.get_notification_listener(transport, targets, [self], executor='threading')
        listener.start()
        self.addCleanup(listener.wait)
        self.addCleanup(listener.stop)

    def info(self, context, publisher_id, event_type, payload, metadata):
        self.seen.append((event_type, publisher_id, payload))


class _Audit:
    """Each open, refusal and close has a line in the log, a notification and a metric."""

    def notified(self, event):
        """Wait for the only notification of an event, and return its facts."""
        event = f'consoled.session.{event}'
        self.wait_until(lambda: any(seen[0] == event for seen in self.listener.seen[self.heard :]), event)
        [(publisher, facts)] = [seen[1:] for seen in self.listener.seen[self.heard :] if seen[0] == event]
        self.assertEqual(f'consoled-proxy.{self.daemon.host}', publisher)
        return facts

    def logged(self, event):
        """Return the facts of the only log line of an event, as text."""
        lines = [line for line in self.daemon.log()[self.start :].splitlines() if f'session {event} ' in line]
        self.assertEqual(1, len(lines), lines)
        words = lines[0].partition(f'session {event} ')[2].split(' ')
        return dict(word.split('=', 1) for word in words)

    def assert_reported(self, event, **expected):
        """Assert that log and notification agree and have the expected facts; return all facts."""
        facts = self.notified(event)
        self.assertEqual({name: str(value) for name, value in facts.items()}, self.logged(event))
        self.assertEqual(expected, {name: facts[name] for name in expected})
        return facts

    def grown(self, name, **labels):
        """Return by how much a metric has grown in this test."""
        values = self.metrics()
        text = ','.join(f'{label}="{value}"' for label, value in {'cell': 'cell1', **labels}.items())
        key = f'consoled_proxy_{name}{{{text}}}'
        return values.get(key, 0) - self.counted.get(key, 0)

    def test_a_session_from_its_opening_to_its_end(self):
        user = self.opened(source='127.0.0.7')
        self.assert_echo(user, b'12345')
        who = {
            'instance_uuid': self.instance,
            'console_type': 'serial',
            'user_id': 'user-1',
            'project_id': 'project-1',
            'client_address': '127.0.0.7',
        }
        opened = self.assert_reported('opened', **who)
        self.assertEqual([(opened['session_id'],)], self.rows('SELECT id FROM console_session'))
        self.assertEqual(1, self.grown('opened_total', type='serial'))
        self.assertEqual(1, self.grown('sessions', type='serial'))
        user.send(frame(b'67') + close_frame())
        self.assertEqual(1000, user.close_code())
        closed = self.assert_reported('closed', **who, session_id=opened['session_id'], reason='user_left')
        self.assertEqual((7, True), (closed['bytes_in'], closed['bytes_out'] in (5, 7)))
        self.assertGreater(closed['seconds'], 0)
        self.assertEqual(1, self.grown('closed_total', reason='user_left'))
        self.assertEqual(0, self.grown('sessions', type='serial'))
        self.assertEqual(7, self.grown('bytes_total', direction='in'))
        self.assertEqual(closed['bytes_out'], self.grown('bytes_total', direction='out'))
        self.assertEqual(1, self.grown('stage_seconds_count', stage='open'))

    def test_a_token_that_is_refused(self):
        self.assert_refused_with(401, f'/?token={INVALID}0')
        self.assert_reported('refused', code='invalid_token', status=401, client_address='127.0.0.1')
        self.assertEqual(1, self.grown('refused_total', code='invalid_token'))
        self.assertEqual(0, self.grown('opened_total', type='serial'))

    def test_a_request_that_is_refused_before_its_token_is_checked(self):
        self.assert_refused_with(403, self.grant(), origin='null')
        self.assert_reported('refused', code='origin_refused', status=403, client_address='127.0.0.1')
        self.assertEqual(1, self.grown('refused_total', code='origin_refused'))

    def test_a_refusal_after_authorization_names_the_user(self):
        self.assert_refused_with(502, self.grant(port=free_port()))
        facts = {'code': 'target_failed', 'status': 502, 'instance_uuid': self.instance, 'user_id': 'user-1'}
        self.assert_reported('refused', **facts)
        self.assertEqual(1, self.grown('refused_total', code='target_failed'))

    def test_operators_own_reasons_are_reported_but_are_no_metric_labels(self):
        user = self.opened()
        self.api.revoke(self.context, 'made up: ticket 4711', instance_uuid=self.instance)
        self.assertEqual(4403, user.close_code())
        self.assertEqual('made up: ticket 4711', self.notified('closed')['reason'])
        self.assertEqual(1, self.grown('closed_total', reason='revoked'))
        self.assertFalse([name for name in self.metrics() if '4711' in name])

    def test_health(self):
        for path, expected in (('/healthz', {'status': 'ok'}), ('/readyz', {'lease': 'ok'})):
            url = f'http://127.0.0.1:{self.daemon.monitoring_port}{path}'
            with urllib.request.urlopen(url, timeout=proxy_base.PATIENCE) as answer:
                self.assertEqual((200, expected), (answer.status, json.load(answer)))


class _Canary:
    """With all logging enabled, no clear token is found where it does not belong."""

    def valid_token(self, **changes):
        """Authorize a console, and return the token."""
        self.tokens.append(self.grant(**changes).partition('token=')[2])
        return self.tokens[-1]

    def invalid_token(self, end=''):
        """Return a token that the managers do not know."""
        self.tokens.append(f'{INVALID}{next(self.numbers)}')
        return self.tokens[-1] + end

    def requests_with(self, token):
        """Yield targets and headers with the token wherever a request may carry one."""
        yield f'/websockify?token={token}', {}
        yield f'/?path=websockify%3Ftoken%3D{token}', {}
        yield '/', {'Cookie': f'a=b; consoled_token={token}'}
        yield '/', {'Sec_WebSocket_Protocol': f'binary, consoled.token.{token}'}

    def attempts(self, status, token, **headers):
        """Send a token wherever a request may carry one, and assert the status of the responses."""
        for target, where in self.requests_with(token):
            user, answer = self.ask(target, **where, **headers)
            self.assertEqual(status, answer.status, target)
            self.assertNotIn(token.encode(), answer.raw_head + answer.body)
            if status == 101:
                self.assert_echo(user)
            user.leave()
            self.assert_nothing_left()

    def send_raw(self, status, data):
        """Send any data, and assert the status of the response."""
        with self.user() as user:
            with contextlib.suppress(OSError):
                user.send(data.encode())
            answer = user.answer(head=data.startswith('HEAD'))
            self.assertEqual(status, answer.status, data[:200])

    def accepted_and_refused(self):
        self.attempts(101, self.valid_token())
        self.attempts(401, self.invalid_token())
        self.attempts(401, self.invalid_token('!'))
        self.attempts(403, self.valid_token(), Origin='https://evil.example.org')
        self.attempts(502, self.valid_token(port=free_port()))
        self.attempts(400, self.invalid_token(), Content_Length=7)
        token = self.valid_token()
        user = self.opened(target=f'/?token={token}')
        self.attempts_while(user, 409, token)
        self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        self.assertEqual(4403, user.close_code())

    def attempts_while(self, user, status, token):
        for target, where in self.requests_with(token):
            other, answer = self.ask(target, **where)
            self.assertEqual(status, answer.status)
            other.leave()
        self.assert_echo(user)

    def ordinary_and_broken_requests(self):
        host = 'Host: localhost\r\n'
        for status, line in (
            (426, f'GET /?token={self.valid_token()}'),
            (401, f'GET /?path=%3Ftoken%3D{self.invalid_token()}'),
            (401, f'GET /?token={self.invalid_token()}&token={self.invalid_token()}'),
            (405, f'POST /?token={self.invalid_token()}'),
            (404, f'HEAD /{self.invalid_token()}'),
        ):
            self.send_raw(status, f'{line} HTTP/1.1\r\n{host}\r\n')
        self.send_raw(
            400, f'GET /?token={self.invalid_token()} HTTP/1.1 {self.invalid_token()}\r\n{host}\r\n'
        )
        self.send_raw(
            400, f'GET /?token={self.invalid_token()} HTTP/1.1\r\n{host}{self.invalid_token()}\r\n\r\n'
        )
        self.send_raw(400, handshake(f'/?token={self.invalid_token()}').decode().replace('Key: c2', 'Key: '))
        self.send_raw(
            426, handshake(f'/?token={self.invalid_token()}').decode().replace('Version: 13', 'Version: 8')
        )
        self.send_raw(
            431, f'GET /?token={self.invalid_token()} HTTP/1.1\r\n{host}X: {self.invalid_token() * 1000}'
        )

    def late_replies_and_unexpected_errors(self):
        def late(*args):
            time.sleep(2 * self.proxy_options['authorize_timeout'])
            raise exception.InvalidToken()

        def wrong(*args):
            raise RuntimeError('an unexpected error')

        name = 'consoled.db.sessions.find_for_open'
        with fixtures.MonkeyPatch(name, late):
            self.assert_refused_with(503, f'/?token={self.valid_token()}')
        logged = 'No calling threads waiting for msg_id'
        self.wait_until(lambda: logged in self.daemon.log(), 'the late answer')
        with fixtures.MonkeyPatch(name, wrong), fixtures.FakeLogger():
            self.attempts(500, self.valid_token())

    def visible_texts(self):
        """Yield everything that others can read, as (where, text)."""
        processes = [self.daemon.pid, *self.daemon.child_pids()]
        url = f'http://127.0.0.1:{self.daemon.monitoring_port}/metrics'
        with urllib.request.urlopen(url, timeout=proxy_base.PATIENCE) as answer:
            yield 'the metrics', answer.read().decode()
        for pid, name in itertools.product(processes, ('cmdline', 'comm', 'environ')):
            yield f'the {name} of a process', pathlib.Path(f'/proc/{pid}/{name}').read_text()
        yield 'the notifications', json.dumps(self.listener.seen)
        yield 'the log', self.daemon.log()

    def test_invariant_1_no_clear_token_anywhere(self):
        self.accepted_and_refused()
        self.ordinary_and_broken_requests()
        self.late_replies_and_unexpected_errors()
        self.wait_until(self.all_is_heard, 'the notifications')
        self.assertGreater(len(self.listener.seen) - self.heard, 40)
        for where, text in self.visible_texts():
            self.assertNotEqual('', text, where)
            for token in self.tokens:
                found = text.find(token)
                near = text[max(0, found - 300) : found + 60]
                self.assertEqual(-1, found, f'a clear token in {where}: …{near}')
        for level in ('DEBUG', 'TRACE'):
            self.assertIn(f' {level} oslo.messaging', self.daemon.log())
        self.assertIn('content not logged', self.daemon.log())


class AuditTest(_Audit, _Canary, test_proxy.UsersTestCase):
    proxy_options = {'authorize_timeout': 1, 'max_failed_tokens': 1000, 'max_recorded_refusals': 10000}
    more_options = {
        'DEFAULT': {'debug': True, 'default_log_levels': EVERYTHING},
        'oslo_messaging_notifications': {'driver': 'messagingv2'},
    }

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.listener = cls.fixture(Listener(cls.cell.conf))

    def setUp(self):
        super().setUp()
        self.wait_until(self.all_is_heard, 'notifications from before')
        self.heard = len(self.listener.seen)
        self.start = len(self.daemon.log())
        self.counted = self.metrics()
        self.tokens = []
        self.numbers = itertools.count()

    def all_is_heard(self):
        """Return whether there are as many notifications as lines in the log."""
        return len(self.listener.seen) == len(EVENT.findall(self.daemon.log()))
