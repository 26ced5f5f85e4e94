# SPDX-License-Identifier: Apache-2.0
"""Failures of calls become domain errors."""

import logging
import threading

import fixtures as fixtures_library
import kombu.exceptions
import oslo_messaging
import testtools
from oslo_messaging import exceptions as messaging_exc

from consoled import exception, objects
from consoled.rpc import client
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures
from tests.functional import base
from tests.unit.proxy import session_base


class FailingTarget:
    """A prepared client whose calls and casts raise ``error``."""

    timeout = 1

    def __init__(self, error):
        self.error = error

    def call(self, *args, **kwargs):
        raise self.error

    cast = call


class ClientErrorsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.transport = get_transport(self.useFixture(fixtures.Conf(transport_url='fake:/')).conf)

    def test_a_bus_that_was_never_there_is_not_waited_for_without_end(self):
        api = client.ConsoleAuthAPI(self.transport)
        never = threading.Event()
        self.addCleanup(never.set)
        target = FailingTarget(None)
        target.timeout = -0.9  # an answer would have to be there within a tenth of a second
        target.call = lambda *args, **kwargs: never.wait()
        for _ in range(2):  # the first connects, the second waits for it
            self.assertRaises(exception.ManagerUnreachable, api._call, None, 'x', target)

    def check(self, api, error, expected):
        api = api(self.transport)
        self.assertRaises(expected, api._call, None, 'x', FailingTarget(error))

    def test_the_bus_and_the_peer_are_errors_of_the_domain(self):
        for error in (
            messaging_exc.MessagingTimeout(),
            messaging_exc.MessageDeliveryFailure(),
            messaging_exc.MessageUndeliverable('x', 'y', 'z', 'w'),
            kombu.exceptions.OperationalError('connection refused'),
        ):
            self.check(client.ConsoleAuthAPI, error, exception.ManagerUnreachable)
            self.check(client.ComputeConsoleAPI, error, exception.ComputeUnreachable)

    def test_an_error_of_the_peer_itself_is_internal(self):
        self.check(client.ConsoleAuthAPI, oslo_messaging.RemoteError('X', 'y', []), exception.InternalError)

    def test_a_cast_that_the_bus_does_not_take(self):
        for api, expected in (
            (client.ProxyAPI, exception.ManagerUnreachable),
            (client.ComputeConsoleAPI, exception.ComputeUnreachable),
        ):
            target = FailingTarget(messaging_exc.MessageDeliveryFailure())
            self.assertRaises(expected, api(self.transport)._cast, None, 'x', target)

    def test_an_unknown_level_is_refused(self):
        self.assertRaises(ValueError, client.ConsoleAuthAPI, self.transport, level='9.9')

    def test_a_remote_error_loses_its_traceback(self):
        remote = type(
            'ConsoleInUse_Remote',
            (exception.ConsoleInUse,),
            {'__str__': lambda self: 'text\nTraceback …', '__module__': 'consoled.exception_Remote'},
        )
        api = client.ConsoleAuthAPI(self.transport)
        error = self.assertRaises(
            exception.ConsoleInUse, api._call, None, 'x', FailingTarget(remote(since='noon'))
        )
        self.assertEqual('The console has been in use since noon.', str(error))
        self.assertIs(exception.ConsoleInUse, type(error))


class Answering:
    """A prepared client whose calls return ``result``."""

    timeout = 1

    def __init__(self, result):
        self.result = result

    def call(self, *args, **kwargs):
        return self.result


