# SPDX-License-Identifier: Apache-2.0
"""The bounded clients of python-memcached, with a connection pool and without."""

import pickle
import types

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.legacy import memcache_clients
from tests.unit.legacy import memcached_clients_base as base


class _MemcacheTests(base.ClientTests):
    def test_nothing_can_unpickle(self):
        (server,) = self.servers(1)
        client = self.client(server)
        server.values[base.KEY.encode()] = base.PICKLED, pickle.dumps(print)
        self.assertEqual(base.RawValue(pickle.dumps(print)), client.get(base.KEY))
        self.assertFalse(
            [name for name, value in vars(client).items() if getattr(value, '__module__', '') == 'pickle']
        )


class ClientTest(_MemcacheTests, testtools.TestCase):
    def make(self, urls, health):
        backend = types.SimpleNamespace(url=urls)
        memcache_clients.bind(backend, health)
        return backend._create_client()

    @given(base.KEYS, st.integers(1, 5))
    def test_the_servers_of_a_key_are_the_old_librarys(self, key, number):
        self.check_servers_of_key(key, number)


class PooledClientTest(_MemcacheTests, testtools.TestCase):
    def make(self, urls, health):
        pool = types.SimpleNamespace()
        memcache_clients.bind(types.SimpleNamespace(url=urls, client_pool=pool), health)
        return pool._create_connection()
