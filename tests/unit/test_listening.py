# SPDX-License-Identifier: Apache-2.0
"""Addresses to listen on: bound, or refused with the option."""

import socket
from unittest import mock

import testtools

from consoled import listening


class BindTest(testtools.TestCase):
    def bind(self, host, port=0):
        sock = listening.bind('monitoring', host, port)
        self.addCleanup(sock.close)
        return sock

    def test_any_free_port(self):
        self.assertEqual('127.0.0.1', self.bind('127.0.0.1').getsockname()[0])
        self.assertEqual(socket.AF_INET6, self.bind('::1').family)

    def test_a_port_in_use(self):
        host, port = self.bind('127.0.0.1').getsockname()
        error = self.assertRaises(OSError, self.bind, host, port)
        self.assertEqual(f'[monitoring] port: {host}:{port} is in use by another program', error.strerror)

    def test_an_address_of_another_machine(self):
        error = self.assertRaises(OSError, self.bind, '192.0.2.1')
        self.assertTrue(error.strerror.startswith('[monitoring] host: 192.0.2.1 '), error.strerror)

    def test_a_port_that_may_not_be_bound(self):
        with mock.patch('socket.create_server', side_effect=PermissionError(13, 'Permission denied')):
            error = self.assertRaises(ValueError, self.bind, '127.0.0.1', 443)
        self.assertEqual('[monitoring] port: 127.0.0.1:443 may not be bound: Permission denied', str(error))

    def test_loopback(self):
        for host in ('127.0.0.1', '127.9.9.9', '::1', 'localhost'):
            self.assertTrue(listening.is_loopback(host), host)
        for host in ('0.0.0.0', '::', '192.0.2.1', 'proxy.example.org'):
            self.assertFalse(listening.is_loopback(host), host)
