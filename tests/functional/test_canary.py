# SPDX-License-Identifier: Apache-2.0
"""Invariant 1: after a run at DEBUG and TRACE, no clear token is found where it does not belong."""

import contextlib
import hashlib
import pathlib
import re
import urllib.request

import fixtures as testfixtures
import sqlalchemy as sa
import testtools
from oslo_messaging import exceptions as messaging_exc

from consoled import exception
from consoled.context import RequestContext
from consoled.db import models
from consoled.db.engine import Database
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from consoled.testing import daemons, fixtures, services
from tests.functional import base

TRACE = 5  # a level of oslo.log, below DEBUG
TOKEN_LIKE = re.compile(r'(?=([A-Za-z0-9_-]{43}))')  # at every position, overlapping
CANARY = 'canary-CANARY-canary-CANARY-canary-CANARY-0'


class CanaryTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(
            testfixtures.FakeLogger(level=TRACE, format='%(name)s %(message)s', nuke_handlers=True)
        )
        self.monitoring = services.free_port()
        self.database = self.useFixture(services.MariaDB())  # not shared, because the test kills it
        everything = 'amqp=DEBUG,sqlalchemy=DEBUG,oslo.messaging=TRACE,oslo_messaging=TRACE,consoled=TRACE'
        self.manager = self.useFixture(
            daemons.ManagerProcess(
                base.transport_url(self),
                self.database.new_database(),
                {
                    'DEFAULT': {'debug': True, 'default_log_levels': everything},
                    'database': {'retry_time': 1},
                    'monitoring': {'port': self.monitoring},
                    'serial_console': {'takeover': 'steal'},
                    'manager': {'takeover_timeout': 1},
                },
            )
        )
        conf = self.useFixture(
            fixtures.Conf(transport_url=self.manager.options['DEFAULT']['transport_url'])
        ).conf
        self.transport = get_transport(conf)
        self.addCleanup(self.transport.cleanup)
        self.api = ConsoleAuthAPI(self.transport)
        self.context = RequestContext(user_id='u', project_id='p')
        self.tokens = [CANARY]
        self.errors = []

    def attempt(self, method, **values):
        """Make a call; record the error if it is refused."""
        try:
            return self.api._call(self.context, method, **values)
        except exception.ConsoledException as exc:
            self.errors.append(f'{exc!r} {exc} {exc.kwargs} {exc.__cause__}')
            return None

    def authorize(self, **values):
        granted = self.attempt('authorize', **values)
        if granted is not None:
            self.tokens.append(granted.token)
            self.errors.append(f'{granted!r} {granted}')
        return granted

    def walk(self):
        """Make every call of the contract that takes or returns a token, with valid and invalid arguments."""
        instance = base.new_uuid()
        proxy = self.useFixture(fixtures.FakeProxy(self.transport, self.api))
        granted = self.authorize(console_auth_token=base.a_grant(instance, 10000), ttl=600)
        self.authorize(console_auth_token=base.a_grant(instance, None))
        self.authorize(console_auth_token=base.a_grant(instance, 1, token=CANARY))
        self.authorize(console_auth_token=CANARY)
        self.authorize(console_auth_token=base.a_grant(instance, 1), ttl=CANARY)
        for token in (granted.token, CANARY, {'token': CANARY}, [CANARY], CANARY * 100):
            self.attempt('validate', token=token)
            for _ in range(2):
                where = {'session_id': base.new_uuid(), 'proxy_id': proxy.id, 'client_address': '192.0.2.1'}
                self.attempt('open_session', token=token, **where)
        self.attempt('validate', **{CANARY: CANARY})
        self.attempt('validate', token=granted.token, extra=CANARY)
        self.attempt('open_session', token=granted.token, session_id=CANARY, proxy_id=CANARY)
        self.too_late(instance)
        self.stored = self.hashes()
        self.assertGreater(len(self.stored), 4)
        self.attempt('revoke', instance_uuid=instance, reason='test')
        self.attempt('object_backport_versions', primitive={'x': CANARY}, object_versions=CANARY)
        return granted

    def too_late(self, instance):
        """Cause replies that come too late, which the library logs."""
        impatient = self.api._client.prepare(timeout=0.001)
        grant = base.a_grant(instance, 10000)

        def seen():
            with contextlib.suppress(messaging_exc.MessagingTimeout):
                impatient.call(self.context, 'authorize', console_auth_token=grant)
            return self.logged.output.count('No calling threads') >= 3

        fixtures.wait_until(seen, what='late replies')

    def hashes(self):
        with Database(self.manager.options['database']['connection']).transactional_engine.connect() as conn:
            return set(conn.execute(sa.select(models.console_auth_token.c.token_hash)).scalars())

    def check_clean(self, where, text):
        self.assertNotEqual('', text, where)
        for candidate in set(TOKEN_LIKE.findall(text)):
            hashed = hashlib.sha256(candidate.encode()).hexdigest()
            self.assertNotIn(hashed, self.stored, f'a clear token in {where}')
        for token in self.tokens:
            found = text.find(token)
            self.assertEqual(
                -1, found, f'a clear token in {where}: …{text[max(0, found - 300) : found + 60]}'
            )

    def test_invariant_1_no_clear_token_anywhere(self):
        granted = self.walk()
        titles = [self.manager.process_title(pid) for pid in [self.manager.pid, *self.manager.child_pids()]]
        with urllib.request.urlopen(f'http://127.0.0.1:{self.monitoring}/metrics') as answer:
            metrics = answer.read().decode()
        self.database.kill()  # then tracebacks of an unreachable database
        self.attempt('validate', token=granted.token)
        self.attempt(
            'open_session', token=granted.token, session_id=base.new_uuid(), proxy_id=base.new_uuid()
        )
        self.authorize(console_auth_token=base.a_grant(base.new_uuid(), 10000))
        self.manager.stop()

        self.assertGreater(len(self.tokens), 1)
        for level in ('DEBUG', 'TRACE'):
            self.assertIn(f' {level} oslo.messaging', self.manager.log())
        self.assertIn('content not logged', self.manager.log())
        self.assertIn('content not logged', self.logged.output)
        self.check_clean('the log of the manager', self.manager.log())
        self.check_clean('the log of the caller', self.logged.output)
        self.check_clean('an error or repr', '\n'.join(self.errors))
        self.check_clean('the metrics', metrics)
        self.check_clean('a process title', ' '.join(titles))
        files = self.database_files()
        for token in self.tokens:
            self.assertNotIn(token, files, 'a clear token in the files of the database')

    def database_files(self):
        content = []
        for path in pathlib.Path(self.database.directory).rglob('*'):
            with contextlib.suppress(OSError):
                if path.is_file() and path.stat().st_size < 256 * 2**20:
                    content.append(path.read_bytes().decode('latin-1'))
        return ''.join(content)
