# SPDX-License-Identifier: Apache-2.0
"""Connecting to consoles: allowed networks and ports, the order of the steps, and the errors users see."""

import asyncio
import pathlib
import socket
import ssl

import fixtures
import testtools
import trustme
from hypothesis import given
from hypothesis import strategies as st

from consoled import exception, objects
from consoled.proxy import targets
from consoled.proxy.forwarded import parse_networks
from consoled.proxy.security.base import SecurityFailed
from consoled.testing.fixtures import Conf

VERSION = b'RFB 003.008\n'
TUNNELLED = b'HTTP/1.1 200 OK\r\n\r\n'
ports = st.integers(1, 65535)


class PortRangesTest(testtools.TestCase):
    @given(ports, ports)
    def test_ports_and_ranges(self, one, other):
        first, last = sorted((one, other))
        found = targets.parse_port_ranges([f' {first}-{last} ', str(one)])
        self.assertEqual((range(first, last + 1), range(one, one + 1)), found)

    def test_malformed_ranges_name_the_option(self):
        for text in (
            '',
            '0',
            '65536',
            '5900-',
            '-5900',
            '6000-5900',
            '5900-65536',
            'vnc',
            '5900,5901',
            '\u0665\u0669',
        ):
            error = self.assertRaises(ValueError, targets.parse_port_ranges, [text])
            self.assertIn('[proxy] allowed_ports', str(error))

    @given(st.text(st.sampled_from('0123456789- '), max_size=12))
    def test_every_parsed_port_is_valid(self, text):
        try:
            (found,) = targets.parse_port_ranges([text])
        except ValueError:
            return
        self.assertTrue(found)
        self.assertTrue(1 <= found[0] <= found[-1] <= 65535)


class FromConfTest(testtools.TestCase):
    def build(self, **options):
        return targets.Connector.from_conf(self.useFixture(Conf(**options)).conf)

    def ca_certs(self):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'ca.pem')
        trustme.CA().cert_pem.write_to_path(path)
        return str(path)

    def test_malformed_options(self):
        for options in (
            {'proxy__allowed_networks': ['10.0.0.0/33']},
            {'proxy__allowed_ports': ['0']},
            {'vnc__auth_schemes': ['vencrypt']},  # without CA certificates
        ):
            self.assertRaises(ValueError, self.build, **options)

    def test_files_that_cannot_be_read(self):
        for options in (
            {'vnc__auth_schemes': ['vencrypt'], 'vnc__vencrypt_ca_certs': '/nowhere/ca.pem'},
            {'serial_console__target_ca_certs': '/nowhere/ca.pem'},
            {
                'vnc__auth_schemes': ['none', 'vencrypt'],
                'vnc__vencrypt_ca_certs': self.ca_certs(),
                'vnc__vencrypt_client_cert': '/nowhere/client.pem',
            },
        ):
            self.assertRaises(ValueError, self.build, **options)

    def test_every_context_verifies_certificate_and_name(self):
        connector = self.build(vnc__auth_schemes=['vencrypt'], vnc__vencrypt_ca_certs=self.ca_certs())
        self.assertEqual({'spice-html5', 'serial', 'webmks'}, set(connector._tls))
        for context in (connector._vencrypt, *connector._tls.values()):
            self.assertEqual(ssl.CERT_REQUIRED, context.verify_mode)
            self.assertTrue(context.check_hostname)
            self.assertEqual(ssl.TLSVersion.TLSv1_2, context.minimum_version)

    def test_no_vencrypt_unless_configured(self):
        self.assertIsNone(self.build()._vencrypt)


class PeerTransport(asyncio.Transport):
    """A hypervisor in memory: for each write of the proxy it has the next of ``replies``.

    :param closes: whether it closes the connection behind the last of them
    :ivar sent: what the proxy has written
    """

    def __init__(self, replies, *, closes=False):
        super().__init__()
        self._replies = list(replies)
        self._closes = closes
        self._pending = b''
        self._reading = True
        self.sent = b''
        self.aborted = False

    def connect(self, negotiator):
        self.protocol = negotiator
        negotiator.connection_made(self)
        self.reply()
        return negotiator

    def reply(self):
        """Send the next of the replies."""
        self.feed(self._replies.pop(0) if self._replies else b'')

    def feed(self, data):
        self._pending += data
        self._deliver()

    def _deliver(self):
        if self._reading and self._pending:
            data, self._pending = self._pending, b''
            self.protocol.data_received(data)
        if self._closes and not self._replies and not self._pending:
            self._closes = False
            self.protocol.eof_received()

    def write(self, data):
        self.sent += data
        self.reply()

    def pause_reading(self):
        self._reading = False

    def resume_reading(self):
        self._reading = True
        self._deliver()

    def abort(self):
        self.aborted = True


class ConsoleCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('consoled.proxy.targets'))

    def console(self, console_type='serial', host='10.0.0.1', port=5900, **options):
        return objects.ConsoleConnection(
            instance_uuid='a4d4ae4c-7d4c-4b1b-9b8f-6c4f3f5e2d10',
            console_type=console_type,
            host=host,
            port=port,
            compute_host='compute',
            access_url_base=None,
            options=options,
        )

    def connector(self, **values):
        defaults = {
            'networks': parse_networks(['10.0.0.0/8'], 'x'),
            'ports': [range(5900, 6100)],
            'timeout': 5.0,
            'schemes': ['none'],
            'vencrypt': None,
            'tls': {'serial': 'tls of serial consoles'},
        }
        return targets.Connector(**(defaults | values))


class ConnectTest(ConsoleCase):
    """From the connection to a target that can be relayed, against a peer in memory."""

    def setUp(self):
        super().setUp()
        self.tls_started = []  # (context, server name)
        self.opened = []  # (host, port)

    def connect(self, console, *replies, on_connected=None, closes=False, **values):
        """Connect to a peer with these replies; return the peer and the target or the error."""
        peer = PeerTransport(replies, closes=closes)
        case = self

        class Negotiator(targets._Negotiator):
            async def start_tls(self, context, host):
                case.tls_started.append((context, host))
                peer.reply()

        async def no_check():
            pass

        async def connect():
            connector = self.connector(**values)

            async def open_connection(host, port, *, small_buffers):
                self.opened.append((host, port))
                return peer.connect(Negotiator())

            connector._open_connection = open_connection
            try:
                return peer, await connector.connect(console, on_connected or no_check)
            except Exception as exc:
                return peer, exc

        return asyncio.run(connect())

    def test_a_serial_console_has_no_handshake(self):
        peer, target = self.connect(self.console(), b'login: ')
        self.assertIs(peer, target.transport)
        self.assertEqual((b'', b'login: '), (peer.sent, target.rest))
        self.assertEqual([('10.0.0.1', 5900)], self.opened)
        self.assertEqual([], self.tls_started)

    def test_a_vnc_console_has_the_rfb_handshake(self):
        peer, target = self.connect(self.console('novnc'), VERSION, b'\1\1', bytes(4) + b'rest')
        self.assertEqual((VERSION + b'\1', b'rest'), (peer.sent, target.rest))
        self.assertFalse(peer.aborted)

    def test_http_connect_comes_before_the_rfb_handshake(self):
        console = self.console('novnc', internal_access_path='/path')
        peer, target = self.connect(console, b'', TUNNELLED + VERSION, b'\1\1', bytes(4))
        self.assertTrue(peer.sent.startswith(b'CONNECT /path HTTP/1.1\r\nHost: 10.0.0.1:5900\r\n'))
        self.assertTrue(peer.sent.endswith(VERSION + b'\1'))
        self.assertEqual(b'', target.rest)

    def test_tls_on_the_tls_port(self):
        self.connect(self.console(use_tls='True', tls_port='5901'))
        self.assertEqual([('10.0.0.1', 5901)], self.opened)
        self.assertEqual([('tls of serial consoles', '10.0.0.1')], self.tls_started)

    def test_tls_on_the_same_port(self):
        self.connect(self.console(use_tls='true'))
        self.assertEqual([('10.0.0.1', 5900)], self.opened)
        self.assertEqual(1, len(self.tls_started))

    def test_without_use_tls_the_tls_port_is_not_used(self):
        for use_tls in (None, 'false', '1'):
            self.connect(self.console(use_tls=use_tls, tls_port='5901'))
            self.assertEqual(('10.0.0.1', 5900), self.opened.pop())
            self.assertEqual([], self.tls_started)

    def test_vnc_has_tls_by_vencrypt_only(self):
        self.connect(self.console('novnc', use_tls='true', tls_port='5901'), VERSION, b'\1\1', bytes(4))
        self.assertEqual([('10.0.0.1', 5900)], self.opened)
        self.assertEqual([], self.tls_started)
        replies = (VERSION, b'\1\x13', b'\0\2', b'\0\1\0\0\1\4', b'\1', bytes(4))
        console = self.console('novnc')
        self.connect(console, *replies, schemes=['vencrypt'], vencrypt='vencrypt context')
        self.assertEqual([('vencrypt context', '10.0.0.1')], self.tls_started)

    def test_invariant_7_no_byte_is_sent_before_on_connected(self):
        console = self.console('novnc', internal_access_path='/path')

        async def refuse():
            raise exception.ConsoleGone()

        peer, error = self.connect(console, on_connected=refuse)
        self.assertIsInstance(error, exception.ConsoleGone)
        self.assertEqual((b'', True), (peer.sent, peer.aborted))

    def test_a_failed_handshake_is_logged_and_neutral_to_the_user(self):
        peer, error = self.connect(self.console('novnc'), b'SSH-2.0-Open')
        self.assertIsInstance(error, exception.TargetFailed)
        self.assertTrue(peer.aborted)
        self.assertIn('console 10.0.0.1:5900: rfb_version: SSH-2.0-Open', self.log.output)
        self.assertNotIn('10.0.0.1', str(error))

    def test_a_path_that_could_break_the_request_is_a_failure(self):
        peer, error = self.connect(self.console(internal_access_path='/a b'))
        self.assertIsInstance(error, exception.TargetFailed)
        self.assertEqual(b'', peer.sent)

    def test_a_peer_that_sends_nothing_times_out(self):
        peer, error = self.connect(self.console('novnc'), timeout=0.01)
        self.assertIsInstance(error, exception.TargetTimeout)
        self.assertTrue(peer.aborted)
        self.assertIn('Console 10.0.0.1:5900 did not respond within 0.01 s', self.log.output)

    def test_a_connection_that_is_closed(self):
        for console, reason in (
            (self.console(), 'the connection was closed'),
            (self.console('novnc'), 'eof: RFB version'),
            (self.console(internal_access_path='/path'), 'eof: header of the reply, after 0 bytes'),
        ):
            peer, error = self.connect(console, closes=True)
            self.assertIsInstance(error, exception.TargetFailed)
            self.assertIn(reason, self.log.output)
            self.assertTrue(peer.aborted)

    def test_last_words_of_a_guest_are_relayed(self):
        _, target = self.connect(self.console(), b'goodbye', closes=True)
        self.assertEqual(b'goodbye', target.rest)


