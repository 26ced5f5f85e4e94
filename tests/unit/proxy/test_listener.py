# SPDX-License-Identifier: Apache-2.0
"""Sockets and TLS for users as configured, and the limits on connections."""

import asyncio
import grp
import os
import pathlib
import socket
import stat
import types
from unittest import mock

import fixtures
import prometheus_client
import testtools

from consoled.proxy import listener
from consoled.proxy.handshake import Policy
from consoled.proxy.metrics import Metrics
from consoled.testing.fixtures import Conf


class BindSocketsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.useFixture(fixtures.TempDir()).path, 'proxy.sock')

    def bind(self, **options):
        conf = self.useFixture(Conf(proxy__host='127.0.0.1', proxy__port=0, **options)).conf
        sockets = listener.bind_sockets(conf)
        for sock in sockets:
            self.addCleanup(sock.close)
            self.assertFalse(sock.getblocking())
        return sockets

    def test_tcp(self):
        (sock,) = self.bind()
        address, port = sock.getsockname()
        self.assertEqual('127.0.0.1', address)
        self.assertTrue(port)

    def test_a_unix_socket_comes_in_addition(self):
        tcp, unix = self.bind(proxy__unix_socket=self.path)
        self.assertEqual((socket.AF_INET, socket.AF_UNIX), (tcp.family, unix.family))
        self.assertEqual(self.path, unix.getsockname())

    def test_the_umask_does_not_keep_the_web_server_out_of_the_unix_socket(self):
        self.addCleanup(os.umask, os.umask(0o027))  # as in the systemd unit
        for mode, expected in (({}, 0o660), ({'proxy__unix_socket_mode': '0666'}, 0o666)):
            *_, unix = self.bind(proxy__unix_socket=self.path, **mode)
            self.assertEqual(expected, stat.S_IMODE(os.stat(self.path).st_mode))
            unix.close()

    def test_nobody_can_connect_before_the_permissions_are_set(self):
        def connect(*values):
            with socket.socket(socket.AF_UNIX) as user:
                self.assertRaises(ConnectionRefusedError, user.connect, self.path)

        with mock.patch.object(os, 'chmod', connect):
            self.bind(proxy__unix_socket=self.path)

    def test_the_unix_socket_belongs_to_a_group_by_name_or_number(self):
        for group in {*os.getgroups(), os.getgid()}:
            name = next((entry.gr_name for entry in grp.getgrall() if entry.gr_gid == group), str(group))
            for given in (name, str(group)):
                *_, unix = self.bind(proxy__unix_socket=self.path, proxy__unix_socket_group=given)
                self.assertEqual(group, os.stat(self.path).st_gid)
                unix.close()

    def test_a_wrong_group_or_mode_is_refused_by_the_name_of_the_option(self):
        error = self.assertRaises(
            ValueError, self.bind, proxy__unix_socket=self.path, proxy__unix_socket_group='nobody-has-this'
        )
        self.assertIn("[proxy] unix_socket_group: there is no group 'nobody-has-this'", str(error))
        self.assertFalse(os.path.exists(self.path))
        with mock.patch.object(os, 'chown', side_effect=PermissionError(1, 'Operation not permitted')):
            error = self.assertRaises(
                ValueError, self.bind, proxy__unix_socket=self.path, proxy__unix_socket_group='0'
            )
        self.assertIn('[proxy] unix_socket_group: this user is not in 0', str(error))
        config = self.useFixture(Conf())
        for mode in ('rw', '0888', '666666', ''):
            self.assertRaises(ValueError, config.set, proxy__unix_socket_mode=mode)

    def test_a_path_that_cannot_be_used_is_named_with_its_option(self):
        file = self.path + '.txt'
        pathlib.Path(file).touch()
        for path in ('/nowhere/proxy.sock', self.path + 'x' * 200, f'{file}/proxy.sock'):
            error = self.assertRaises(ValueError, self.bind, proxy__unix_socket=path)
            self.assertIn(f'[proxy] unix_socket: {path} cannot be bound: ', str(error))

    def test_a_directory_that_may_not_be_entered_is_named_with_its_option(self):
        with mock.patch.object(os, 'stat', side_effect=PermissionError(13, 'Permission denied')):
            pathlib.Path(self.path).touch()
            error = self.assertRaises(ValueError, self.bind, proxy__unix_socket=self.path)
        self.assertIn(f'[proxy] unix_socket: {self.path} cannot be bound: ', str(error))

    def test_the_unix_socket_of_a_killed_process_is_replaced(self):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(self.path)
        _, unix = self.bind(proxy__unix_socket=self.path)
        with socket.socket(socket.AF_UNIX) as user:
            user.connect(self.path)

    def test_any_other_file_is_left_alone(self):
        pathlib.Path(self.path).write_text('precious')
        self.assertRaises(ValueError, self.bind, proxy__unix_socket=self.path)
        self.assertEqual('precious', pathlib.Path(self.path).read_text())

    def test_additional_addresses_come_between_the_first_and_the_unix_socket(self):
        sockets = self.bind(
            proxy__unix_socket=self.path,
            proxy__additional_addresses=['127.0.0.1:0', '[::1]:0', '127.0.0.2:0'],
        )
        hosts = [sock.getsockname()[0] for sock in sockets[:-1]]
        self.assertEqual(['127.0.0.1', '127.0.0.1', '::1', '127.0.0.2'], hosts)
        self.assertEqual(self.path, sockets[-1].getsockname())
        for sock in sockets[:-1]:
            with socket.create_connection(sock.getsockname()[:2]):
                pass

    def test_additional_addresses_that_cannot_be_used_are_named_with_their_option(self):
        for text in ('6083', '127.0.0.1', '::1:6083', '127.0.0.1:70000', ''):
            error = self.assertRaises(ValueError, self.bind, proxy__additional_addresses=[text])
            self.assertIn('[proxy] additional_addresses: ', str(error))
            self.assertIn(repr(text), str(error))
        with socket.create_server(('127.0.0.1', 0)) as other:
            in_use = f'127.0.0.1:{other.getsockname()[1]}'
            error = self.assertRaises(OSError, self.bind, proxy__additional_addresses=[in_use])
        self.assertEqual(f'[proxy] additional_addresses: {in_use} is in use already', error.strerror)

    def test_addresses_that_exclude_each_other_are_refused_before_any_is_bound(self):
        config = self.useFixture(Conf(proxy__host='0.0.0.0', proxy__port=6080))  # noqa: S104 - not bound
        for texts, other in (
            (['127.0.0.1:6080'], '0.0.0.0:6080'),
            (['[::1]:6083', '[::1]:6083'], '[::1]:6083'),
            (['[::]:6083', '0.0.0.0:6083'], '[::]:6083'),
        ):
            config.set(proxy__additional_addresses=texts)
            with mock.patch.object(socket, 'create_server', side_effect=AssertionError):
                error = self.assertRaises(ValueError, listener.bind_sockets, config.conf)
            self.assertIn(f'{texts[-1]} is listened on already, as {other}', str(error))
        config.set(proxy__additional_addresses=['[::1]:6080', '0.0.0.0:6083', '0.0.0.0:0', '0.0.0.0:0'])
        self.assertEqual(5, len(listener.addresses(config.conf)))

    def test_what_was_bound_is_closed_if_another_address_cannot_be(self):
        bound = []
        create = socket.create_server

        def remember(*args, **options):
            bound.append(create(*args, **options))
            return bound[-1]

        with socket.create_server(('127.0.0.1', 0)) as other:
            in_use = f'127.0.0.1:{other.getsockname()[1]}'
            with mock.patch.object(socket, 'create_server', remember):
                self.assertRaises(OSError, self.bind, proxy__additional_addresses=['127.0.0.1:0', in_use])
        self.assertEqual([-1, -1], [sock.fileno() for sock in bound])

    def test_an_address_in_use(self):
        with socket.create_server(('127.0.0.1', 0)) as other:
            conf = self.useFixture(Conf(proxy__host='127.0.0.1', proxy__port=other.getsockname()[1])).conf
            error = self.assertRaises(OSError, listener.bind_sockets, conf)
            self.assertIn('[proxy] port', error.strerror)

    def test_the_unix_socket_of_a_live_process_is_left_alone(self):
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            other.listen()
            error = self.assertRaises(OSError, self.bind, proxy__unix_socket=self.path)
            self.assertIn('[proxy] unix_socket', error.strerror)
            with socket.socket(socket.AF_UNIX) as user:
                user.connect(self.path)


