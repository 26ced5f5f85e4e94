# SPDX-License-Identifier: Apache-2.0
"""The source of tokens in memcached: its configuration, and its outcomes."""

import datetime
import logging
import pathlib
import subprocess
import sys
import time
import types

import testtools
from fixtures import FakeLogger, TempDir
from oslo_cache import core

from consoled import objects
from consoled import token as tokens
from consoled.legacy import memcached, pickles, values
from consoled.legacy.bounded_io import RawValue, ServerHealth
from consoled.testing import fixtures

TOKEN = '0b5b1b0e-1111-4222-8333-444455556666'
OTHER = '1b5b1b0e-1111-4222-8333-444455556666'
OLD = '2b5b1b0e-1111-4222-8333-444455556666'
INSTANCE = '1c5b1b0e-1111-4222-8333-444455556666'


class FromConfTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.config = self.useFixture(fixtures.Conf())
        self.conf = self.config.conf

    def source(self, **options):
        core.configure(self.conf)
        self.config.set(**{f'cache__{name}': value for name, value in options.items()})
        return memcached.from_conf(self.conf)

    def test_without_a_cache_there_are_no_tokens(self):
        for options in ({}, {'enabled': True}, {'backend': 'dogpile.cache.memcached', 'enabled': False}):
            source = self.source(**options)
            self.assertIsNone(source.lookup(TOKEN))
            source.store(None)
            source.forget(TOKEN)

    def test_backends_and_options_that_are_not_supported(self):
        for options in (
            {'backend': 'dogpile.cache.memory'},
            {'backend': 'oslo_cache.dict'},
            {'backend': 'dogpile.cache.memcached', 'tls_enabled': True},
            {'backend': 'dogpile.cache.memcached', 'memcache_sasl_enabled': True},
        ):
            self.assertRaises(ValueError, self.source, enabled=True, **options)
            self.conf.clear_override('tls_enabled', 'cache')

    def test_timeouts_are_short_unless_the_operator_has_set_them(self):
        self.source()
        self.assertEqual(0.5, self.conf.cache.socket_timeout)
        self.assertEqual(5, self.conf.cache.memcache_dead_retry)
        self.source(memcache_dead_retry=30)
        self.assertEqual(30, self.conf.cache.memcache_dead_retry)

    def test_the_old_services_option_names_work(self):
        file = self.useFixture(TempDir()).join('old.conf')
        pathlib.Path(file).write_text('[cache]\nmemcache_socket_timeout = 2.5\nmemcache_dead_retry = 60\n')
        self.conf([], default_config_files=[file], default_config_dirs=[])
        self.source()
        self.assertEqual(2.5, self.conf.cache.socket_timeout)
        self.assertEqual(60, self.conf.cache.memcache_dead_retry)

    def test_other_configurations_keep_their_defaults(self):
        self.source()
        other = self.useFixture(fixtures.Conf()).conf
        core.configure(other)
        self.assertEqual(300, other.cache.memcache_dead_retry)

    def test_no_connection_is_made_before_the_first_use(self):
        for backend in ('dogpile.cache.memcached', 'dogpile.cache.pymemcache', 'oslo_cache.memcache_pool'):
            config = self.useFixture(fixtures.Conf())
            core.configure(config.conf)
            config.set(
                cache__enabled=True, cache__backend=backend, cache__memcache_servers=['memcached.invalid:1']
            )
            source = memcached.from_conf(config.conf)
            self.assertEqual('memcached', source.name)

    def test_values_that_cannot_be_tokens_are_not_looked_up(self):
        source = self.source(
            enabled=True, backend='dogpile.cache.memcached', memcache_servers=['memcached.invalid:1']
        )
        for token in ('', 'short', 'x' * 200, 'a b c d e f g h i j', None, 5, 'é' * 20):
            self.assertIsNone(source.lookup(token))


class Backend:
    """A backend of dogpile.cache in memory; ``failed_over`` and ``answers`` are what a client would note."""

    def __init__(self, health):
        self.values = {}
        self.failed_over = False
        self.answers = True
        self._operation = health.operation

    def _ask(self):
        if self.answers:
            self._operation.count_received(1)
        self._operation.failed_over = self.failed_over

    def get(self, key):
        self._ask()
        return self.values.get(key, core.NO_VALUE)

    def get_multi(self, keys):
        return [self.get(key) for key in keys]

    def set(self, key, value):
        self._ask()
        self.values[key] = value

    def delete_multi(self, keys):
        self._ask()
        for key in keys:
            self.values.pop(key, None)


class MemcachedTokensTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        health = ServerHealth(5.0, 60)
        self.backend = Backend(health)
        self.outcomes = []
        region = types.SimpleNamespace(backend=self.backend, key_mangler=lambda key: f'key of {key.decode()}')
        self.source = memcached.MemcachedTokens(region, health, lambda: 600.0, self.outcomes.append)
        self.logged = self.useFixture(FakeLogger('consoled.legacy', level=logging.WARNING))

    def grant(self, token=TOKEN, instance=INSTANCE, lifetime=600):
        return objects.ConsoleAuthToken(
            instance_uuid=instance,
            console_type='novnc',
            host='192.0.2.10',
            port=5900,
            compute_host='node-1',
            token=token,
            access_url=f'https://console.example.org/?token={token}',
            expires=datetime.datetime.fromtimestamp(time.time() + lifetime, datetime.UTC),
            options={},
        )

    def test_a_stored_token_is_found(self):
        self.source.store(self.grant())
        found = self.source.lookup(TOKEN)
        self.assertEqual((INSTANCE, 5900), (found.instance_uuid, found.port))
        self.assertTrue(abs(found.issued_at - time.time()) < 60)
        self.assertEqual(['found'], self.outcomes)
        self.assertEqual({f'key of {TOKEN}', f'key of {INSTANCE}'}, set(self.backend.values))

    def test_the_moment_of_issue_is_calculated_from_the_expiry(self):
        self.source.store(self.grant(lifetime=100))
        self.assertTrue(abs(time.time() - 500 - self.source.lookup(TOKEN).issued_at) < 60)

    def test_an_unknown_token(self):
        self.assertIsNone(self.source.lookup(TOKEN))
        self.assertEqual(['unknown'], self.outcomes)

    def test_a_token_whose_server_is_down_is_not_unknown(self):
        self.backend.failed_over = True
        self.assertIsNone(self.source.lookup(TOKEN))
        self.assertEqual(['unavailable'], self.outcomes)

    def test_a_token_that_another_server_has_is_found(self):
        self.source.store(self.grant())
        self.backend.failed_over = True
        self.assertIsNotNone(self.source.lookup(TOKEN))

    def test_without_an_answer_nothing_is_found_stored_or_raised(self):
        self.backend.answers = False
        self.assertIsNone(self.source.lookup(TOKEN))
        self.source.store(self.grant())
        self.source.forget(INSTANCE)
        self.assertEqual(['unavailable'] * 3, self.outcomes)
        self.assertEqual(1, self.logged.output.count('memcached is unavailable'))

    def test_an_invalid_value_is_refused_without_showing_it(self):
        self.backend.values[f'key of {TOKEN}'] = RawValue(b'canary')
        self.assertIsNone(self.source.lookup(TOKEN))
        self.backend.values[f'key of {TOKEN}'] = 'a value of another client'
        self.assertIsNone(self.source.lookup(TOKEN))
        self.assertEqual(['refused'] * 2, self.outcomes)
        self.assertIn('Refused a value in memcached', self.logged.output)
        self.assertNotIn('canary', self.logged.output)

    def listed(self):
        value = self.backend.values.get(f'key of {INSTANCE}')
        return None if value is None else values.parse_list(pickles.loads(value.data))

    def test_the_list_of_an_instance_has_its_living_tokens(self):
        for token in (OLD, OTHER, TOKEN):
            self.source.store(self.grant(token, lifetime=-1000 if token == OLD else 600))
        self.assertEqual([OTHER, TOKEN], self.listed())

    def test_nothing_leaves_the_list_while_a_server_is_down(self):
        self.source.store(self.grant(OTHER))
        del self.backend.values[f'key of {OTHER}']
        self.backend.failed_over = True
        self.source.store(self.grant())
        self.assertEqual([OTHER, TOKEN], self.listed())

    def test_forgetting_some_and_all_tokens(self):
        for token in (OTHER, TOKEN):
            self.source.store(self.grant(token))
        self.source.forget(INSTANCE, {tokens.hashed(TOKEN), tokens.hashed(OLD)})
        self.assertEqual([OTHER], self.listed())
        self.assertIsNone(self.source.lookup(TOKEN))
        self.source.forget(INSTANCE)
        self.assertEqual({}, self.backend.values)

    def test_a_list_that_cannot_be_read_hinders_neither_storing_nor_forgetting(self):
        self.backend.values[f'key of {INSTANCE}'] = RawValue(b'canary')
        self.source.store(self.grant())
        self.assertEqual([TOKEN], self.listed())
        self.backend.values[f'key of {INSTANCE}'] = RawValue(b'canary')
        self.source.forget(INSTANCE)
        self.assertIsNone(self.listed())

    def test_a_deletion_that_may_have_missed_a_token_keeps_the_list(self):
        self.source.store(self.grant())
        self.backend.failed_over = True
        self.source.forget(INSTANCE)
        self.assertEqual(['unavailable'], self.outcomes)
        self.assertEqual([TOKEN], self.listed())


class ImportTest(testtools.TestCase):
    def test_a_client_library_is_imported_only_where_its_backend_is_used(self):
        code = 'import sys, consoled.legacy.memcached; print({"memcache", "pymemcache"} & set(sys.modules))'
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
        self.assertEqual('set()\n', done.stdout, done.stderr)
