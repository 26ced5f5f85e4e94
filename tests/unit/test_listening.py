# SPDX-License-Identifier: Apache-2.0
"""Addresses to listen on: bound, or refused with the option."""

import itertools
import socket
from unittest import mock

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import listening


class BindTest(testtools.TestCase):
    def bind(self, host, port=0, **how):
        sock = listening.bind('monitoring', host, port, **how)
        self.addCleanup(sock.close)
        return sock

    def test_any_free_port(self):
        self.assertEqual('127.0.0.1', self.bind('127.0.0.1').getsockname()[0])
        self.assertEqual(socket.AF_INET6, self.bind('::1').family)

    def test_a_link_local_address_has_its_zone(self):
        with mock.patch('socket.create_server') as create_server:
            listening.bind('proxy', *listening.parse_address('[fe80::1%lo]:6083'))
        (host, port, _, zone), *_ = create_server.call_args.args
        self.assertEqual((6083, socket.if_nametoindex('lo')), (port, zone))

    def test_a_port_in_use(self):
        host, port = self.bind('127.0.0.1').getsockname()
        error = self.assertRaises(OSError, self.bind, host, port)
        self.assertEqual(f'[monitoring] port: {host}:{port} is in use already', error.strerror)

    def test_a_port_in_use_of_ipv6(self):
        port = self.bind('::1').getsockname()[1]
        error = self.assertRaises(OSError, self.bind, '::1', port)
        self.assertEqual(f'[monitoring] port: [::1]:{port} is in use already', error.strerror)

    def test_any_spelling_of_the_address_for_both_families(self):
        for host in ('::', '::0', '0:0:0:0:0:0:0:0'):
            port = self.bind(host).getsockname()[1]
            socket.create_connection(('127.0.0.1', port)).close()

    def test_an_address_of_another_machine(self):
        error = self.assertRaises(OSError, self.bind, '192.0.2.1')
        self.assertTrue(error.strerror.startswith('[monitoring] host: 192.0.2.1 '), error.strerror)

    def test_a_port_that_may_not_be_bound(self):
        with mock.patch('socket.create_server', side_effect=PermissionError(13, 'Permission denied')):
            error = self.assertRaises(ValueError, self.bind, '127.0.0.1', 443)
        self.assertEqual('[monitoring] port: 127.0.0.1:443 may not be bound: Permission denied', str(error))

    def test_an_address_of_another_option(self):
        host, port = self.bind('127.0.0.1').getsockname()
        error = self.assertRaises(OSError, self.bind, host, port, option='others')
        self.assertEqual(f'[monitoring] others: {host}:{port} is in use already', error.strerror)
        error = self.assertRaises(OSError, self.bind, '192.0.2.1', option='others')
        self.assertTrue(error.strerror.startswith('[monitoring] others: 192.0.2.1 '), error.strerror)
        with mock.patch('socket.create_server', side_effect=PermissionError(13, 'Permission denied')):
            error = self.assertRaises(ValueError, self.bind, '127.0.0.1', 443, option='others')
        self.assertEqual('[monitoring] others: 127.0.0.1:443 may not be bound: Permission denied', str(error))

    def test_loopback(self):
        for host in ('127.0.0.1', '127.9.9.9', '::1', 'localhost'):
            self.assertTrue(listening.is_loopback(host), host)
        for host in ('0.0.0.0', '::', '192.0.2.1', 'proxy.example.org'):
            self.assertFalse(listening.is_loopback(host), host)


class AddressTest(testtools.TestCase):
    def test_host_and_port(self):
        for text, address in (
            ('192.0.2.1:6080', ('192.0.2.1', 6080)),
            (' proxy.example.org:0 ', ('proxy.example.org', 0)),
            ('[::]:65535', ('::', 65535)),
            ('[2001:DB8:0::1]:6083', ('2001:db8::1', 6083)),
        ):
            self.assertEqual(address, listening.parse_address(text))

    def test_malformed(self):
        for text in (
            '',
            '6080',
            ':6080',
            '192.0.2.1',
            '192.0.2.1:',
            '192.0.2.1:http',
            '192.0.2.1:65536',
            '192.0.2.1:-1',
            '192.0.2.1:٣',
            '::1:6080',
            '[::1]',
            '[::g]:6080',
            '[192.0.2.1]:6080',
            'http://192.0.2.1:6080',
            'a b:6080',
            '*:6080',
        ):
            error = self.assertRaises(ValueError, listening.parse_address, text)
            self.assertIn('is not an address such as', str(error))

    @given(st.text())
    def test_any_text_is_an_address_or_an_error(self, text):
        try:
            address = listening.parse_address(text)
        except ValueError:
            return
        self.assertEqual(address, listening.parse_address(listening.show_address(address)))

    def test_addresses_that_exclude_each_other(self):
        for one, other, expected in (
            ('127.0.0.1:1', '127.0.0.1:1', True),
            ('127.0.0.1:1', '127.0.0.1:2', False),
            ('127.0.0.1:1', '127.0.0.2:1', False),
            ('127.0.0.1:0', '127.0.0.1:0', False),
            ('Proxy.example:1', 'proxy.example:1', True),
            ('0.0.0.0:1', '127.0.0.1:1', True),
            ('0.0.0.0:1', '[::1]:1', False),
            ('[::]:1', '[::1]:1', True),
            ('[::]:1', '127.0.0.1:1', True),
            ('[::]:1', '0.0.0.0:1', True),
        ):
            pair = listening.parse_address(one), listening.parse_address(other)
            self.assertEqual(expected, listening.overlap(*pair), pair)
            self.assertEqual(expected, listening.overlap(*reversed(pair)), pair)

    def test_the_kernel_agrees(self):
        hosts = ['127.0.0.1', '127.0.0.2', '0.0.0.0', '::', '::0', '::1']
        for one, other in itertools.permutations(hosts, 2):
            with listening.bind('proxy', one, 0) as first:
                port = first.getsockname()[1]
                try:
                    listening.bind('proxy', other, port).close()
                    refused = False
                except OSError:
                    refused = True
            self.assertEqual(refused, listening.overlap((one, port), (other, port)), (one, other))