class LimitsTest(testtools.TestCase):
    """Invariant 9: connections per process and per address."""

    def setUp(self):
        super().setUp()
        conf = self.useFixture(Conf(proxy__max_connections=4, proxy__max_connections_per_address=2)).conf
        self.registry = prometheus_client.CollectorRegistry()
        service = types.SimpleNamespace(policy=Policy.from_options(['10.0.0.0/8'], []))
        self.listener = listener.Listener(conf, [], service, Metrics('cell', self.registry), None)

    def acquire(self, *peers):
        return [self.listener._acquire(peer) for peer in peers]

    def metric(self, name, **labels):
        return self.registry.get_sample_value(f'consoled_proxy_{name}', {'cell': 'cell', **labels})

    def test_connections_of_an_address(self):
        self.assertEqual([True, True, False], self.acquire(*['192.0.2.1'] * 3))
        self.assertEqual([True], self.acquire('192.0.2.2'))
        self.assertEqual(1, self.metric('turned_away_total', limit='address'))
        self.assertEqual(3, self.metric('connections'))

    def test_trusted_proxies_and_the_unix_socket_are_exempt_from_it(self):
        for peer in ('10.0.0.1', '::ffff:10.0.0.1', None):
            self.assertEqual([True] * 4, self.acquire(*[peer] * 4), peer)
            for _ in range(4):
                self.listener._release_callback(peer)()

    def test_connections_of_a_process(self):
        peers = ['192.0.2.1', '192.0.2.2', None, '10.0.0.1']
        self.assertEqual([True] * 4, self.acquire(*peers))
        self.assertEqual([False] * 3, self.acquire('192.0.2.3', '10.0.0.1', None))
        self.assertEqual(3, self.metric('turned_away_total', limit='process'))
        self.assertEqual(4, self.listener.connections)

    def test_users_who_take_all_descriptors_do_not_fill_the_log(self):
        log = self.useFixture(fixtures.FakeLogger())
        self.useFixture(fixtures.MockPatchObject(listener, '_ACCEPT_PAUSE', 0))
        failures = []

        async def fail(sock):
            failures.append(OSError(24, 'Too many open files'))
            if len(failures) > 100:
                raise asyncio.CancelledError
            raise failures[-1]

        async def work():
            with mock.patch.object(asyncio.get_running_loop(), 'sock_accept', fail):
                await self.listener._accept(None)

        self.assertRaises(asyncio.CancelledError, asyncio.run, work())
        self.assertEqual(1, log.output.count('Too many open files'))

    def test_a_permit_is_released_once(self):
        self.acquire('192.0.2.1', '192.0.2.1')
        release = self.listener._release_callback('192.0.2.1')
        for _ in range(3):
            release()
        self.assertEqual((1, 1), (self.listener.connections, self.metric('connections')))
        self.assertEqual([True, False], self.acquire('192.0.2.1', '192.0.2.1'))
