# SPDX-License-Identifier: Apache-2.0
"""``[workarounds] enable_consoleauth`` is followed when it changes."""

import threading

import fixtures as fixtures_library
import testtools

from consoled.legacy import setup
from consoled.manager import legacy_bridge
from consoled.rpc import starting
from consoled.testing import fixtures
from consoled.testing.sources import MemoryTokenSource


class Endpoint:
    def observe_lookup(self, source, outcome):
        pass


class LegacyBridgeTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.config = self.useFixture(fixtures.Conf())
        self.sources, self.serving = [], []
        self.bus_is_down = False
        self.bus_refuses = None
        for name, function in (('source_from_conf', self._source), ('start_server', self._serve)):
            self.useFixture(fixtures_library.MonkeyPatch(f'{setup.__name__}.{name}', function))
        self.logged = self.useFixture(fixtures_library.FakeLogger())
        self.bridge = legacy_bridge.LegacyBridge(self.config.conf, None, Endpoint(), self.sources)

    def _source(self, conf, observe=None):
        return MemoryTokenSource()

    def _serve(self, conf, transport, endpoint, resources, abandoned):
        self.serving.append(endpoint)
        resources.callback(self.serving.remove, endpoint)
        if self.bus_is_down:
            raise ConnectionError('no route')
        if self.bus_refuses is not None:
            self.bus_refuses.set()
            abandoned.wait()
            raise starting.Abandoned

    def follow(self, enabled):
        self.config.set(workarounds__enable_consoleauth=enabled)
        self.bridge.follow().join(30)
        return len(self.sources), len(self.serving)

    def test_it_is_switched_on_and_off_and_on(self):
        for enabled in (False, True, True, False, False, True):
            expected = (1, 1) if enabled else (0, 0)
            self.assertEqual(expected, self.follow(enabled))

    def test_a_bus_that_is_down_leaves_it_off_until_the_next_reload(self):
        self.bus_is_down = True
        self.assertEqual((0, 0), self.follow(True))
        self.assertIn('Could not apply [workarounds] enable_consoleauth', self.logged.output)
        self.bus_is_down = False
        self.assertEqual((1, 1), self.follow(True))

    def test_a_bus_that_refuses_the_bridge_does_not_keep_it_from_being_ended(self):
        for end in (lambda: self.follow(False), self.bridge.end):
            self.bus_refuses = threading.Event()
            self.config.set(workarounds__enable_consoleauth=True)
            waiting = self.bridge.follow()
            self.assertTrue(self.bus_refuses.wait(30))
            end()
            waiting.join(30)
            self.assertFalse(waiting.is_alive())
            self.assertEqual(([], []), (self.sources, self.serving))

    def test_after_its_end_calls_in_flight_still_find_the_tokens(self):
        self.follow(True)
        self.bridge.end()
        self.assertEqual((1, 0), (len(self.sources), len(self.serving)))

    def test_after_its_end_it_is_not_switched_on_again(self):
        self.bridge.end()
        self.assertEqual((0, 0), self.follow(True))


class CheckConfTest(testtools.TestCase):
    def test_the_legacy_package_is_needed_only_if_the_option_is_on(self):
        config = self.useFixture(fixtures.Conf())

        def wrong(conf):
            raise ValueError('[cache] backend')

        self.useFixture(fixtures_library.MonkeyPatch(f'{setup.__name__}.source_from_conf', wrong))
        legacy_bridge.check_conf(config.conf)
        config.set(workarounds__enable_consoleauth=True)
        self.assertRaises(ValueError, legacy_bridge.check_conf, config.conf)
