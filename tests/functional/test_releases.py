# SPDX-License-Identifier: Apache-2.0
"""Peers of two releases on one bus (invariant 10)."""

import testtools

from consoled import exception
from consoled.context import RequestContext
from consoled.rpc import arguments as arg
from consoled.rpc import server, versions
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures
from tests.functional import base
from tests.unit.proxy import session_base


class _ManagerOf10(server.Endpoint):
    """What a manager of the first release serves."""

    target = server.oslo_messaging.Target(version='1.0')

    @server.exposed(
        token=arg.token(), session_id=arg.uuid(), proxy_id=arg.uuid(), client_address=arg.text().or_none()
    )
    def open_session(self, context, token, session_id, proxy_id, client_address):
        return session_base.granted('serial')


class OldManagerTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        conf = self.useFixture(fixtures.Conf(transport_url=base.transport_url(type(self)))).conf
        transport = get_transport(conf)
        self.addCleanup(transport.cleanup)
        managers = server.get_server(transport, versions.TOPIC, 'old', [_ManagerOf10()])
        managers.start()
        self.addCleanup(server.drain, managers)
        self.api = ConsoleAuthAPI(transport)

    def open(self, *arguments):
        return self.api.open_session(
            RequestContext(), 'x' * 43, base.new_uuid(), base.new_uuid(), '192.0.2.1', *arguments
        )

    def test_invariant_10_a_new_proxy_opens_sessions_without_a_pin(self):
        self.assertEqual('serial', self.open().console.console_type)

    def test_what_the_manager_does_not_know_is_an_error(self):
        self.assertRaises(exception.InternalError, self.open, 2)


class OldProxyTest(base.CellTestCase):
    """A proxy of the first release: it sends 1.0 and knows nothing of other ports."""

    engine = 'sqlite'

    def setUp(self):
        super().setUp()
        self.new = self.proxy()
        self.old = ConsoleAuthAPI(self.cell.transport, level='1.0')
        self.define(10000, 10001)
        self.token = self.authorize(10000).token
        self.agent()

    def open(self, session_id=None, **choice):
        return self.old.open_session(
            self.context, self.token, session_id or base.new_uuid(), self.new.id, '192.0.2.1', **choice
        )

    def test_invariant_10_it_opens_sessions_and_is_refused(self):
        self.assertEqual(10000, self.open().console.port)
        error = self.assertRaises(exception.ConsoleInUse, self.open)
        self.assertIn('in use since', str(error))
        error = self.assertRaises(exception.InvalidArgument, self.open, serial_port=2)
        self.assertEqual('serial_port', error.kwargs['argument'])

    def test_invariant_10_it_gets_the_next_free_port_and_keeps_it_when_it_asks_again(self):
        self.set(serial_console__other_ports='next')
        self.open()
        session = self.open()
        self.assertEqual(10001, session.console.port)
        self.assertEqual(10001, self.open(session.id).console.port)
