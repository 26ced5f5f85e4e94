# SPDX-License-Identifier: Apache-2.0
"""Exposed methods: checked arguments, mapped errors, and servers that stop without losing a call."""

import logging

import fixtures as testfixtures
import oslo_messaging
import testtools
from oslo_messaging.rpc import dispatcher

from consoled import exception
from consoled.context import RequestContext
from consoled.rpc import arguments as arg
from consoled.rpc import server


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
