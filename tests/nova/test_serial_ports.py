# SPDX-License-Identifier: Apache-2.0
"""Serial ports of guests of Nova: with nova-compute alone, and with an agent of consoled beside it."""

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.testing import daemons, fixtures
from tests.functional import base as functional_base
from tests.nova import base

CONTEXT = RequestContext()
LISTENS_AT = '198.51.100.7'  # not what nova.conf says, and Nova stores


class SerialPortsTest(base.NovaTestCase):
    def start(self, other_ports='offer'):
        """Start a manager with this option, and create a guest."""
        options = {
            'nova': {'connection': self.nova.reader},
            'serial_console': {'other_ports': other_ports},
        }
        database = functional_base.database_url(self, 'mariadb')
        self.useFixture(daemons.ManagerProcess(self.nova.bus, database, options))
        self.connect()
        self.guest = self.nova.add_guest()

    def authorize(self):
        return self.nova.authorize(self.guest, 'serial', 10000)

    def define(self, *ports):
        """Let an agent on the compute host define the serial ports of the guest; return the agent."""
        agent = self.useFixture(fixtures.FakeComputeAgent(self.transport, base.COMPUTE_HOST))
        consoles = [
            functional_base.a_console(
                self.guest, port, 'serial', host=LISTENS_AT, compute_host=base.COMPUTE_HOST
            )
            for port in ports
        ]
        wanted = objects.ConsoleConnectionList(objects=consoles)
        self.api.define_consoles(CONTEXT, self.guest, base.COMPUTE_HOST, wanted, wait=True)
        return agent

    def in_use(self, token, **kwargs):
        error = self.assertRaises(exception.ConsoleInUse, self.proxy.open, token, **kwargs)
        self.assertIn('in use since 20', str(error))
        return error.kwargs.get('free_ports')

    def address(self, session):
        return session.console.host, session.console.port

    def test_a_port_that_is_connected_is_refused_with_since_when(self):
        self.start()
        first = self.authorize()
        self.assertEqual((base.ADDRESS, 10000), self.address(self.proxy.open(first)))
        for token in (first, self.authorize()):
            self.assertIsNone(self.in_use(token), 'nova-compute knows the first port only')
            self.assertRaises(exception.InvalidArgument, self.proxy.open, token, serial_port=2)

    def test_with_an_agent_the_free_ports_are_offered(self):
        self.start()
        agent = self.define(10000, 10001, 10002)
        token, other = self.authorize(), self.authorize()
        self.assertEqual((LISTENS_AT, 10000), self.address(self.proxy.open(token)))
        self.assertEqual([2, 3], self.in_use(other))
        session = self.proxy.open(other, serial_port=3)
        self.assertEqual((LISTENS_AT, 10002), self.address(session))
        self.assertEqual('project', session.project_id)
        self.assertEqual(10002, agent.asked[-1]['port'])
        self.assertEqual([2], self.in_use(other))
        self.nova.call('clean', self.guest)
        self.assertRaises(exception.InvalidToken, self.proxy.open, other, serial_port=2)

    def test_a_token_that_nova_would_refuse_opens_no_other_port(self):
        self.start()
        self.define(10000, 10001)
        token = self.authorize()
        self.nova.call('update_instance', self.guest, launched_in=2)
        self.assertRaises(exception.InvalidToken, self.proxy.open, token, serial_port=2)

    def test_revoking_cuts_the_session_of_the_other_port(self):
        self.start()
        self.define(10000, 10001)
        token = self.authorize()
        session = self.proxy.open(token, serial_port=2)
        self.api.revoke(CONTEXT, 'tenant_gone', project_id='project')
        self.assertEqual((session.id, 'tenant_gone'), self.proxy.cuts.get(timeout=60))
        self.assertRaises(exception.InvalidToken, self.proxy.open, token, serial_port=2)

    def test_the_next_free_port_is_opened_if_the_operator_wants_it(self):
        """Bug 1425640 of Nova."""
        self.start('next')
        self.define(10000, 10001, 10002)
        tokens = [self.authorize() for _ in range(3)]
        opened = [self.address(self.proxy.open(token)) for token in tokens]
        self.assertEqual([(LISTENS_AT, port) for port in (10000, 10001, 10002)], opened)
        self.assertIsNone(self.in_use(self.authorize()))
