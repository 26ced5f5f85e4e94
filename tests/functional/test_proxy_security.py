# SPDX-License-Identifier: Apache-2.0
"""The proxy's connections to hypervisors: allowed networks and ports, certificates, VeNCrypt."""

import asyncio
import functools
import json
import pathlib
import socket
import ssl
import struct

import fixtures
import testtools
import trustme

from consoled import exception
from consoled.proxy import targets
from consoled.testing.fixtures import Conf
from consoled.testing.guests.fixture import GuestHostFixture
from consoled.testing.guests.tcp_guests import EchoGuest
from consoled.testing.guests.vnc_guest import VncGuest
from consoled.testing.services import free_port
from tests.functional import base, proxy_base, test_proxy
from tests.functional.raw_user import frame, handshake
from tests.functional.test_proxy_sessions import KEY, Viewer

NAME = 'localhost'  # the hypervisors' host name
FAILED = {'code': 'target_failed', 'reason': "The guest's console cannot be reached.", 'retryable': True}
FORBIDDEN = {
    'code': 'target_forbidden',
    'reason': 'This proxy is not allowed to connect to the console.',
    'retryable': False,
}
VERSION = b'RFB 003.008\n'
OFFER_VENCRYPT = (b'\1\x13', 1), (b'\0\2', 2), (b'\0', 0)  # steps: bytes to send, number of bytes to read
OFFER_X509 = (*OFFER_VENCRYPT, (struct.pack('>BI', 1, 260), 4))


