# SPDX-License-Identifier: Apache-2.0
"""What a transport URL may be, and that neither passwords nor contents of messages are shown."""

import json
import logging

import fixtures as fixtures_library
import testtools
from oslo_messaging._drivers import common as driver

from consoled.rpc import transport
from consoled.testing import fixtures

LOGGERS = ('oslo.messaging._drivers.amqpdriver', 'oslo_messaging._drivers.impl_rabbit')


class CheckTest(testtools.TestCase):
    def check(self, url, **options):
        options = {f'oslo_messaging_rabbit__{name}': value for name, value in options.items()}
        return transport.check(self.useFixture(fixtures.Conf(transport_url=url, **options)).conf)

    def test_urls_of_message_buses(self):
        for url in (
            'rabbit://',
            'rabbit://h/',
            'rabbit://u:p@h:5672/v',
            'rabbit://user@domain:p%40%23%2F@[::1]:5672,user@domain:x@h2//',
            'rabbit://u:p@h1,u:p@h2/?ssl=false&heartbeat_rate=3',
            'kombu+memory://',
            'kombu+memory:////',
            'fake:/',
            'fake:',
        ):
            transport.check_url(url)

    def test_what_is_none_is_refused_without_a_part_of_it(self):
        for url in (
            '',
            'canary',
            'u:canary@h',
            'rabbit://u:canary#1@h/',
            'rabbit://u:12#canary@h/',
            'rabbit://u:12/canary@h/',
            'rabbit://u:12?canary@h/',
            'rabbit://u:12,canary@h/',
            'rabbit://u:12[canary@h/',
            'rabbit://u:canary@h:5672x/',
            'rabbit://u:can ary@h/',
            'rabbit://u:p@h1,canary/',
            'canary://u:p@h/',
        ):
            error = self.assertRaises(ValueError, transport.check_url, url)
            self.assertNotIn('canary', str(error))

    def test_a_bus_must_be_named(self):
        conf = self.useFixture(fixtures.Conf()).conf
        error = self.assertRaises(ValueError, transport.check, conf)
        self.assertIn('[DEFAULT] transport_url is not set', str(error))

    def test_tls_that_would_not_be_used_is_refused(self):
        for option in ('ssl_ca_file', 'ssl_cert_file', 'ssl_key_file'):
            error = self.assertRaises(ValueError, self.check, 'rabbit://h/', **{option: __file__})
            self.assertIn(f'[oslo_messaging_rabbit] {option}', str(error))
        error = self.assertRaises(ValueError, self.check, 'rabbit://h/', ssl=True, ssl_key_file=__file__)
        self.assertIn('ssl_cert_file', str(error))
        error = self.assertRaises(ValueError, self.check, 'rabbit://h/', ssl=True, ssl_ca_file='/nowhere')
        self.assertIn('/nowhere', str(error))

    def test_a_broker_whose_certificate_is_not_checked(self):
        for url, options in (('rabbit://h/', {'ssl': True}), ('rabbit://h/?ssl=true', {})):
            (said,) = self.check(url, **options)
            self.assertIn('ssl_ca_file is not set', said)
        self.assertEqual([], self.check('rabbit://h/', ssl=True, ssl_ca_file=__file__))
        self.assertEqual([], self.check('rabbit://h/'))

    def test_addresses_have_no_secret(self):
        conf = self.useFixture(fixtures.Conf(transport_url='rabbit://u:canary@h1:1,u:canary@h2/v')).conf
        self.assertEqual('h1:1,h2', transport.addresses(conf))


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
