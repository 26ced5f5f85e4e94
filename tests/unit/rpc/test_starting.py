# SPDX-License-Identifier: Apache-2.0
"""Servers are started as soon as the bus lets them."""

import threading
from unittest import mock

import amqp.exceptions
import fixtures
import kombu.exceptions
import testtools

from consoled.rpc import starting


class StartTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.wait = self.useFixture(fixtures.MockPatch('threading.Event.wait')).mock
        self.logged = self.useFixture(fixtures.FakeLogger())

    def test_a_refused_start_is_repeated_with_a_new_server(self):
        servers = [mock.Mock(), mock.Mock(), mock.Mock()]
        servers[0].start.side_effect = amqp.exceptions.AccessRefused('refused')
        servers[1].start.side_effect = kombu.exceptions.OperationalError('away')
        built = iter(servers)
        self.assertIs(servers[2], starting.start(lambda: next(built)))
        self.assertEqual([1, 1, 1], [server.start.call_count for server in servers])
        first, second = [pause for (pause,), _ in self.wait.call_args_list]
        self.assertTrue(0.5 <= first <= 1 <= second <= 2)
        self.assertEqual(2, self.logged.output.count('Cannot listen on the message bus'))

    def test_a_queue_of_another_kind_is_explained(self):
        server = mock.Mock()
        server.start.side_effect = [amqp.exceptions.PreconditionFailed(), None]
        starting.start(lambda: server)
        self.assertIn('amqp_durable_queues', self.logged.output)

    def test_a_server_that_is_not_wanted_any_more_is_given_up(self):
        abandoned = threading.Event()
        server = mock.Mock()
        server.start.side_effect = amqp.exceptions.AccessRefused('refused')
        self.wait.side_effect = lambda pause: server.start.call_count < 3 or abandoned.set()
        self.assertRaises(starting.Abandoned, starting.start, lambda: server, abandoned)
        self.assertEqual(3, server.start.call_count)

    def test_another_error_is_raised(self):
        server = mock.Mock()
        server.start.side_effect = ValueError
        self.assertRaises(ValueError, starting.start, lambda: server)
