# SPDX-License-Identifier: Apache-2.0
"""The bus of ``consolectl``: connected on first use, closed or abandoned afterwards."""

import io

import fixtures
import testtools
from oslo_config import cfg

from consoled import exception
from consoled.cli import errors
from consoled.conf import files
from consoled.consolectl import bus as consolectl_bus
from consoled.consolectl.bus import Bus
from consoled.consolectl.main import Consolectl
from tests.unit.cli.base import StubAPI


class BusTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.conf = cfg.ConfigOpts()
        files.load(self.conf, ['--config-file', '/dev/null'], prog='consolectl')
        self.conf.set_override('transport_url', 'fake:')
        self.asked = []
        self.bus = Bus(self.options, timeout=1)

    def options(self):
        self.asked.append(1)
        return self.conf

    def test_nothing_is_read_or_connected_before_it_is_used(self):
        self.bus.release()
        self.bus.abandon()
        self.assertEqual([], self.asked)

    def test_clients_share_a_transport_until_it_is_released(self):
        managers, transport = self.bus.managers, self.bus._transport
        self.assertIs(managers, self.bus.managers)
        self.bus.agents  # noqa: B018 - creates it
        self.assertIs(transport, self.bus._transport)
        cleanup = self.useFixture(fixtures.MockPatchObject(transport, 'cleanup')).mock
        self.bus.release()
        cleanup.assert_called_once_with()
        self.assertIsNot(transport, self.bus._transport)
        self.assertIsNot(managers, self.bus.managers)

    def test_an_abandoned_transport_is_not_closed(self):
        self.bus.managers  # noqa: B018 - creates it
        cleanup = self.useFixture(fixtures.MockPatchObject(self.bus._transport, 'cleanup')).mock
        self.bus.abandon()
        self.bus.release()
        cleanup.assert_not_called()

    def test_wrong_options_are_named(self):
        self.conf.set_override('consoled', '9.9', group='upgrade_levels')
        error = self.assertRaises(errors.Failed, getattr, self.bus, 'managers')
        self.assertEqual((errors.USAGE, 'configuration_error'), (error.exit_code, error.code))
        self.assertIn('[upgrade_levels] consoled', str(error))
        self.conf.set_override('transport_url', 'bogus://h/')
        error = self.assertRaises(errors.Failed, getattr, Bus(self.options, 1), 'agents')
        self.assertIn('[DEFAULT] transport_url', str(error))


class UnreachableTest(testtools.TestCase):
    def test_the_bus_is_abandoned_when_a_peer_cannot_be_reached(self):
        abandon = self.useFixture(fixtures.MockPatchObject(consolectl_bus.Bus, 'abandon')).mock
        for error, times in ((exception.ManagerUnreachable(reason='x'), 1), (exception.ManagerBusy(), 0)):
            abandon.reset_mock()
            app = Consolectl(StubAPI(error=error), io.StringIO(), io.StringIO(), io.StringIO())
            app.options = app.parser.parse_args([])
            self.assertRaises(type(error), app.call, 'validate', 'token')
            self.assertEqual(times, abandon.call_count)
