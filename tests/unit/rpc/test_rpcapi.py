# SPDX-License-Identifier: Apache-2.0
"""Client and server agree on the contract."""

import inspect
import logging
import threading

import fixtures as testfixtures
import kombu.exceptions
import oslo_messaging
import testtools
from hypothesis import given
from hypothesis import strategies as st
from oslo_messaging import exceptions as messaging_exc
from oslo_messaging.rpc import dispatcher

from consoled import exception
from consoled.context import RequestContext
from consoled.manager.manager import ConsoleAuthManager
from consoled.rpc import arguments as arg
from consoled.rpc import client, server, versions
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures

CONTRACT = {
    'authorize',
    'validate',
    'list_free_ports',
    'define_consoles',
    'define_host',
    'open_session',
    'close_session',
    'register_proxy',
    'renew_lease',
    'revoke',
    'clean_console_auths_for_instance',
    'clean_expired_console_auths_for_host',
    'list_sessions',
    'object_backport_versions',
    'ping',
}


class ContractTest(testtools.TestCase):
    def test_exactly_the_contract_can_be_called(self):
        policy = oslo_messaging.ExplicitRPCAccessPolicy()
        allowed = {name for name in dir(ConsoleAuthManager) if policy.is_allowed(ConsoleAuthManager, name)}
        self.assertEqual(CONTRACT, allowed)

    def test_the_client_has_each_method(self):
        methods = {
            name
            for name, _ in inspect.getmembers(client.ConsoleAuthAPI, inspect.isfunction)
            if not name.startswith('_')
        }
        self.assertEqual(CONTRACT, methods)

    def test_the_newest_version_has_its_objects(self):
        self.assertEqual((versions.RPC_VERSION, versions.OBJECTS_OF_VERSION['1.0']), versions.pinned(None))

    def test_an_unknown_pin_is_refused(self):
        error = self.assertRaises(ValueError, versions.pinned, '9.9')
        self.assertIn('1.0', str(error))


class Greeter(server.Endpoint):
    def __init__(self):
        self.observed = []

    def observe(self, method, code, seconds):
        self.observed.append((method, code))

    @server.exposed(name=arg.text(8), times=arg.integer(1, 3).default_to(1))
    def greet(self, context, name, times):
        if name == 'boom':
            raise RuntimeError('canary')
        if name == 'gone':
            raise exception.ConsoleGone()
        return [name] * times

    @server.exposed_cast(name=arg.text(8))
    def shout(self, context, name):
        raise exception.ConsoleGone()

    def hidden(self, context):
        """Not exposed."""


class ExposedTest(testtools.TestCase):
    def call(self, **values):
        """The result, or the error that would travel."""
        try:
            return self.greeter.greet(RequestContext(), **values)
        except dispatcher.ExpectedException as expected:
            return expected.exc_info[1]

    def setUp(self):
        super().setUp()
        self.greeter = Greeter()

    def test_defaults_and_results(self):
        self.assertEqual(['a'], self.call(name='a'))
        self.assertEqual(['a', 'a'], self.call(name='a', times=2))
        self.assertEqual([('greet', 'ok')] * 2, self.greeter.observed)

    def test_bad_arguments_are_named(self):
        for values, argument in (
            ({}, 'name'),
            ({'name': 'too long a name'}, 'name'),
            ({'name': 7}, 'name'),
            ({'name': 'a', 'times': 4}, 'times'),
            ({'name': 'a', 'times': None}, 'times'),
            ({'name': 'a', 'times': True}, 'times'),
            ({'name': 'a', 'colour': 'red'}, 'colour'),
            ({'name': 'a', 'x' * 43: 'red'}, '?'),
        ):
            error = self.call(**values)
            self.assertIsInstance(error, exception.InvalidArgument)
            self.assertEqual(argument, error.kwargs['argument'])
        self.assertEqual({('greet', 'invalid_argument')}, set(self.greeter.observed))

    def test_a_domain_error_travels(self):
        self.assertIsInstance(self.call(name='gone'), exception.ConsoleGone)
        self.assertEqual([('greet', 'console_gone')], self.greeter.observed)

    def test_anything_else_travels_as_a_neutral_error(self):
        error = self.call(name='boom')
        self.assertIs(exception.InternalError, type(error))
        self.assertNotIn('canary', str(error))
        self.assertIsNone(error.__cause__)

    def test_an_error_of_a_cast_is_logged_since_nobody_else_hears_of_it(self):
        logged = self.useFixture(testfixtures.FakeLogger(level=logging.WARNING))
        self.call(name='gone')
        self.assertEqual('', logged.output)
        self.assertRaises(dispatcher.ExpectedException, self.greeter.shout, RequestContext(), name='a')
        self.assertRaises(dispatcher.ExpectedException, self.greeter.shout, RequestContext(), name=7)
        self.assertEqual(2, logged.output.count('shout refused'))

    def test_what_is_not_marked_is_not_callable(self):
        policy = oslo_messaging.ExplicitRPCAccessPolicy()
        self.assertFalse(policy.is_allowed(self.greeter, 'hidden'))
        self.assertFalse(policy.is_allowed(self.greeter, 'observe'))
        self.assertTrue(policy.is_allowed(self.greeter, 'greet'))


class ArgumentsTest(testtools.TestCase):
    anything = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.lists(st.integers(), max_size=3),
        st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    )
    checks = (
        arg.uuid(),
        arg.text(10),
        arg.host(),
        arg.port(),
        arg.console_type(),
        arg.integer(0, 9),
        arg.moment(),
        arg.token(),
        arg.list_of(arg.uuid(), 3),
        arg.mapping(a=arg.port()),
    )

    @given(value=anything, argument=st.sampled_from(checks))
    def test_a_value_is_accepted_or_refused_with_an_error_of_the_domain(self, value, argument):
        try:
            arg.checked({'x': argument}, {'x': value})
        except (exception.InvalidArgument, exception.InvalidToken) as refused:
            self.assertIn(refused.code, ('invalid_argument', 'invalid_token'))

    def test_a_malformed_token_gets_the_answer_of_an_unknown_one(self):
        for value in (None, 5, '', 'short', 'x' * 5000, 'a b' * 10):
            self.assertRaises(exception.InvalidToken, arg.checked, {'token': arg.token()}, {'token': value})

    def test_no_refusal_repeats_the_value(self):
        for argument in self.checks:
            try:
                arg.checked({'x': argument}, {'x': 'canary canary canary canary canary'})
            except exception.ConsoledException as refused:
                self.assertNotIn('canary', str(refused))

    def test_lists_are_bounded(self):
        argument = {'x': arg.list_of(arg.port(), 2)}
        self.assertEqual({'x': [1, 2]}, arg.checked(argument, {'x': [1, 2]}))
        self.assertRaises(exception.InvalidArgument, arg.checked, argument, {'x': [1, 2, 3]})
        self.assertRaises(exception.InvalidArgument, arg.checked, argument, {'x': '12'})


class FailingTarget:
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
            kombu.exceptions.OperationalError('[Errno 111] Connection refused'),
        ):
            self.check(client.ConsoleAuthAPI, error, exception.ManagerUnreachable)
            self.check(client.ComputeConsoleAPI, error, exception.ComputeUnreachable)

    def test_an_error_of_the_peer_itself_is_internal(self):
        self.check(client.ConsoleAuthAPI, oslo_messaging.RemoteError('X', 'y', []), exception.InternalError)

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
        self.assertEqual('The console is in use since noon.', str(error))
        self.assertIs(exception.ConsoleInUse, type(error))