class ResultsTest(testtools.TestCase):
    """A result is what the contract says, or an internal error, and the log says which call it was."""

    def setUp(self):
        super().setUp()
        transport = get_transport(self.useFixture(fixtures.Conf(transport_url='fake:/')).conf)
        self.agent, self.manager = client.ComputeConsoleAPI(transport), client.ConsoleAuthAPI(transport)
        self.logged = self.useFixture(fixtures_library.FakeLogger(level=logging.ERROR))
        self.instance = base.new_uuid()
        self.consoles = objects.ConsoleConnectionList(objects=[base.a_console(self.instance, 5900)])
        self.grant = base.a_grant(self.instance, 5900)

    def assert_malformed(self, api, method, *results, **values):
        for result in results:
            error = self.assertRaises(
                exception.InternalError, api._call, None, method, Answering(result), **values
            )
            self.assertEqual(str(exception.InternalError()), str(error))
        self.assertEqual(len(results), self.logged.output.count(f'The result of {method}'))
        self.assertNotIn('canary', self.logged.output)

    def test_good_results_pass(self):
        sent = {'instance_uuid': self.instance.upper(), 'console_type': self.grant.console_type}
        for api, method, result in (
            (self.agent, 'check_console', False),
            (self.agent, 'ping', '1.0'),
            (self.agent, 'get_console', self.grant),
            (self.agent, 'list_consoles', self.consoles),
            (self.agent, 'list_consoles', objects.ConsoleConnectionList(objects=[])),
            (self.manager, 'validate', self.grant),
            (self.manager, 'close_session', None),
        ):
            self.assertIs(result, api._call(None, method, Answering(result), **sent))

    def test_anything_but_a_boolean_is_no_yes(self):
        self.assert_malformed(self.agent, 'check_console', None, 'false', 1, [True], {}, self.grant)

    def test_a_version_is_one(self):
        self.assert_malformed(
            self.agent, 'ping', None, 1.0, 'canary', '1.0\x1b[2J', '1' * 10**6, '1', '1.0.0'
        )

    def test_an_object_is_complete_and_of_its_kind(self):
        half = objects.ConsoleConnection(instance_uuid=self.instance)
        session = objects.ConsoleSession(
            **{name: base.new_uuid() for name in ('id', 'proxy_id')},
            connected_at='2026-01-01T00:00:00Z',
            console=half,
        )
        wrong = (None, 'canary', [self.grant], self.consoles, half, session)
        self.assert_malformed(self.manager, 'open_session', *wrong)
        self.assert_malformed(self.manager, 'authorize', *wrong)

    def test_lists_are_bounded_and_complete(self):
        console = base.a_console(self.instance, 5900)
        for items in ([console] * 257, [objects.ConsoleConnection(instance_uuid=self.instance)]):
            too_many = objects.ConsoleConnectionList(objects=items)
            self.assertRaises(
                exception.InternalError, self.manager._call, None, 'list_free_ports', Answering(too_many)
            )

    def test_an_agent_speaks_of_the_instance_it_was_asked_about(self):
        other = {'instance_uuid': base.new_uuid(), 'console_type': self.grant.console_type}
        self.assert_malformed(self.agent, 'get_console', self.grant, **other)
        self.assert_malformed(self.agent, 'list_consoles', self.consoles, **other)

    def test_a_url_is_one_that_a_browser_opens_as_a_page(self):
        sent = {'instance_uuid': self.instance, 'console_type': self.grant.console_type}
        self.grant.access_url = 'javascript:alert(1)'
        self.assert_malformed(self.agent, 'get_console', self.grant, **sent)

    def test_errors_of_python_s_own_are_internal_ones(self):
        """A peer can raise each of them here. StopIteration would never end an asyncio caller's future."""
        for error in (StopIteration('canary'), TimeoutError('canary'), KeyError('canary'), RecursionError()):
            raised = self.assertRaises(
                exception.InternalError, self.agent._call, None, 'ping', FailingTarget(error)
            )
            self.assertTrue(raised.__suppress_context__)
            self.assertIn(f'raised {type(error).__name__}', self.logged.output)
        self.assertNotIn('canary', self.logged.output)


class Peer:
    """A bus with one peer that speaks a version of the contract; ``calls`` has what it was sent."""

    timeout = 1

    def __init__(self, result, cap='1.1', version='1.0'):
        self.calls = []
        self._result, self._cap, self._version = result, cap, version

    def prepare(self, version):
        peer = Peer(self._result, self._cap, version)
        peer.calls = self.calls
        return peer

    def can_send_version(self):
        return self._version <= self._cap

    def call(self, context, method, **values):
        self.calls.append((self._version, method, values))
        return self._result


class VersionsTest(testtools.TestCase):
    """Invariant 10: a peer of an older release answers whatever it can."""

    def setUp(self):
        super().setUp()
        transport = get_transport(self.useFixture(fixtures.Conf(transport_url='fake:/')).conf)
        self.api = client.ConsoleAuthAPI(transport)

    def open(self, cap, *arguments):
        self.api._client = Peer(session_base.granted(), cap)
        self.api.open_session(None, 'token', 'session', 'proxy', '192.0.2.1', *arguments)
        ((version, _, values),) = self.api._client.calls
        return version, values.get('serial_port', 'left out')

    def test_a_call_has_the_oldest_version_that_has_its_arguments(self):
        self.assertEqual(('1.0', 'left out'), self.open('1.0'))
        self.assertEqual(('1.0', 'left out'), self.open('1.1'))
        self.assertEqual(('1.1', 2), self.open('1.1', 2))

    def test_an_argument_that_is_too_new_is_not_sent(self):
        error = self.assertRaises(exception.InvalidArgument, self.open, '1.0', 2)
        self.assertEqual('serial_port', error.kwargs['argument'])
        self.assertEqual([], self.api._client.calls)

    def test_calls_and_casts_without_newer_arguments_have_the_oldest_version(self):
        for api in (client.ConsoleAuthAPI, client.ComputeConsoleAPI, client.ProxyAPI):
            made = api(get_transport(self.useFixture(fixtures.Conf(transport_url='fake:/')).conf))
            self.assertEqual(('1.0', '1.1'), (made._client.target.version, made._client.version_cap))
