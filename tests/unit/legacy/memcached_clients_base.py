# SPDX-License-Identifier: Apache-2.0
"""Behaviour that the bounded clients of both libraries share, with servers in threads of the test."""

import contextlib
import re
import socket
import threading
import time

from hypothesis import strategies as st

from consoled.legacy.bounded_io import PICKLED, UNREADABLE, OutOfTime, RawValue, ServerHealth, server_hash

KEY = 'a' * 40  # as of a SHA-1
KEYS = st.text('0123456789abcdef', min_size=40, max_size=40)


class FakeMemcached:
    """A server of memcached's text protocol: what gets, sets and deletes need.

    :ivar values: (flags, bytes) by key
    :ivar answer: bytes to send instead of any answer; None: behave
    """

    def __init__(self):
        self.values = {}
        self.answer = None
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.url = f'127.0.0.1:{self._listener.getsockname()[1]}'
        self._connections = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def close_connections(self):
        """Close what clients have open, as a restart does."""
        while self._connections:
            connection = self._connections.pop()
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        self.close_connections()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError), connection.makefile('rb') as lines:
            for line in lines:
                connection.sendall(self._answer(line.split(), lines) if self.answer is None else self.answer)

    def _answer(self, words, lines):
        command, *arguments = words
        if command == b'get':
            found = [(key, *self.values[key]) for key in arguments if key in self.values]
            return b''.join(b'VALUE %s %d %d\r\n%s\r\n' % (k, f, len(d), d) for k, f, d in found) + b'END\r\n'
        if command == b'set':
            key, flags, _, size = arguments[:4]
            self.values[key] = int(flags), lines.read(int(size) + 2)[:-2]
            return b'STORED\r\n'
        if command == b'delete':
            return b'DELETED\r\n' if self.values.pop(arguments[0], None) else b'NOT_FOUND\r\n'
        return b'ERROR\r\n'


class ClientTests:
    """Mixed into the tests of each client library: ``make(urls, health)`` returns a client."""

    def setUp(self):
        super().setUp()
        self.health = ServerHealth(5.0, 60)
        self.begin()

    def begin(self, seconds=60.0):
        self.health.operation.begin(time.monotonic() + seconds)

    def servers(self, number):
        found = [FakeMemcached() for _ in range(number)]
        for server in found:
            self.addCleanup(server.close)
        return found

    @staticmethod
    def name_of(url):
        """Return the name of a server, as both libraries' clients give it to ``ServerHealth``."""
        host, port = url.split(':')
        return str((host, int(port)))

    def client(self, *servers):
        return self.make([server.url for server in servers], self.health)

    def test_values_come_back_as_raw_bytes(self):
        (server,) = self.servers(1)
        client = self.client(server)
        client.set(KEY, RawValue(b'value'))
        self.assertEqual({KEY.encode(): (PICKLED, b'value')}, server.values)
        self.assertEqual(RawValue(b'value'), client.get(KEY))
        self.assertEqual({KEY: RawValue(b'value')}, client.get_multi([KEY, 'b']))
        self.assertTrue(self.health.operation.answered)
        self.assertFalse(self.health.operation.failed_over)
        client.delete_multi([KEY])
        self.assertIsNone(client.get(KEY))

    def test_values_with_other_flags_are_unreadable(self):
        (server,) = self.servers(1)
        client = self.client(server)
        for flags in (0, 2, 4, 8, 16, PICKLED | 8):
            server.values[KEY.encode()] = flags, b'\x00canary'
            self.assertEqual(UNREADABLE, client.get(KEY))

    def test_a_server_that_is_down_is_replaced_and_then_skipped(self):
        servers = self.servers(3)
        client = self.client(*servers)
        down = servers[server_hash(KEY.encode()) % 3]
        down.close()
        client.set(KEY, RawValue(b'value'))
        self.assertTrue(self.health.operation.failed_over)
        self.assertTrue(self.health.is_skipped(self.name_of(down.url)))
        self.health.operation.begin_request()
        self.assertEqual(RawValue(b'value'), client.get(KEY))
        self.assertTrue(self.health.operation.failed_over)
        self.assertTrue(self.health.operation.answered)

    def test_no_server_at_all(self):
        (server,) = self.servers(1)
        client = self.client(server)
        server.close()
        self.assertIsNone(client.get(KEY))
        client.set(KEY, RawValue(b'value'))
        self.assertFalse(self.health.operation.answered)

    def test_a_connection_that_was_closed_since_its_last_use_is_stale(self):
        (server,) = self.servers(1)
        client = self.client(server)
        client.set(KEY, RawValue(b'value'))
        server.close_connections()
        self.health.operation.begin_request()
        client.get(KEY)
        if self.health.operation.stale:  # else the library has connected again by itself
            self.health.operation.begin_request()
        self.assertEqual(RawValue(b'value'), client.get(KEY))
        self.assertFalse(self.health.is_skipped(self.name_of(server.url)))

    def test_a_deadline_that_is_over_is_not_the_servers_fault(self):
        (server,) = self.servers(1)
        client = self.client(server)
        self.begin(-1)
        self.assertRaises(OutOfTime, client.get, KEY)
        self.assertFalse(self.health.is_skipped(self.name_of(server.url)))

    def test_after_an_answer_without_sense_the_connection_is_not_used_again(self):
        (server,) = self.servers(1)
        self.health._dead_retry = 0
        client = self.client(server)
        for answer in (
            b'HELLO\r\n',
            b'VALUE x y z\r\n',
            b'VALUE %s 1 3\r\nabcdefgh\r\nEND\r\n' % KEY.encode(),
        ):
            server.answer = answer
            with contextlib.suppress(Exception):
                client.get(KEY)
            server.answer = None
            server.values[KEY.encode()] = PICKLED, b'value'
            for _ in range(2):  # the first may find the connection closed
                self.health.operation.begin_request()
                found = client.get(KEY)
            self.assertEqual(RawValue(b'value'), found, answer)

    def check_servers_of_key(self, key, number):
        """The client tries the servers of a key in the order of the old service's library."""
        health = ServerHealth(5.0, 60)
        health.operation.begin(time.monotonic() + 60)
        asked = []
        health.is_skipped = lambda name: asked.append(name) or True
        client = self.make([f'127.0.0.1:{port}' for port in range(1, number + 1)], health)
        client.get(key)
        ports = [int(re.search(r'(\d+)\W*$', name)[1]) for name in asked]
        self.assertEqual(list(_candidates(key, number)), ports)


def _candidates(key, number):
    """Ports of the servers that python-memcached 1.59 tries, in its own words."""
    hashed = server_hash(key.encode())
    for i in range(10):
        yield hashed % number + 1
        hashed = server_hash((str(hashed) + str(i)).encode())
