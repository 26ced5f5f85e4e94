# SPDX-License-Identifier: Apache-2.0
"""memcached that is down, slow, or full of hostile values."""

import contextlib
import gc
import os
import pathlib
import pickle
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib

from consoled.legacy import pickles
from consoled.testing import services
from consoled.testing.fixtures import wait_until
from tests.functional import legacy_base as base
from tests.functional.legacy_base import LegacyCase, a_grant, a_token

# A failure shows by this bound; the time limits themselves are much shorter.
BOUND = base.BOUND


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


class HostileValuesTest(LegacyCase):
    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix='consoled-')
        self.addCleanup(directory.cleanup)
        self.proof = pathlib.Path(directory.name) / 'executed'

    def values(self):
        """Yield (flags, bytes) of hostile values: pickles, and what the libraries process before a pickle."""
        bombs = [pickle.dumps(Bomb(self.proof), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
        bombs.append(b"cos\nsystem\n(S'touch %s'\ntR." % str(self.proof).encode())
        bombs.append(b"(S'touch %s'\nios\nsystem\n." % str(self.proof).encode())
        for bomb in bombs:
            yield 1, bomb
            yield 1 | 8, zlib.compress(bomb)
            yield 1 | 64, bomb
        yield 8, zlib.compress(b'0' * 10_000_000)
        yield from ((2, b'no number'), (2, b'9' * 5000), (4, b''), (16, b'\xff\xfe'), (64, b'x'), (0, b'x'))
        yield from ((1, b''), (1, b'.'), (1, b'0' * 900_000), (16, b'y' * 900_000))

    def test_hostile_values_are_refused_and_nothing_is_executed(self):
        token = a_token()
        key = base.key_of(token)
        for made in self.each():
            for flags, data in self.values():
                base.raw_set(self.servers[0], key, data, flags)
                self.assertIsNone(made.source.lookup(token))
                self.assertEqual('refused', made.outcomes[-1], (flags, data[:50]))
            self.assertFalse(self.proof.exists())
            made.source.store(a_grant(token, self.instance))
            self.assertIsNotNone(made.source.lookup(token))
        # The first time, and then not for a minute.
        self.assertEqual(len(base.BACKENDS), len(self.logged.warnings()))

    def test_hostile_lists_prevent_neither_storing_nor_forgetting(self):
        for made in self.each():
            for flags, data in self.values():
                token = a_token()
                base.raw_set(self.servers[0], base.key_of(self.instance), data, flags)
                made.source.store(a_grant(token, self.instance))
                self.assertIsNotNone(made.source.lookup(token))
                made.source.forget(self.instance)
                self.assertIsNone(made.source.lookup(token))
                base.raw_set(self.servers[0], base.key_of(self.instance), data, flags)
                made.source.forget(self.instance)
                self.assertIsNone(base.raw_get(self.servers[0], base.key_of(self.instance)))
        self.assertFalse(self.proof.exists())

    def test_the_value_of_another_token_is_refused(self):
        known, guessed = a_token(), a_token()
        for made in self.each():
            made.source.store(a_grant(known, self.instance))
            _, data = base.raw_get(self.servers[0], base.key_of(known))
            base.raw_set(self.servers[0], base.key_of(guessed), data)
            self.assertIsNone(made.source.lookup(guessed))

    def test_no_log_at_any_level_has_a_token(self):
        """Invariant 1, even if oslo.cache is configured to log keys and values."""
        known, hostile = a_token(), a_token()
        for made in self.each(debug_cache_backend=True):
            made.source.store(a_grant(known, self.instance))
            made.source.store(a_grant(a_token(), self.instance))
            made.source.lookup(known)
            for flags, text in (
                (1, pickles.dumps(pickles.Cached(f'{{"token": "{hostile}"}}', 1.0))),
                (16, hostile.encode()),
                (2, hostile.encode()),
                (0, hostile.encode()),
            ):
                base.raw_set(self.servers[0], base.key_of(hostile), text, flags)
                made.source.lookup(hostile)
            base.raw_set(self.servers[0], base.key_of(self.instance), hostile.encode(), 16)
            made.source.forget(self.instance)
        self.assertIn('CACHE_GET', self.logged.text)
        for token in (known, hostile):
            self.assertNotIn(token, self.logged.text)


class HealthyTest(LegacyCase):
    """A memcached that is restarted, emptied or busy: nothing that it has is missed."""

    def each(self):
        return super().each(memcache_dead_retry=1)

    def test_a_restart_between_two_calls_costs_no_lookup(self):
        for made in self.each():
            token = a_token()
            made.source.store(a_grant(token, self.instance))
            self.memcached[0].restart()
            made.source.store(a_grant(token, self.instance))
            self.assertIsNotNone(made.source.lookup(token))
            self.assertNotIn('unavailable', made.outcomes)

    def test_flushed_in_the_middle(self):
        for made in self.each():
            token = a_token()
            made.source.store(a_grant(token, self.instance))
            base.flush(self.servers[0])
            self.assertIsNone(made.source.lookup(token))
            made.source.store(a_grant(token, self.instance))
            self.assertIsNotNone(made.source.lookup(token))
            self.assertEqual(['unknown', 'found'], made.outcomes)

    def test_many_at_once_are_all_answered_by_a_healthy_one(self):
        for made in self.each():
            known = [a_token() for _ in range(16)]
            for token in known:
                made.source.store(a_grant(token, str(uuid.uuid4())))
            found = []
            threads = [
                threading.Thread(
                    target=lambda token=token, made=made, found=found: found.extend(
                        made.source.lookup(token) for _ in range(20)
                    )
                )
                for token in known
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(320, len(found))
            self.assertNotIn(None, found)

    def test_tokens_of_one_instance_stored_at_once_are_all_listed(self):
        for made in self.each():
            known = {a_token() for _ in range(16)}
            threads = [
                threading.Thread(target=made.source.store, args=(a_grant(token, self.instance),))
                for token in known
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(known, set(self.old().tokens_of(self.instance)))
            made.source.forget(self.instance)


class DownTest(LegacyCase):
    """A memcached that is down or does not answer."""

    patient = False

    def each(self):
        return super().each(memcache_dead_retry=1)

    def assert_quick(self, call, what):
        started = time.monotonic()
        result = call()
        self.assertLess(time.monotonic() - started, BOUND, what)
        return result

    def assert_recovers(self, made, token):
        wait_until(lambda: made.source.lookup(token) is not None, what='recovery')

    def all_methods(self, made, token):
        for _ in range(20):
            self.assertIsNone(made.source.lookup(token))
        made.source.store(a_grant(a_token(), self.instance))
        made.source.forget(self.instance)

    def test_killed_and_started_again(self):
        for made in self.each():
            token = a_token()
            made.source.store(a_grant(token, self.instance))
            self.memcached[0].kill()
            self.assert_quick(
                lambda made=made, token=token: self.all_methods(made, token), 'while it is away'
            )
            self.assertEqual({'unavailable'}, set(made.outcomes))
            self.memcached[0].start()
            wait_until(
                lambda made=made, token=token: (
                    made.source.store(a_grant(token, self.instance)) or made.source.lookup(token)
                ),
                what='recovery',
            )
        self.assertEqual(len(base.BACKENDS), len(self.logged.warnings()))

    def test_stalled(self):
        """It accepts connections and answers nobody; then it continues as if nothing had happened."""
        for made in self.each():
            token = a_token()
            made.source.store(a_grant(token, self.instance))
            with base.stopped(self.memcached[0]):
                self.assert_quick(lambda made=made, token=token: self.all_methods(made, token), 'stalled')
                self.assertNotIn('found', made.outcomes)
            self.assert_recovers(made, token)

    def test_many_at_once_while_it_is_stalled(self):
        """More lookups than may run at once: each is answered in time, and one line is logged."""
        for made in self.each():
            with base.stopped(self.memcached[0]):
                threads = [threading.Thread(target=made.source.lookup, args=(a_token(),)) for _ in range(100)]
                started = time.monotonic()
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.assertLess(time.monotonic() - started, 2 * BOUND)
            self.assertEqual(['unavailable'] * 100, made.outcomes)
        self.assertEqual(len(base.BACKENDS), len(self.logged.warnings()))

    def test_a_server_whose_name_cannot_be_resolved_is_down(self):
        for backend in base.BACKENDS:
            made = self.made(backend, ['memcached.invalid:11211'])  # RFC 6761
            started = time.monotonic()
            self.assertIsNone(made.source.lookup(a_token()))
            self.assertLess(time.monotonic() - started, BOUND)
            self.assertEqual(['unavailable'], made.outcomes)

    def test_a_dropped_source_leaves_no_connection_and_no_thread(self):
        """As when the option is switched off."""
        server = self.useFixture(services.Memcached()).url
        connections = self.connections(server)
        for backend in base.BACKENDS:
            before = set(threading.enumerate())
            made = self.made(backend, [server])
            for _ in range(10):
                made.source.lookup(a_token())
            self.assertGreater(self.connections(server), connections)
            threads = set(threading.enumerate()) - before
            self.assertNotEqual(set(), threads)
            made.source = None
            gc.collect()
            wait_until(lambda: self.connections(server) == connections, what='no connection')
            wait_until(lambda threads=threads: not any(t.is_alive() for t in threads), what='no thread')

    @staticmethod
    def connections(server):
        stats = base.talk(server, b'stats\r\n', b'END\r\n')
        return int(re.search(rb'curr_connections (\d+)', stats)[1])

    def test_under_eventlet(self):
        """Other green threads run while one waits for a memcached that is stalled."""
        script = pathlib.Path(__file__).with_name('_green_lookups.py')
        for backend in base.BACKENDS:
            with base.stopped(self.memcached[0]):
                done = subprocess.run(
                    [sys.executable, '-W', 'ignore', str(script), self.servers[0], backend],
                    capture_output=True,
                    timeout=60,
                    text=True,
                )
            self.assertEqual((0, 'ok\n'), (done.returncode, done.stdout), done.stderr)


class BadServersTest(LegacyCase):
    """A server that does not speak memcached's protocol."""

    number = 0
    patient = False

    def serve(self, behave):
        """Run a server that calls ``behave(connection)`` after each request; return its host:port."""
        listener = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(listener.close)
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)  # wakes accept

        def one(connection):
            with connection, contextlib.suppress(OSError):
                while connection.recv(65536):
                    behave(connection)

        def run():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        return f'127.0.0.1:{listener.getsockname()[1]}'

    def check(self, behave, outcomes=('unavailable',)):
        for backend in base.BACKENDS:
            made = self.made(backend, [self.serve(behave)], memcache_dead_retry=1)
            for call in (
                lambda made=made: [made.source.lookup(a_token()) for _ in range(10)],
                lambda made=made: made.source.store(a_grant(a_token(), self.instance)),
                lambda made=made: made.source.forget(self.instance),
            ):
                started = time.monotonic()
                self.assertIn(call(), (None, [None] * 10))
                self.assertLess(time.monotonic() - started, 2 * BOUND)
            self.assertLessEqual(set(made.outcomes), set(outcomes), backend)

    def test_bytes_in_a_trickle(self):
        def behave(connection):
            while True:
                connection.sendall(b'V')
                time.sleep(0.1)

        self.check(behave)

    def test_a_value_without_an_end(self):
        def behave(connection):
            connection.sendall(b'VALUE x 1 99999999999\r\n')
            while True:
                connection.sendall(b'0' * 65536)

        self.check(behave)

    def test_a_line_without_an_end(self):
        def behave(connection):
            while True:
                connection.sendall(b'0' * 65536)

        self.check(behave)

    def test_answers_without_sense(self):
        for answer in (
            *(b'HELLO\r\n', b'VALUE\r\n', b'VALUE x 1 -5\r\n', b'VALUE x y z\r\n', b'\r\n', b'\xff\xfe\r\n'),
            *(b'VALUE x 1 3\r\nabcdefgh\r\nEND\r\n', b'SERVER_ERROR out of memory\r\n', b'END\r\nEND\r\n'),
        ):
            outcomes = ('unavailable', 'unknown', 'refused')
            self.check(lambda connection, answer=answer: connection.sendall(answer), outcomes)

    def test_connections_that_are_closed_at_once(self):
        self.check(lambda connection: connection.shutdown(socket.SHUT_RDWR))
