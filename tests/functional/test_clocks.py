# SPDX-License-Identifier: Apache-2.0
"""Invariant 2: managers whose clocks are ten minutes apart agree on when tokens and leases expire."""

import datetime
import re

import testtools

from consoled import exception
from consoled.context import RequestContext
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from consoled.testing import daemons, fixtures
from consoled.testing.fixtures import wait_until
from tests.functional import base


class OneManagerAPI(ConsoleAuthAPI):
    """A client of one of several managers."""

    def __init__(self, transport, server):
        super().__init__(transport)
        self._client = self._client.prepare(server=server)


class ClocksTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        bus, database = base.transport_url(self), base.database_url(self, 'mariadb')
        transport = get_transport(self.useFixture(fixtures.Conf(transport_url=bus)).conf)
        self.addCleanup(transport.cleanup)
        self.context = RequestContext(user_id='u', project_id='p')
        self.managers = {}
        for offset in ('-5m', '+5m'):
            process = daemons.ManagerProcess(
                bus,
                database,
                {'manager': {'workers': 1, 'lease': 600, 'sweep_interval': 1}},
                env={'CLOCK_OFF_BY': str(60 * int(offset.rstrip('m')))},
                module='tests.functional._skewed',
            )
            self.managers[offset] = OneManagerAPI(transport, self.useFixture(process).host)
            self.assert_clock_is_off(process, offset)
        self.transport = transport

    def assert_clock_is_off(self, process, offset):
        """Check that the clock of the process is wrong, by the timestamps of its log."""
        stamp = r'(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d'
        logged = wait_until(lambda: re.search(stamp, process.log()), what='a line of the log')
        at = datetime.datetime.fromisoformat(logged.group())
        off = (at - datetime.datetime.now()).total_seconds()
        self.assertTrue(240 < abs(off) < 360, f'{offset}: {off} s')

    def valid(self, offset, token):
        try:
            self.managers[offset].validate(self.context, token)
        except exception.InvalidToken:
            return False
        return True

    def test_invariant_2_tokens(self):
        for offset in self.managers:
            granted = self.managers[offset].authorize(self.context, base.a_grant(base.new_uuid(), 1), 4)
            left = (granted.expires - datetime.datetime.now(datetime.UTC)).total_seconds()
            self.assertTrue(-60 < left <= 4, left)
            for reader in self.managers:
                self.assertTrue(self.valid(reader, granted.token))
            wait_until(lambda granted=granted: not self.valid('-5m', granted.token), what='expiry')
            self.assertFalse(self.valid('+5m', granted.token))

    def test_invariant_2_leases_and_sweeps(self):
        early, late = self.managers['-5m'], self.managers['+5m']
        proxy = self.useFixture(fixtures.FakeProxy(self.transport, early, receive_cuts=False))
        granted = early.authorize(self.context, base.a_grant(base.new_uuid(), 1), 60)
        session = proxy.open(granted.token)
        self.assertEqual([session.id], [each.id for each in late.list_sessions(self.context).objects])
        for api in (late, early):
            renewed = api.renew_lease(self.context, proxy.id, [], [session.id], proxy.registered.now)
            self.assertEqual({}, renewed.cut)
        other = fixtures.FakeProxy(self.transport, late, receive_cuts=False)
        self.useFixture(other)
        self.assertRaises(exception.ConsoleInUse, other.open, granted.token)
        # both managers sweep every second, and neither deletes anything that is alive
        self.assertTrue(self.valid('+5m', granted.token))
        self.assertEqual(1, len(early.list_sessions(self.context).objects))