class Authorities:
    """Certificate authorities: of the hypervisors, of the proxy, and one that nobody trusts."""

    def __init__(self, directory):
        self.hypervisors, self.proxies, self.stranger = trustme.CA(), trustme.CA(), trustme.CA()
        self.ca_certs = pathlib.Path(directory, 'ca.pem')
        self.certificate = pathlib.Path(directory, 'proxy.pem')
        self.key = pathlib.Path(directory, 'proxy.key')
        mine = self.proxies.issue_cert('proxy.example.org')
        self.hypervisors.cert_pem.write_to_path(self.ca_certs)
        mine.private_key_pem.write_to_path(self.key)
        for blob in mine.cert_chain_pems:
            blob.write_to_path(self.certificate, append=True)

    def server(self, name=NAME, *, signed_by=None, demands=None):
        """Return the TLS context of a hypervisor.

        :param signed_by: the authority of its certificate; that of the hypervisors by default
        :param demands: require a client certificate of this authority
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (signed_by or self.hypervisors).issue_cert(name).configure_cert(context)
        if demands is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            demands.configure_trust(context)
        return context


class Recorder(proxy_base.ScriptedGuest):
    """Follows a script, and records everything it receives in ``heard``.

    :param script: steps: the bytes to send, and the number of bytes to read then
    """

    def __init__(self, *script, **how):
        super().__init__(self._follow, **how)
        self._script = script
        self.heard = b''

    async def _follow(self, reader, writer):
        for data, awaited in self._script:
            writer.write(data)
            self.heard += await reader.readexactly(awaited)
        while data := await reader.read(65536):
            self.heard += data


class AlertingGuest(proxy_base.ScriptedGuest):
    """Offers VeNCrypt, and sends a TLS alert when the handshake fails, as QEMU does and asyncio does not.

    ``heard`` has what it receives after the TLS handshake.
    """

    def __init__(self, context):
        super().__init__(self._follow)
        self._context = context
        self.heard = b''

    async def _follow(self, reader, writer):
        for data, awaited in ((VERSION, 12), *OFFER_X509, (b'\1', 0)):
            writer.write(data)
            await reader.readexactly(awaited)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(incoming, outgoing, server_side=True)
        step = tls.do_handshake
        while True:
            try:
                self.heard += step() or b''
                step = functools.partial(tls.read, 65536)
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
            except ssl.SSLError:
                writer.write(outgoing.read())
                return


class TLSGuest(EchoGuest):
    """An echo guest with TLS from the first byte on."""

    def __init__(self, context):
        super().__init__()
        self._context = context

    async def serve(self, reader, writer):
        await writer.start_tls(self._context)
        await super().serve(reader, writer)


class _Refused:
    def assert_refused(self, target, body, reason):
        """Assert that the user gets 502 with a neutral text, and that the log has the reason.

        The user sends input together with the request, which must not reach anyone.
        """
        user = self.user().send(handshake(target, Accept='application/json') + frame(b'secret'))
        answer = user.answer()
        self.assertEqual((502, body), (answer.status, json.loads(answer.body)))
        self.wait_until(lambda: reason in self.daemon.log(), f'the reason "{reason}" in the log')
        user.leave()
        self.assert_nothing_left()


class _VeNCrypt(_Refused):
    """The proxy requires VeNCrypt, with certificates on both sides."""

    def screen(self, **how):
        """Add a VNC guest that requires a certificate of the proxies' authority."""
        context = self.authorities.server(**{'demands': self.authorities.proxies, **how})
        return self.add(VncGuest(security='vencrypt', ssl_context=context))

    def vnc(self, guest, host=NAME):
        return self.grant(guest, console_type='novnc', host=host)

    def assert_screen_refused(self, guest, reason):
        self.assert_refused(self.vnc(guest), FAILED, f'console {NAME}:{guest.port}: {reason}')
        self.assertEqual((0, []), (guest.viewers, guest.keys))

    def test_a_screen_with_certificates_on_both_sides(self):
        context = self.authorities.server(demands=self.authorities.proxies)
        both = self.add(VncGuest(security='both', ssl_context=context))
        for guest in (self.screen(), both):
            viewer = Viewer(self.opened(target=self.vnc(guest)))
            self.assertEqual((640, 400, b'desktop'), viewer.desktop)
            viewer.sync(KEY)
            self.assertEqual([0x61], guest.keys)

    def test_the_name_may_be_an_address(self):
        guest = self.screen(name='127.0.0.1')
        Viewer(self.opened(target=self.vnc(guest, '127.0.0.1')))

    def test_a_certificate_of_another_authority(self):
        guest = self.screen(signed_by=self.authorities.stranger)
        self.assert_screen_refused(guest, '[SSL: CERTIFICATE_VERIFY_FAILED]')
        self.assertIn('unable to get local issuer certificate', self.daemon.log())

    def test_a_certificate_for_another_name(self):
        guest = self.screen(name='other.example.org')
        self.assert_screen_refused(guest, '[SSL: CERTIFICATE_VERIFY_FAILED]')
        self.assertIn(f"certificate is not valid for '{NAME}'", self.daemon.log())

    def test_a_certificate_for_the_name_is_not_valid_for_its_address(self):
        guest = self.screen()
        reason = f'console 127.0.0.1:{guest.port}: [SSL: CERTIFICATE_VERIFY_FAILED]'
        self.assert_refused(self.vnc(guest, '127.0.0.1'), FAILED, reason)

    def alerting_guest(self, authority):
        """Add a guest that requires a certificate of this authority, and sends an alert without one."""
        return self.add(AlertingGuest(self.authorities.server(demands=authority)))

    def assert_refused_with_alert(self, guest, alert):
        self.assert_refused(self.vnc(guest), FAILED, f'console {NAME}:{guest.port}: [SSL: {alert}]')
        self.assertEqual(b'', guest.heard)

    def test_a_guest_that_does_not_trust_the_proxys_certificate(self):
        guest = self.alerting_guest(self.authorities.stranger)
        self.assert_refused_with_alert(guest, 'TLSV1_ALERT_UNKNOWN_CA')

    def test_a_guest_that_requires_a_certificate_and_the_proxy_has_none(self):
        daemon = self.new_daemon()
        del daemon.options['vnc']['vencrypt_client_cert'], daemon.options['vnc']['vencrypt_client_key']
        self.useFixture(daemon)
        daemon.wait_ready()
        self.use(daemon)
        guest = self.alerting_guest(self.authorities.proxies)
        self.assert_refused_with_alert(guest, 'TLSV13_ALERT_CERTIFICATE_REQUIRED')

    def test_a_guest_that_closes_the_connection_without_an_alert(self):
        reason = 'eof: security result, right after TLS: it may not accept our certificate'
        self.assert_screen_refused(self.screen(demands=self.authorities.stranger), reason)

    def test_no_downgrade(self):
        for reason, script, heard in (
            ('no_common_scheme: security types [1]', [(b'\1\1', 0)], b''),
            ('no_common_scheme: security types [2, 16]', [(b'\2\2\x10', 0)], b''),
            (
                'no_common_scheme: VeNCrypt subtypes [256, 257]',
                [*OFFER_VENCRYPT, (struct.pack('>BII', 2, 256, 257), 0)],
                b'\x13\0\2',
            ),
            ('vencrypt_version: 0.1', [(b'\1\x13', 1), (b'\0\1', 0)], b'\x13'),
            (
                'refused_by_hypervisor',
                [*OFFER_X509, (b'\0', 0)],
                b'\x13\0\2\0\0\1\4',
            ),
            (
                'plaintext_after_tls',
                [*OFFER_X509, (b'\1\0\0\0\0', 0)],
                b'\x13\0\2\0\0\1\4',
            ),
            ('rfb_version: RFB 003.003', [], b''),
        ):
            with self.subTest(reason):
                version = b'RFB 003.003\n' if 'rfb_version' in reason else VERSION
                guest = self.add(Recorder((version, 12 * (version == VERSION)), *script))
                self.assert_refused(self.vnc(guest), FAILED, f'console {NAME}:{guest.port}: {reason}')
                self.guests.settle()
                self.assertEqual(VERSION * (version == VERSION) + heard, guest.heard)


