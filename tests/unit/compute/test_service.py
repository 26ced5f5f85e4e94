# SPDX-License-Identifier: Apache-2.0
"""The composition of an agent, and the life of its process; without a bus."""

import os
import threading
from unittest import mock

import fixtures as fixtures_library
import testtools

from consoled import exception
from consoled.compute import service
from consoled.compute.drivers import demo
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures
from tests.unit.compute.reconciler_base import FaultyDriver


class PrepareTest(testtools.TestCase):
    def prepare(self, options):
        options = {'compute__driver': 'demo', 'transport_url': 'fake:/', **options}
        service.prepare(self.useFixture(fixtures.Conf(**options)).conf)

    def test_good_options(self):
        self.prepare({'upgrade_levels__consoled': '1.0'})

    def test_wrong_options(self):
        for options, message in (
            ({'compute__driver': 'nosuch'}, "'nosuch' is not installed"),
            ({'upgrade_levels__consoled': '7.7'}, '7.7'),
            ({'upgrade_levels__compute': '7.8'}, '7.8'),
        ):
            error = self.assertRaises(ValueError, self.prepare, options)
            self.assertIn(message, str(error))


class AgentTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        conf = self.useFixture(fixtures.Conf(host='node-1', transport_url='kombu+memory://')).conf
        self.driver = FaultyDriver()
        self.agent = service.Agent(conf, get_transport(conf), self.driver)

    def test_the_hypervisor_is_checked(self):
        checks = self.agent.checks()
        self.assertEqual({'bus', 'hypervisor'}, set(checks))
        checks['hypervisor']()
        self.driver.faults[None] = exception.HypervisorUnreachable()
        self.assertRaises(exception.HypervisorUnreachable, checks['hypervisor'])

    def test_reload_compares_all_instances(self):
        self.agent.reload()
        self.assertEqual({None: False}, self.agent._reconciler._queue.get_all())

    def test_endpoint_and_reconciler_know_the_same_conflicts(self):
        (endpoint,) = self.agent._build_server().dispatcher.endpoints
        self.assertIs(self.agent._reconciler._port_conflicts, endpoint._port_conflicts)
        self.assertIs(self.agent._reconciler, endpoint._reconciler)

    def test_an_agent_that_was_not_started(self):
        self.assertFalse(self.agent.alive)
        self.assertFalse(self.agent.wait_attempted(0))


class Exited(BaseException):
    """Stands for the end of the process."""


class AgentProcessTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(fixtures_library.FakeLogger())
        self.useFixture(fixtures_library.MonkeyPatch('setproctitle.setproctitle', lambda title: None))
        self.useFixture(fixtures_library.MonkeyPatch('threading.Timer', mock.Mock()))
        self.exit = mock.Mock(side_effect=Exited)
        self.useFixture(fixtures_library.MonkeyPatch('os._exit', self.exit))
        self.conf = self.useFixture(fixtures.Conf()).conf
        self.notifier = mock.Mock(interval=None)
        self.process = service.AgentProcess(0, self.conf, self.notifier)

    def test_a_process_without_an_agent_ends_at_once(self):
        self.assertRaises(Exited, self.process.terminate)
        self.exit.assert_called_once_with(0)
        threading.Timer.assert_called_once_with(self.conf.graceful_shutdown_timeout, os._exit, (1,))

    def test_the_agent_is_stopped_first(self):
        self.process._agent = agent = mock.Mock()
        self.assertRaises(Exited, self.process.terminate)
        agent.stop.assert_called_once()

    def test_reload(self):
        self.process.reload()  # before the agent is started
        self.process._agent = agent = mock.Mock()
        self.process.reload()
        agent.reload.assert_called_once_with()

    def test_options_that_cannot_be_read_change_nothing(self):
        self.process._agent = agent = mock.Mock()
        error = FileNotFoundError(2, 'no such file', 'x.conf')
        with mock.patch.object(self.conf, 'mutate_config_files', side_effect=error):
            self.process.reload()
        agent.reload.assert_not_called()
        self.assertIn('no such file', self.logged.output)

    def test_run_is_ready_after_the_first_attempt(self):
        order = mock.Mock()
        order.attach_mock(self.notifier.ready, 'ready')
        self.useFixture(fixtures_library.MonkeyPatch('consoled.compute.service.Agent', order.agent))
        self.useFixture(fixtures_library.MonkeyPatch('consoled.rpc.transport.get_transport', mock.Mock()))
        self.conf.set_override('driver', 'demo', group='compute')
        self.conf.set_override('port', 0, group='monitoring')
        self.process.run()
        calls = [name for name, _, _ in order.mock_calls]
        self.assertEqual(['agent', 'agent().start', 'agent().wait_attempted', 'ready'], calls)
        (_, (_, _, driver), _) = order.mock_calls[0]
        self.assertIsInstance(driver, demo.DemoDriver)
