# SPDX-License-Identifier: Apache-2.0
"""Exposed methods: checked arguments, mapped errors, and servers that stop without losing a call."""

import json
import logging

import fixtures as testfixtures
import oslo_messaging
import testtools
from hypothesis import given
from hypothesis import strategies as st
from oslo_messaging.rpc import dispatcher

from consoled import exception
from consoled.context import RequestContext
from consoled.rpc import arguments as arg
from consoled.rpc import server
from tests.unit.rpc import fake_bus

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    st.sampled_from(['context', 'self', 'method', 'values', 'ctxt', 'name', 'times', 'cls', 'args'])
    | st.text()
)


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
    def call(self, /, **values):
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
            ({'name': 'a', 'self': 1}, 'self'),
            ({'name': 'a', 'context': 1}, 'context'),
            ({'name': 'a', 'method': 1}, 'method'),
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


class Incoming:
    """A message, as a driver hands it to a dispatcher."""

    def __init__(self, message, ctxt=None, client_timeout=None):
        self.message = message
        self.ctxt = {} if ctxt is None else ctxt
        self.client_timeout = client_timeout


class DispatcherTest(testtools.TestCase):
    """Whatever a peer sends is carried out or refused; nothing of it is in a traceback."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        made = server.get_server(fake_bus.transport(cls), 'topic', 'server', [Greeter()])
        cls.dispatch = staticmethod(made.dispatcher.dispatch)

    def refused(self, message, **how):
        """Return the error that travels."""
        expected = self.assertRaises(dispatcher.ExpectedException, self.dispatch, Incoming(message, **how))
        return expected.exc_info[1]

    def test_a_good_message(self):
        for message in (
            {'method': 'greet', 'args': {'name': 'a'}},
            {'method': 'greet', 'args': {'name': 'a'}, 'version': '1.0', 'namespace': None},
        ):
            self.assertEqual(['a'], self.dispatch(Incoming(message)))

    def test_a_version_that_is_none_is_refused_by_its_form(self):
        for version in (
            '1',
            '',
            'x',
            '1.',
            '.1',
            '1.0.0',
            '1.x',
            '-1.0',
            '1.0\n',
            None,
            1,
            1.0,
            [],
            '9' * 10**6,
        ):
            error = self.refused({'method': 'greet', 'args': {'name': 'a'}, 'version': version})
            self.assertIs(exception.InvalidArgument, type(error))
            self.assertEqual('Argument version: must be MAJOR.MINOR.', str(error))

    def test_a_version_that_nobody_serves_has_the_error_that_callers_know(self):
        for version in ('1.2', '2.0', '0.9', '9999.9999'):
            error = self.refused({'method': 'greet', 'args': {'name': 'a'}, 'version': version})
            self.assertIs(dispatcher.UnsupportedVersion, type(error))
        error = self.refused({'method': 'greet', 'args': {'name': 'a'}, 'namespace': ['x']})
        self.assertIs(dispatcher.UnsupportedVersion, type(error))

    def test_a_method_that_is_not_exposed_has_the_error_that_callers_know(self):
        for method in ('hidden', 'observe', '__class__', 'run', 'boo'):
            self.assertIs(dispatcher.NoSuchMethod, type(self.refused({'method': method, 'args': {}})))
        for method in ('', None, 5, ['greet'], {}, 'a b', 'x' * 65, '\x1b[2J'):
            error = self.refused({'method': method, 'args': {}})
            self.assertIs(exception.InvalidArgument, type(error))

    def test_arguments_are_a_dict_of_bounded_depth_and_number(self):
        deep = 'x'
        for _ in range(10000):
            deep = [deep]
        for arguments in (None, [], 'x', 5, {'name': deep}, {'name': [[]] * 10**6}):
            error = self.refused({'method': 'greet', 'args': arguments})
            self.assertIs(exception.InvalidArgument, type(error))
            self.assertEqual('args', error.kwargs['argument'])

    def test_an_argument_may_have_any_name_and_is_refused(self):
        for name in ('self', 'context', 'method', 'ctxt', '', 'x y', '__class__'):
            error = self.refused({'method': 'greet', 'args': {'name': 'a', name: 1}})
            self.assertIs(exception.InvalidArgument, type(error))
            self.assertIn('is unknown', str(error))

    def test_a_message_that_is_none(self):
        for message in (None, [], 'x', 5):
            self.assertIs(exception.InvalidArgument, type(self.refused(message)))

    def test_heartbeats_that_cannot_be_sent_are_not(self):
        for seconds in (float('inf'), float('nan'), -1, 1e300, 'x', [1], {}):
            message = {'method': 'greet', 'args': {'name': 'a'}}
            self.assertEqual(['a'], self.dispatch(Incoming(message, client_timeout=seconds)))

    def test_a_context_of_any_form_is_taken(self):
        for context in (None, [], 'x', 5, {'user_id': [1]}, {'user': 'x' * 10**6}):
            message = {'method': 'greet', 'args': {'name': 'a'}}
            self.assertEqual(['a'], self.dispatch(Incoming(message, ctxt=context)))

    @given(
        message=st.dictionaries(st.sampled_from(['method', 'args', 'version', 'namespace']), JSON)
        | st.fixed_dictionaries({'method': st.just('greet'), 'args': st.dictionaries(NAMES, JSON)})
        | st.fixed_dictionaries(
            {
                'method': st.just('greet'),
                'args': st.just({'name': 'a'}),
                'version': JSON | st.text('0123.-+_ x'),
            }
        ),
        ctxt=JSON,
    )
    def test_whatever_is_sent_is_carried_out_or_refused(self, message, ctxt):
        try:
            self.dispatch(Incoming(json.loads(json.dumps(message)), ctxt=ctxt))
        except dispatcher.ExpectedException as expected:
            error = expected.exc_info[1]
            self.assertIsInstance(error, exception.ConsoledException | dispatcher.RPCDispatcherError)
            self.assertTrue(len(str(error)) < 300 and str(error).isprintable())

    def test_nothing_that_a_peer_sends_is_logged_as_it_is(self):
        logged = self.useFixture(testfixtures.FakeLogger(level=logging.DEBUG))
        for message in (
            {'method': 'canary\n', 'args': {}},
            {'method': 'greet', 'version': 'canary'},
            {'method': 'greet', 'args': {'name': {'consoled_object.name': 'canary'}}},
            {
                'method': 'greet',
                'args': {
                    'name': {
                        'consoled_object.name': 'ConsoleConnection',
                        'consoled_object.namespace': 'consoled',
                        'consoled_object.version': 'canary',
                        'consoled_object.data': {},
                    }
                },
            },
        ):
            self.assertNotIn('canary', str(self.refused(message)))
        self.assertNotIn('canary', logged.output)


class Poller:
    def __init__(self, incoming):
        self.incoming = incoming


class Listener:
    def __init__(self, poller):
        self._poll_style_listener = poller


class Server:
    """An RPC server whose listener received messages while it was being stopped."""

    def __init__(self, incoming):
        self.listener = Listener(Poller(incoming))
        self.steps = []

    def stop(self):
        self.steps.append('stop')

    def wait(self):
        self.steps.append('wait')

    def _process_incoming(self, messages):
        self.steps += messages


class DrainTest(testtools.TestCase):
    def test_messages_that_came_late_are_processed(self):
        stopped = Server(['first', 'second'])
        server.drain(stopped)
        self.assertEqual(['stop', 'wait', 'first', 'second'], stopped.steps)

    def test_drivers_without_a_poller(self):
        stopped = Server([])
        stopped.listener = None
        server.drain(stopped)
        self.assertEqual(['stop', 'wait'], stopped.steps)
