# SPDX-License-Identifier: Apache-2.0
"""No message content reaches the logs of the library."""

import json
import logging

import fixtures as fixtures_library
import testtools
from oslo_messaging._drivers import common as driver

from consoled.rpc import transport
from consoled.testing import fixtures

LOGGERS = ('oslo.messaging._drivers.amqpdriver', 'oslo_messaging._drivers.impl_rabbit')


class ContentTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        conf = self.useFixture(fixtures.Conf(transport_url='fake:/')).conf
        transport.get_transport(conf)
        self.logged = self.useFixture(fixtures_library.FakeLogger(level=1))

    def test_content_is_hidden_at_any_level(self):
        for name in LOGGERS:
            for level in (1, logging.DEBUG, logging.WARNING):
                log = logging.getLogger(name)
                log.log(level, 'sent %(msg)s to %(queue)s', {'msg': 'canary', 'queue': 'consoled'})
                log.log(level, 'received message %s', 'canary')
        self.assertNotIn('canary', self.logged.output)
        self.assertEqual(12, self.logged.output.count('content not logged'))
        self.assertIn('to consoled', self.logged.output)

    def test_names_that_peers_give_to_their_errors_are_hidden(self):
        for name in ('canary', 'Canary' * 1000):
            failure = json.dumps({'class': name, 'module': 'consoled.exception'})
            driver.deserialize_remote_exception(failure, transport.REMOTE_EXCEPTIONS)
        self.assertNotIn('canary', self.logged.output.lower())
        self.assertEqual(2, self.logged.output.count('Failed to rebuild remote exception'))

    def test_the_rest_is_logged_as_it_is(self):
        logging.getLogger(LOGGERS[0]).error('Connection to %s lost after %d s', 'node-1', 5)
        self.assertIn('Connection to node-1 lost after 5 s', self.logged.output)
