# SPDX-License-Identifier: Apache-2.0
"""The edge of the bus: clients that are not ours, messages that are none, and an agent that is not honest."""

import logging

import fixtures as fixtures_library
import oslo_messaging
import sqlalchemy as sa
from oslo_context import context as oslo_context
from oslo_messaging.rpc import dispatcher

from consoled import exception
from consoled.db import models
from consoled.rpc import versions
from consoled.rpc.serializer import Serializer
from tests.functional import base, proxy_base

CANARY = 'Log in again at http://evil.example/'


class StandardSerializer(Serializer):
    """Sends contexts as services do that use oslo.context."""

    def serialize_context(self, context):
        return context.to_dict()


class StandardClientTest(base.CellTestCase):
    """A caller that has oslo.messaging and oslo.context, and no context of ours."""

    engine = 'sqlite'
    options = {'manager__check_port': False}

    def setUp(self):
        super().setUp()
        self.client = oslo_messaging.get_rpc_client(
            self.cell.transport,
            oslo_messaging.Target(topic='consoled', version='1.0'),
            serializer=StandardSerializer(),
        )

    def authorize_next(self, user):
        context = oslo_context.RequestContext(user_id=user, project_id='project-1', overwrite=False)
        grant = base.a_grant(self.instance, None, host=None, user_id=None, project_id=None)
        return self.client.call(context, 'authorize', console_auth_token=grant, ttl=None)

    def test_users_are_told_apart_and_can_be_revoked(self):
        self.define(10000, 10001)
        first, again, second = (self.authorize_next(user) for user in ('user-1', 'user-1', 'user-2'))
        self.assertEqual(['user-1', 'user-1', 'user-2'], [each.user_id for each in (first, again, second)])
        self.assertEqual([10000, 10000, 10001], [each.port for each in (first, again, second)])
        session = self.proxy().open(second.token)
        self.assertEqual(('user-2', 'project-1'), (session.user_id, session.project_id))
        revoked = self.api.revoke(self.context, 'a reason', user_id='user-2')
        self.assertEqual((1, 1), (revoked.tokens, revoked.sessions))
        self.assert_refused('invalid_token', self.api.validate, self.context, second.token)
        self.assertEqual('user-1', self.api.validate(self.context, first.token).user_id)

    def test_the_global_request_id_goes_on_to_the_agent(self):
        self.set(manager__check_port=True)
        heard = []

        class Agent:
            def check_console(self, context, **asked):
                heard.append(context)
                return True

        _serve(self, Agent())
        self.define(10000)
        granted = self.authorize(10000)
        asked = {'token': granted.token, 'session_id': base.new_uuid(), 'proxy_id': base.new_uuid()}
        self.api.register_proxy(self.context, asked['proxy_id'], 'a proxy')
        known = f'req-{base.new_uuid()}'
        context = oslo_context.RequestContext(user_id='u', global_request_id=known, overwrite=False)
        self.client.call(context, 'open_session', **asked)
        self.assertEqual(
            [(known, context.request_id)], [(each['global_request_id'], each['request_id']) for each in heard]
        )


def _serve(test, endpoint):
    """Answer for the compute host with an endpoint that checks nothing."""
    target = oslo_messaging.Target(topic=versions.COMPUTE_TOPIC, server=base.COMPUTE_HOST)
    server = oslo_messaging.get_rpc_server(test.cell.transport, target, [endpoint])
    server.start()

    def stop():
        server.stop()
        server.wait()

    test.addCleanup(stop)


