# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of the old service: its libraries, memcached servers, raw values."""

import contextlib
import datetime
import hashlib
import json
import logging
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import unittest
import uuid

import fixtures
import testtools
from oslo_cache import core as oslo_cache

from consoled import objects
from consoled.legacy import memcached
from consoled.testing import fixtures as consoled_fixtures
from consoled.testing import services

ROOT = pathlib.Path(__file__).parents[2]
BACKENDS = ('dogpile.cache.memcached', 'dogpile.cache.pymemcache', 'oslo_cache.memcache_pool')
OLD_BACKENDS = ('dogpile.cache.memcached', 'oslo_cache.memcache_pool')
TTL = 600
NOVNC = 'https://console.example.org/vnc_lite.html'
PATH = f'{NOVNC}?path=%3Ftoken%3D'
BOUND = 5.0  # seconds: far more than any answer should take, also on a busy machine
PATIENCE = 60  # seconds: so long no healthy server pauses, even if the whole machine does


def legacy_python():
    """Return the interpreter of tools/setup-legacy.sh; skip the test (or fail it) if that has not run."""
    found = ROOT / '.venv-legacy' / 'bin' / 'python'
    if found.exists():
        return str(found)
    required = os.environ.get('CONSOLED_REQUIRE_SERVICES') == '1'
    raise (services.MissingService if required else unittest.SkipTest)('run tools/setup-legacy.sh')


