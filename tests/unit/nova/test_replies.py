# SPDX-License-Identifier: Apache-2.0
"""The exchange of a reply queue, for compute hosts with an old oslo.messaging."""

from unittest import mock

import testtools
from oslo_messaging._drivers import impl_rabbit

from consoled.nova import replies
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures


class RepliesTest(testtools.TestCase):
    def pool(self, url):
        transport = get_transport(self.useFixture(fixtures.Conf(transport_url=url)).conf)
        self.addCleanup(transport.cleanup)
        replies.accept_old(transport)
        return getattr(transport._driver, '_connection_pool', None)

    def declared(self, exchange, queue, routing_key):
        """Return the consumer that a connection declares on the bus, without one."""
        cls = self.pool('rabbit://guest:guest@127.0.0.1:1/').connection_cls
        consumer = impl_rabbit.Consumer(exchange, queue, routing_key, 'direct', False, False, False, print)
        with mock.patch.object(impl_rabbit.Connection, 'declare_consumer') as declare:
            cls.declare_consumer(object.__new__(cls), consumer)
        [[declared], _] = declare.call_args
        return declared

    def test_a_reply_queue_is_bound_to_an_exchange_of_its_name(self):
        consumer = self.declared('', 'reply_1', '')
        self.assertEqual(('reply_1', 'reply_1'), (consumer.queue_name, consumer.routing_key))
        exchange = consumer.exchange
        self.assertEqual(('reply_1', 'direct'), (exchange.name, exchange.type))
        self.assertEqual((False, True), (exchange.durable, exchange.auto_delete))

    def test_other_queues_keep_their_exchange(self):
        consumer = self.declared('nova', 'compute.cmp1', 'compute.cmp1')
        self.assertEqual(('nova', 'compute.cmp1'), (consumer.exchange.name, consumer.routing_key))

    def test_other_drivers_are_left_alone(self):
        self.assertIsNone(self.pool('fake:'))