class MalformedMessagesTest(base.CellTestCase):
    """Messages as no client of the library sends them."""

    engine = 'sqlite'

    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(fixtures_library.FakeLogger(level=logging.INFO))

    def send(self, message, context=None):
        """Send a message and return the error that travels back."""
        target = oslo_messaging.Target(topic='consoled')
        try:
            self.cell.transport._send(target, context or {}, message, wait_for_reply=True, timeout=10)
        except exception.ConsoledException as exc:
            return exc
        except oslo_messaging.RemoteError as exc:
            return exc
        return None

    def test_each_is_refused_with_an_error_of_the_contract_and_without_a_traceback(self):
        good = {'method': 'ping', 'args': {}, 'version': '1.0'}
        self.assertIsNone(self.send(good))
        deep = 'x'
        for _ in range(300):
            deep = [deep]
        for changes in (
            *({'version': version} for version in ('1', '', 'x', '1.0.0', None, [], 1.0, '9' * 10**6)),
            *({'method': method} for method in ('', 'x y', None, [], 5)),
            *({'args': arguments} for arguments in (None, [], 'x', {'a': deep})),
            *({'args': {name: 1}} for name in ('self', 'context', 'method', 'x', '')),
            {'method': 'validate', 'args': {'token': 'x' * 43, 'context': 1}},
            {'method': 'authorize', 'args': {'console_auth_token': deep}},
        ):
            error = self.send({**good, **changes})
            self.assertEqual('invalid_argument', error.code, changes)
            self.assertTrue(len(str(error).partition('\n')[0]) < 200)
        for changes, kind in (({'version': '2.0'}, 'UnsupportedVersion'), ({'method': 'x'}, 'NoSuchMethod')):
            self.assertEqual(kind, self.send({**good, **changes}).exc_type)
        self.assertNotIn('Traceback', self.logged.output)
        self.assertIsNone(self.send(good))


def hostile(name, *args, module='consoled.exception', **kwargs):
    """Return an error that travels as one of that name, with these arguments."""
    error = type(name, (Exception,), {'__module__': module})(*args)
    error.kwargs = kwargs
    return error


class HostileAgentTest(proxy_base.ProxyTestCase):
    """An attacker who has taken over a compute host, and a user who opens a console there."""

    ANSWERS = (
        *(hostile('RateLimited', seconds=each) for each in ('x', float('nan'), float('inf'), None, -1)),
        hostile('InstanceNotReady', instance_uuid=CANARY, reason=CANARY),
        hostile('InstanceNotReady', CANARY),
        hostile('InstanceNotReady', 'x' * 10**6),
        hostile('ConsoleGone', message=CANARY),
        hostile('HypervisorUnreachable', CANARY, CANARY),
        hostile('InvalidToken', CANARY),
        hostile('TargetForbidden', CANARY),
        hostile('ConsoleInUse'),
        hostile(CANARY),
        hostile('X' * 10**6),
        hostile('StopIteration', CANARY, module='builtins'),
        hostile('TimeoutError', CANARY, module='builtins'),
        *(None, 'true', 1, [True], {'a': CANARY}, CANARY * 10**4),
    )

    def check_console(self, context, **asked):
        if isinstance(self.answer, Exception):
            try:
                raise self.answer
            except Exception:
                raise dispatcher.ExpectedException from None
        return self.answer

    def setUp(self):
        super().setUp()

        class Agent:
            check_console = self.check_console

        self.cell.db.transaction(lambda conn: conn.execute(sa.delete(models.instances)))
        _serve(self, Agent())
        self.define(self.guest.port)

    def test_its_words_reach_no_user_and_no_user_is_left_waiting(self):
        target = self.grant(host=base.ADDRESS)
        for answer in self.ANSWERS:
            self.answer = answer
            with self.subTest(answer=str(answer)[:80]):
                user, refusal = self.ask(target, Accept='application/json')
                user.leave()
                self.assertIn(refusal.status, (404, 409, 500, 503))
                self.assertNotIn(b'evil', refusal.body)
                self.assertTrue(len(refusal.body) < 1000)
                again = self.user().send(self.page_request(target)).answer()
                self.assertNotIn(b'evil', again.body)
        self.assertNotIn('evil', self.daemon.log())
        self.assert_nothing_left()

    def page_request(self, target):
        """Return the request of a page that asks why its websocket was refused."""
        return f'GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n'.encode()