class _TLS(_Refused):
    def tls(self, guest, **options):
        return self.grant(guest, host=NAME, options={'use_tls': 'true', **options})

    def test_a_serial_console_over_tls(self):
        guest = self.add(TLSGuest(self.authorities.server()))
        self.assert_echo(self.opened(target=self.tls(guest)))

    def test_a_serial_console_on_its_tls_port(self):
        guest = self.add(TLSGuest(self.authorities.server()))
        self.assert_echo(self.opened(target=self.tls(self.guest, tls_port=str(guest.port))))
        self.assert_no_connection()

    def test_a_serial_console_with_a_wrong_certificate(self):
        for how, reason in (
            ({'signed_by': self.authorities.stranger}, 'unable to get local issuer certificate'),
            ({'name': 'other.example.org'}, "certificate is not valid for 'localhost'"),
        ):
            with self.subTest(reason):
                guest = self.add(TLSGuest(self.authorities.server(**how)))
                self.assert_refused(self.tls(guest), FAILED, f'console {NAME}:{guest.port}: [SSL')
                self.assertIn(reason, self.daemon.log())

    def test_a_serial_console_without_tls_receives_no_plaintext(self):
        guest = self.add(Recorder((b'login: ', 0)))
        self.assert_refused(self.tls(guest), FAILED, f'console {NAME}:{guest.port}: [SSL')
        self.guests.settle()
        self.assertTrue(guest.heard.startswith(b'\x16\3\1'), guest.heard)  # ClientHello
        self.assertNotIn(b'secret', guest.heard)


class _AllowedTargets(_Refused):
    def test_invariant_8_a_network_that_is_not_allowed(self):
        guest = self.add(EchoGuest('127.0.0.3'))
        reason = 'Console host 127.0.0.3 is not in [proxy] allowed_networks'
        for host in ('127.0.0.3', '::ffff:127.0.0.3'):
            self.assert_refused(self.grant(guest, host=host), FORBIDDEN, reason)
        self.assert_no_connection(guest)

    def test_invariant_8_a_port_that_is_not_allowed(self):
        guest = self.add(EchoGuest(port=self.forbidden_port))
        reason = f'Port {guest.port} of console host 127.0.0.1 is not in [proxy] allowed_ports'
        self.assert_refused(self.grant(guest), FORBIDDEN, reason)
        options = {'use_tls': 'true', 'tls_port': str(guest.port)}
        self.assert_refused(self.grant(options=options), FORBIDDEN, reason)
        self.assert_no_connection(guest)

    def test_a_name_and_all_allowed_addresses(self):
        for host, address in ((NAME, '127.0.0.1'), ('127.0.0.2', '127.0.0.2'), ('::1', '::1')):
            guest = self.add(EchoGuest(address))
            self.assert_echo(self.opened(target=self.grant(guest, host=host)))

    def test_a_closed_port(self):
        reason = f'console 127.0.0.1:{self.closed_port}: [Errno 111]'
        self.assert_refused(self.grant(port=self.closed_port), FAILED, reason)


