# SPDX-License-Identifier: Apache-2.0
"""The bounded client of pymemcache."""

import types

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.legacy import pymemcache_client
from tests.unit.legacy import memcached_clients_base as base


class PymemcacheClientTest(base.ClientTests, testtools.TestCase):
    def make(self, urls, health):
        backend = types.SimpleNamespace(url=urls, socket_keepalive=None, tls_context=None)
        pymemcache_client.bind(backend, health)
        return backend._create_client()

    def test_prefixes_of_address_families_are_accepted(self):
        (server,) = self.servers(1)
        client = self.make([f'inet:{server.url}'], self.health)
        client.set(base.KEY, base.RawValue(b'value'))
        self.assertEqual(base.RawValue(b'value'), client.get(base.KEY))

    @given(base.KEYS, st.integers(1, 5))
    def test_the_servers_of_a_key_are_the_old_librarys(self, key, number):
        self.check_servers_of_key(key, number)