class NegotiatorTest(testtools.TestCase):
    def test_tls_does_not_start_after_bytes_in_clear(self):
        async def work():
            negotiator = PeerTransport([b'early']).connect(targets._Negotiator())
            await negotiator.start_tls(ssl.create_default_context(), 'h')

        failed = self.assertRaises(SecurityFailed, asyncio.run, work())
        self.assertEqual('plaintext_after_tls', failed.code)

    def test_a_lost_connection(self):
        async def work():
            negotiator = PeerTransport([b'last']).connect(targets._Negotiator())
            negotiator.connection_lost(ConnectionResetError('reset by peer'))
            self.assertEqual(b'last', await negotiator.receive())
            await negotiator.receive()

        error = self.assertRaises(OSError, asyncio.run, work())
        self.assertEqual('reset by peer', str(error))

    def test_it_holds_one_read_at_most(self):
        async def work():
            peer = PeerTransport([b'a'])
            negotiator = peer.connect(targets._Negotiator())
            peer.feed(b'b')
            self.assertEqual(b'a', negotiator._received)
            self.assertEqual([b'a', b'b'], [await negotiator.receive(), await negotiator.receive()])
            negotiator.unread(b'c')
            peer.feed(b'd')
            self.assertEqual(b'c', negotiator.finish().rest)  # the transport has the rest

        asyncio.run(work())


class AllowedTest(ConsoleCase):
    """Invariant 8: where a console may be."""

    def tried(self, host, port=5900, addresses=(), **options):
        """Connect where nobody listens; return the addresses that were tried and the error."""
        tried = []

        async def resolve(host, port):
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, '', (each, port)) for each in addresses]

        async def refuse(sock, address):
            tried.append(address)
            raise ConnectionRefusedError('refused')

        async def connect():
            asyncio.get_running_loop().sock_connect = refuse
            connector = self.connector()
            connector._resolver.resolve = resolve
            await connector.connect(self.console(host=host, port=port, **options), self.fail)

        try:
            asyncio.run(connect())
        except exception.ConsoledException as exc:
            return tried, type(exc)
        return None

    def test_a_port_outside_the_allowed_ports(self):
        for port, options in ((5899, {}), (6100, {}), (5900, {'use_tls': 'true', 'tls_port': '22'})):
            got = self.tried('10.0.0.1', port, ['10.0.0.1'], **options)
            self.assertEqual(([], exception.TargetForbidden), got)
        self.assertIn('Port 22 of console host 10.0.0.1 is not in [proxy] allowed_ports', self.log.output)

    def test_a_host_outside_the_allowed_networks(self):
        for addresses in ((), ['127.0.0.1'], ['::1', '::ffff:192.0.2.1', '11.0.0.1']):
            self.assertEqual(([], exception.TargetForbidden), self.tried('h', addresses=addresses))
        self.assertIn('Console host h is not in [proxy] allowed_networks', self.log.output)

    def test_only_allowed_addresses_are_tried(self):
        tried, error = self.tried('h', addresses=['127.0.0.1', '10.0.0.2', '192.0.2.1', '10.0.0.3'])
        self.assertEqual([('10.0.0.2', 5900), ('10.0.0.3', 5900)], tried)
        self.assertIs(exception.TargetFailed, error)
        self.assertIn('console h:5900: refused', self.log.output)