class HypervisorsTest(_VeNCrypt, _TLS, _AllowedTargets, test_proxy.UsersTestCase):
    @classmethod
    def setUpClass(cls):
        cls.authorities = Authorities(cls.fixture(fixtures.TempDir()).path)
        cls.forbidden_port, cls.closed_port = free_port(), free_port()
        cls.proxy_options = {
            'allowed_networks': '127.0.0.1,127.0.0.2,::1',
            'allowed_ports': f'1024-{cls.forbidden_port - 1},{cls.forbidden_port + 1}-65535',
        }
        cls.more_options = {
            'vnc': {
                'auth_schemes': 'vencrypt',
                'vencrypt_ca_certs': cls.authorities.ca_certs,
                'vencrypt_client_cert': cls.authorities.certificate,
                'vencrypt_client_key': cls.authorities.key,
            },
            'serial_console': {'target_ca_certs': cls.authorities.ca_certs},
        }
        super().setUpClass()


class NamesTest(testtools.TestCase):
    """A name with several addresses. The resolver is fake, everything else is real."""

    NAME = 'hypervisor.example.org'

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.FakeLogger())
        self.guests = self.useFixture(GuestHostFixture())
        self.port = free_port()
        self.addresses = []
        self.really = socket.getaddrinfo
        self.useFixture(fixtures.MonkeyPatch('socket.getaddrinfo', self.getaddrinfo))

    def getaddrinfo(self, host, port, *args, flags=0, **how):
        if host != self.NAME:
            return self.really(host, port, *args, flags=flags, **how)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror('a name')
        return [found for each in self.addresses for found in self.really(each, port, *args, **how)]

    def listen(self, address):
        return self.guests.add(EchoGuest(address, self.port))

    def connect(self, *addresses):
        """Connect to the name while it has these addresses, and return the address that was reached."""
        self.addresses = addresses
        conf = self.useFixture(
            Conf(
                proxy__allowed_networks=['127.0.0.0/30', '::1/128'],
                proxy__allowed_ports=['1024-65535'],
                proxy__connect_timeout=1,
            )
        ).conf
        console = base.a_console(base.new_uuid(), self.port, host=self.NAME)

        async def connect():
            target = await targets.Connector.from_conf(conf).connect(
                console, functools.partial(asyncio.sleep, 0)
            )
            reached = target.transport.get_extra_info('peername')[0]
            target.transport.abort()
            return reached

        return asyncio.run(connect())

    def test_every_address_is_tried(self):
        self.listen('::1')
        self.assertEqual('::1', self.connect('127.0.0.1', '127.0.0.2', '::1'))

    def test_the_first_that_answers_is_used(self):
        self.listen('127.0.0.1')
        self.listen('127.0.0.2')
        self.assertEqual('127.0.0.2', self.connect('::1', '127.0.0.2', '127.0.0.1'))

    def test_invariant_8_addresses_that_are_not_allowed_are_left_out(self):
        forbidden = self.listen('127.0.0.4')
        self.listen('127.0.0.1')
        self.assertEqual('127.0.0.1', self.connect('127.0.0.4', '127.0.0.1'))
        self.assertRaises(exception.TargetForbidden, self.connect, '127.0.0.4')
        self.guests.settle()
        self.assertEqual(0, forbidden.connections)

    def test_an_address_that_does_not_answer_leaves_time_for_the_next(self):
        self.silent('127.0.0.2')
        self.listen('127.0.0.1')
        self.assertEqual('127.0.0.1', self.connect('127.0.0.2', '127.0.0.1'))
        self.assertRaises(exception.TargetTimeout, self.connect, '127.0.0.2')

    def silent(self, address):
        """Make connections to an address stay half open: its queue is full and is never emptied."""
        listening = socket.socket()
        listening.bind((address, self.port))
        listening.listen(0)
        self.addCleanup(listening.close)
        for _ in range(2):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex((address, self.port))
            self.addCleanup(waiting.close)

    def test_no_address_accepts_connections(self):
        self.assertRaises(exception.TargetFailed, self.connect, '127.0.0.1', '::1')
        self.assertRaises(exception.TargetForbidden, self.connect)
