# SPDX-License-Identifier: Apache-2.0
"""Invariant 3: 16 processes race for one serial port, and for one single-use token."""

import collections
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import testtools

from consoled.context import RequestContext
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.replies import Closing
from consoled.rpc.transport import get_transport
from consoled.testing import daemons, fixtures
from tests.functional import base

RACERS = 16
ROUNDS = 200
HEAD_START = 0.03  # seconds until all racers have read the line


class RacesTest(testtools.TestCase):
    """Two workers of the real daemon, with RabbitMQ and MariaDB."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.bus = base.transport_url(cls)
        config = pathlib.Path(tempfile.mkdtemp(prefix='consoled-'), 'racer.conf')
        cls.addClassCleanup(shutil.rmtree, config.parent)
        config.write_text(f'[DEFAULT]\ntransport_url = {cls.bus}\n')
        cls.racers = cls.start_racers(config)

    def setUp(self):
        super().setUp()
        self.context = RequestContext(user_id='u', project_id='p')

    def start(self, **consoleauth):
        # the lease is longer than the test, because the proxy here does not renew it
        manager = {'workers': 2, 'lease': 3600, 'max_sessions_per_token': 0}
        options = {'manager': manager, 'consoleauth': consoleauth}
        self.manager = self.useFixture(
            daemons.ManagerProcess(self.bus, base.database_url(self, 'mariadb'), options)
        )
        conf = self.useFixture(fixtures.Conf(transport_url=self.bus)).conf
        transport = get_transport(conf)
        self.addCleanup(transport.cleanup)
        self.api = ConsoleAuthAPI(transport, timeout=60)
        self.proxy = self.useFixture(fixtures.FakeProxy(transport, self.api))
        for racer in self.racers:
            racer.write('\n')
            racer.flush()
            self.assertEqual('ready\n', racer.readline())

    @classmethod
    def start_racers(cls, config):
        """Start the racers, and return a file for each to talk to it."""
        pairs = [socket.socketpair() for _ in range(RACERS)]
        numbers = [theirs.fileno() for _, theirs in pairs]
        program = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-m', 'tests.functional._racer', config, *map(str, numbers)],
            pass_fds=numbers,
        )
        cls.addClassCleanup(program.wait)
        files = []
        for ours, theirs in pairs:
            theirs.close()
            with ours:
                files.append(ours.makefile('rw'))
            cls.addClassCleanup(files[-1].close)
        return files

    def race(self, token):
        """Let all racers open a session with the token at once, and return their answers."""
        at = time.time() + HEAD_START
        for racer in self.racers:
            ask = {'token': token, 'session_id': base.new_uuid(), 'proxy_id': self.proxy.id, 'at': at}
            racer.write(json.dumps(ask) + '\n')
            racer.flush()
        return [racer.readline().split() for racer in self.racers]

    def check_races(self, token_of_round, loser):
        totals = collections.Counter()
        for number in range(ROUNDS):
            answers = self.race(token_of_round())
            winners = [answer[1] for answer in answers if answer[0] == 'won']
            self.assertEqual(1, len(winners), f'round {number}: {answers}')
            live = self.api.list_sessions(self.context).objects
            self.assertEqual(winners, [session.id for session in live])
            self.api.close_session(self.context, Closing(winners[0], 'next round'))
            totals.update(answer[0] for answer in answers)
        self.assertEqual({'won': ROUNDS, loser: ROUNDS * (RACERS - 1)}, dict(totals))

    def test_invariant_3_one_of_sixteen_gets_the_serial_port(self):
        self.start()
        grant = base.a_grant(base.new_uuid(), 10000)
        self.check_races(lambda: self.api.authorize(self.context, grant).token, 'console_in_use')

    def test_invariant_3_one_of_sixteen_spends_the_token(self):
        self.start(single_use=True)
        grant = base.a_grant(base.new_uuid(), 5900, 'novnc')
        self.check_races(lambda: self.api.authorize(self.context, grant).token, 'invalid_token')
