# SPDX-License-Identifier: Apache-2.0
"""Consoles built from where a hypervisor listens."""

import testtools

from consoled.compute.drivers.console_builder import ConsoleBuilder, proxy_address
from consoled.testing import fixtures

OWN = '10.0.0.5'
UUID = '5ca1ab1e-0000-4000-8000-000000000001'


class ProxyAddressTest(testtools.TestCase):
    def test_wildcard_and_loopback_addresses_are_replaced(self):
        for listen in (
            None,
            '',
            '*',
            '0.0.0.0',
            '::',
            '0:0:0:0:0:0:0:0',
            '127.0.0.1',
            '127.1.2.3',
            '::1',
            '::ffff:127.0.0.1',
            '::ffff:0.0.0.0',
            'localhost',
            'localhost.localdomain',
        ):
            self.assertEqual(OWN, proxy_address(listen, OWN), listen)

    def test_any_other_address_is_used_as_it_is(self):
        for listen in (
            '192.0.2.7',
            '2001:db8::7',
            'fe80::1',
            'node-1.example',
            'localhosts',
            '::ffff:192.0.2.7',
        ):
            self.assertEqual(listen, proxy_address(listen, OWN))


class ConsoleBuilderTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.config = self.useFixture(
            fixtures.Conf(
                host='node-1',
                vnc__server_proxyclient_address=OWN,
                serial_console__server_proxyclient_address='fd00::5',
                serial_console__base_url='wss://consoles.example/serial.html?x=1',
            )
        )
        self.builder = ConsoleBuilder(self.config.conf)

    def build(self, console_type, listen='0.0.0.0', port=5900, **options):
        return self.builder.build(UUID, console_type, listen, port, options)

    def test_each_type_has_its_own_group_of_options(self):
        screen, serial = self.build('novnc'), self.build('serial', '::1', 10000)
        self.assertEqual((OWN, 5900), (screen.host, screen.port))
        self.assertEqual('http://127.0.0.1:6080/novnc.html', screen.access_url_base)
        self.assertEqual(('fd00::5', 10000), (serial.host, serial.port))
        self.assertEqual('wss://consoles.example/serial.html?x=1', serial.access_url_base)
        self.assertEqual({'node-1'}, {screen.compute_host, serial.compute_host})

    def test_options_are_kept(self):
        console = self.build('spice-html5', tls_port='5901')
        self.assertEqual({'tls_port': '5901'}, console.options)

    def test_a_type_that_is_not_offered(self):
        self.assertIsNone(self.build('rdp-html5'))
        self.config.set(vnc__enabled=False)
        self.assertIsNone(self.build('novnc'))
        self.assertIsNotNone(self.build('serial'))

    def test_a_malformed_host_or_port(self):
        for listen, port in (('a b', 5900), ('192.0.2.7', 0), ('192.0.2.7', 65536)):
            self.assertRaises(ValueError, self.build, 'novnc', listen, port)
