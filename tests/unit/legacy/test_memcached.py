# SPDX-License-Identifier: Apache-2.0
"""How the source is made from the configuration."""

import pathlib
import subprocess
import sys

import testtools
from fixtures import TempDir
from oslo_cache import core

from consoled.legacy import memcached
from consoled.testing import fixtures

TOKEN = '0b5b1b0e-1111-4222-8333-444455556666'


class FromConfTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.config = self.useFixture(fixtures.Conf())
        self.conf = self.config.conf

    def made(self, **options):
        core.configure(self.conf)
        self.config.set(**{f'cache__{name}': value for name, value in options.items()})
        return memcached.from_conf(self.conf)

    def test_without_a_cache_there_are_no_tokens(self):
        for options in ({}, {'enabled': True}, {'backend': 'dogpile.cache.memcached', 'enabled': False}):
            source = self.made(**options)
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
            self.assertRaises(ValueError, self.made, enabled=True, **options)
            self.conf.clear_override('tls_enabled', 'cache')

    def test_time_outs_are_short_unless_the_operator_has_set_them(self):
        self.made()
        self.assertEqual(0.5, self.conf.cache.socket_timeout)
        self.assertEqual(5, self.conf.cache.memcache_dead_retry)
        self.made(memcache_dead_retry=30)
        self.assertEqual(30, self.conf.cache.memcache_dead_retry)

    def test_the_names_of_options_that_the_old_service_had(self):
        file = self.useFixture(TempDir()).join('old.conf')
        pathlib.Path(file).write_text('[cache]\nmemcache_socket_timeout = 2.5\nmemcache_dead_retry = 60\n')
        self.conf([], default_config_files=[file], default_config_dirs=[])
        self.made()
        self.assertEqual(2.5, self.conf.cache.socket_timeout)
        self.assertEqual(60, self.conf.cache.memcache_dead_retry)

    def test_other_configurations_keep_their_defaults(self):
        self.made()
        other = self.useFixture(fixtures.Conf()).conf
        core.configure(other)
        self.assertEqual(300, other.cache.memcache_dead_retry)

    def test_making_one_connects_to_nothing(self):
        for backend in ('dogpile.cache.memcached', 'dogpile.cache.pymemcache', 'oslo_cache.memcache_pool'):
            config = self.useFixture(fixtures.Conf())
            core.configure(config.conf)
            config.set(
                cache__enabled=True, cache__backend=backend, cache__memcache_servers=['memcached.invalid:1']
            )
            source = memcached.from_conf(config.conf)
            self.assertEqual('memcached', source.name)

    def test_what_can_be_no_token_is_not_looked_for(self):
        source = self.made(
            enabled=True, backend='dogpile.cache.memcached', memcache_servers=['memcached.invalid:1']
        )
        for token in ('', 'short', 'x' * 200, 'a b c d e f g h i j', None, 5, 'é' * 20):
            self.assertIsNone(source.lookup(token))


class ImportTest(testtools.TestCase):
    def test_a_client_library_is_imported_only_where_its_backend_is_used(self):
        code = 'import sys, consoled.legacy.memcached; print({"memcache", "pymemcache"} & set(sys.modules))'
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
        self.assertEqual('set()\n', done.stdout, done.stderr)
