# SPDX-License-Identifier: Apache-2.0
"""One look at the rate of calls: some releases of oslo.messaging sleep for half a second in each."""

import statistics
import time

import kombu
import oslo_messaging
import testtools

from tests.functional import base

ROUNDS = 30
# Of the broker's round trips in one call; 5 to 15 were measured. A call that sleeps takes several hundred.
AT_MOST = 60


class _Echo:
    @oslo_messaging.expose
    def echo(self, context, value):
        return value


class RateTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.bus = base.transport_url(self)

    def call(self):
        """Return a function that makes one RPC, to a server in this process."""
        transport = base.client_transport(self, self.bus)
        target = oslo_messaging.Target(topic='echo', server='rate')
        policy = oslo_messaging.ExplicitRPCAccessPolicy
        server = oslo_messaging.get_rpc_server(transport, target, [_Echo()], access_policy=policy)
        server.start()
        self.addCleanup(server.wait)
        self.addCleanup(server.stop)
        client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic='echo'), timeout=60)
        return lambda: client.call({}, 'echo', value='x')

    def round_trip(self):
        """Return a function that sends one message through the broker, and receives it."""
        connection = kombu.Connection(self.bus.replace('rabbit://', 'amqp://'))
        self.addCleanup(connection.release)
        queue = connection.SimpleQueue('rate')
        self.addCleanup(queue.close)

        def send_and_receive():
            queue.put('x')
            queue.get(timeout=60).ack()

        return send_and_receive

    def test_a_call_takes_as_long_as_a_few_round_trips(self):
        both = (self.call(), self.round_trip())
        for function in both:
            function()  # connects
        times = [[], []]
        for _ in range(ROUNDS):  # in turns: a busy machine slows both
            for function, taken in zip(both, times, strict=True):
                started = time.perf_counter()
                function()
                taken.append(time.perf_counter() - started)
        call, round_trip = map(statistics.median, times)
        self.assertLess(call, AT_MOST * round_trip)
