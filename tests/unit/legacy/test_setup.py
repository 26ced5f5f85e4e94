# SPDX-License-Identifier: Apache-2.0
"""A manager starts and stops serving the callers of the old service."""

import contextlib

import oslo_messaging
import testtools
from fixtures import MockPatchObject
from oslo_cache import core

from consoled.legacy import memcached, setup
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures


class SourceFromConfTest(testtools.TestCase):
    def test_without_a_cache_there_are_no_tokens(self):
        conf = self.useFixture(fixtures.Conf()).conf
        self.assertIsInstance(setup.source_from_conf(conf), memcached.NoTokens)

    def test_outcomes_come_with_the_name_of_the_source(self):
        config = self.useFixture(fixtures.Conf())
        core.configure(config.conf)
        config.set(
            cache__enabled=True,
            cache__backend='dogpile.cache.memcached',
            cache__memcache_servers=['127.0.0.1:1'],
        )
        outcomes = []
        source = setup.source_from_conf(config.conf, lambda *outcome: outcomes.append(outcome))
        source.lookup('x' * 20)
        self.assertEqual([('memcached', 'unavailable')], outcomes)

    def test_options_that_contradict_each_other(self):
        config = self.useFixture(fixtures.Conf())
        core.configure(config.conf)
        config.set(cache__enabled=True, cache__backend='dogpile.cache.memory')
        self.assertRaises(ValueError, setup.source_from_conf, config.conf)

    def test_tls_that_is_set_by_half_or_cannot_be_used(self):
        for options, named in (
            ({'tls_cafile': __file__}, 'tls_cafile is set, but tls_enabled is not'),
            ({'tls_enabled': True, 'tls_keyfile': __file__}, 'tls_certfile is not'),
            ({'tls_enabled': True, 'tls_cafile': '/nowhere/ca.pem'}, '[cache] tls_cafile: /nowhere/ca.pem'),
            ({'tls_enabled': True, 'tls_cafile': __file__}, '[cache]: '),  # no certificate
        ):
            config = self.useFixture(fixtures.Conf())
            core.configure(config.conf)
            cache = {'enabled': True, 'backend': 'dogpile.cache.pymemcache', **options}
            config.set(**{f'cache__{name}': value for name, value in cache.items()})
            error = self.assertRaises(ValueError, setup.source_from_conf, config.conf)
            self.assertIn(named, str(error))


class Consoles:
    """A manager that knows no token."""

    def observe(self, method, code, seconds):
        pass


class StartServerTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)

    def conf(self, **options):
        return self.useFixture(fixtures.Conf(transport_url='fake://', host='m', **options)).conf

    def assert_answers(self, transport):
        """Call the old service as an old proxy does."""
        client = oslo_messaging.get_rpc_client(
            transport,
            oslo_messaging.Target(exchange='nova', topic='consoleauth', version='2.0'),
            timeout=10,
        )
        self.assertIsNone(client.call({}, 'check_token', token=''))

    def test_it_answers_on_the_cells_bus(self):
        conf = self.conf()
        transport = get_transport(conf)
        self.addCleanup(transport.cleanup)
        setup.start_server(conf, transport, Consoles(), self.stack)
        self.assert_answers(transport)

    def test_a_bus_of_the_old_callers_own_is_closed_with_the_stack(self):
        conf = self.conf(workarounds__consoleauth_transport_url='fake://other')
        transports = []

        def connect(conf, url, option):
            transports.append((url, get_transport(conf)))
            transports[0][1].cleanup = lambda: transports.append('closed')
            return transports[0][1]

        self.useFixture(MockPatchObject(setup, 'get_transport', connect))
        setup.start_server(conf, None, Consoles(), self.stack)
        ((url, transport),) = transports
        self.assertEqual('fake://other', url)
        self.assert_answers(transport)
        self.stack.close()
        self.assertEqual(['closed'], transports[1:])