class OldConsoleAuth(fixtures.Fixture):
    """The old service: its methods, carried out by the libraries of its time.

    :param servers: host:port of each memcached
    """

    def __init__(self, servers, backend=OLD_BACKENDS[0], token_ttl=TTL):
        super().__init__()
        self._arguments = [backend, ','.join(servers), str(token_ttl)]

    def setUp(self):
        self._python = legacy_python()  # not in _setUp: a skip would become an error
        super().setUp()

    def _setUp(self):  # noqa: N802 - named by the fixtures library
        script = pathlib.Path(__file__).with_name('_old_consoleauth.py')
        environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        self._process = subprocess.Popen(
            [self._python, '-W', 'ignore', str(script), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr if os.environ.get('OS_DEBUG') else subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self.addCleanup(self._end)

    def _end(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _call(self, name, *arguments):
        self._process.stdin.write(json.dumps([name, *arguments]) + '\n')
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def authorize_console(
        self, token, console_type, host, port, internal_access_path, instance_uuid, access_url=None
    ):
        self._call(
            'authorize_console',
            *(token, console_type, host, port, internal_access_path, instance_uuid, access_url),
        )

    def check_token(self, token):
        return self._call('check_token', token)

    def delete_tokens_for_instance(self, instance_uuid):
        self._call('delete_tokens_for_instance', instance_uuid)

    def tokens_of(self, instance_uuid):
        return self._call('tokens_of', instance_uuid)


class Source(fixtures.Fixture):
    """A source as the manager builds it (``source``), and the ``outcomes`` that it has reported.

    :param patient: wait for a server for much longer than the manager does, so that a pause of the machine
        is not taken for a server that is down; one that refuses connections still costs no time
    :param options: of [cache]
    """

    def __init__(self, servers, backend, patient=True, **options):
        super().__init__()
        self._patient = patient
        if patient:
            options = {'socket_timeout': PATIENCE, **options}
        self._options = {'enabled': True, 'backend': backend, 'memcache_servers': servers, **options}
        self.outcomes = []

    def _setUp(self):  # noqa: N802 - named by the fixtures library
        if self._patient:
            for name in ('LOOKUP_TIMEOUT', 'CHANGE_TIMEOUT'):
                self.useFixture(fixtures.MockPatchObject(memcached, name, PATIENCE))
        conf = self.useFixture(consoled_fixtures.Conf(consoleauth__token_ttl=TTL)).conf
        oslo_cache.configure(conf)
        for name, value in self._options.items():
            conf.set_override(name, value, group='cache')
        self.source = memcached.from_conf(conf, self.outcomes.append)


def key_of(text):
    return hashlib.sha1(text.encode()).hexdigest()


def talk(server, request, end):
    host, port = server.split(':')
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        answer = b''
        while not answer.endswith(end):
            received = connection.recv(65536)
            if not received:
                break
            answer += received
    return answer


def raw_get(server, key):
    """Return (flags, bytes) of a key in memcached, or None."""
    answer = talk(server, f'get {key}\r\n'.encode(), b'END\r\n')
    found = re.match(rb'VALUE \S+ (\d+) (\d+)\r\n', answer)
    if not found:
        return None
    return int(found[1]), answer[found.end() : found.end() + int(found[2])]


def raw_set(server, key, data, flags=1):
    answer = talk(server, b'set %s %d 0 %d\r\n%s\r\n' % (key.encode(), flags, len(data), data), b'\r\n')
    if answer != b'STORED\r\n':
        raise AssertionError(answer)


def flush(server):
    talk(server, b'flush_all\r\n', b'\r\n')


@contextlib.contextmanager
def stopped(service):
    """Stop a memcached: it accepts connections and answers nobody."""
    os.kill(service.pid, signal.SIGSTOP)
    try:
        tasks = list(pathlib.Path(f'/proc/{service.pid}/task').iterdir())
        consoled_fixtures.wait_until(
            lambda: all(
                task.joinpath('stat').read_text().rpartition(')')[2].split()[0] == 'T' for task in tasks
            ),
            what='stopped threads',
        )
        yield
    finally:
        os.kill(service.pid, signal.SIGCONT)


def a_token():
    return str(uuid.uuid4())  # as the old callers made them


def a_grant(token, instance, port=5900, access_url=None, issued_at=None, **options):
    """Return a grant as the manager stores it, issued at a moment (default: now)."""
    issued_at = time.time() if issued_at is None else issued_at
    return objects.ConsoleAuthToken(
        instance_uuid=instance,
        console_type='novnc',
        host='192.0.2.10',
        port=port,
        compute_host='node-1',
        token=token,
        access_url=access_url or PATH + token,
        expires=datetime.datetime.fromtimestamp(issued_at + TTL, datetime.UTC),
        options=options,
    )


class LegacyCase(testtools.TestCase):
    """Empty memcached servers of the class's own, and the old service beside them.

    ``number`` is that of the servers. ``patient`` is for tests of what is stored and found; those of time
    limits are not patient.
    """

    number = 1
    patient = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.memcached = [services.Memcached() for _ in range(cls.number)]
        for service in cls.memcached:
            service.setUp()
            cls.addClassCleanup(service.cleanUp)
        cls.servers = [service.url for service in cls.memcached]

    def setUp(self):
        super().setUp()
        for service in self.memcached:
            service.start()
            flush(service.url)
        self.instance = str(uuid.uuid4())
        self.logged = self.useFixture(_Logged())

    def old(self, **arguments):
        return self.useFixture(OldConsoleAuth(self.servers, **arguments))

    def made(self, backend, servers=None, **options):
        return self.useFixture(Source(servers or self.servers, backend, self.patient, **options))

    def each(self, **options):
        """Yield a source for each backend."""
        for backend in BACKENDS:
            yield self.made(backend, **options)


class _Logged(fixtures.Fixture):
    """Everything that is logged at any level, formatted, in ``text``."""

    def _setUp(self):  # noqa: N802 - named by the fixtures library
        self._lines = []
        handler = logging.Handler(logging.DEBUG)
        handler.emit = lambda record: self._lines.append(f'{record.levelname} {record.getMessage()}')
        root = logging.getLogger()
        self.addCleanup(root.setLevel, root.level)
        self.addCleanup(root.removeHandler, handler)
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)

    @property
    def text(self):
        return '\n'.join(self._lines)

    def warnings(self):
        return [line for line in self._lines if line.startswith('WARNING')]
