# SPDX-License-Identifier: Apache-2.0
"""Screens of real guests in a real browser: VNC with and without TLS, and SPICE."""

import random

import fixtures as fixtures_library

from consoled.testing.fixtures import wait_until
from tests.e2e import base
from tests.e2e.certificates import Certificates
from tests.e2e.qemu import Qemu
from tests.e2e.typed_guest import READY, TypedGuest
from tests.functional import raw_user

# the bytes that spice-html5 sends for an encrypted password
_TICKET = """
const [encrypted, done] = arguments;
import('/web/spice-html5.js').then(({ messages }) => {
  const ticket = new messages.SpiceLinkAuthTicket();
  Object.assign(ticket, { auth_mechanism: 1, encrypted_data: encrypted });
  const buffer = new ArrayBuffer(ticket.buffer_size());
  ticket.to_buffer(buffer);
  done(Array.from(new Uint8Array(buffer)));
}, (error) => done(String(error)));
"""

_TYPE = """
document.getElementById('paste').click();
document.getElementById('text').value = arguments[0];
document.querySelector('button[value=type]').click();
"""


class QemuTest(base.BrowserTestCase):
    @classmethod
    def setUpClass(cls):
        directory = fixtures_library.TempDir()
        directory.setUp()
        cls.addClassCleanup(directory.cleanUp)
        cls.certificates = Certificates(directory.path)
        cls.proxy_options = {
            'vnc': {
                'auth_schemes': 'vencrypt,none',
                'vencrypt_ca_certs': cls.certificates.ca,
                'vencrypt_client_cert': cls.certificates.client,
                'vencrypt_client_key': cls.certificates.client,
            }
        }
        super().setUpClass()

    def assert_shows(self, guest, console_type, page):
        self.browser.open(self.grant(guest, console_type, page).access_url)
        self.browser.wait_for_state('connected')
        self.browser.wait_for_text_on_screen()
        self.assertEqual([], self.browser.violations())

    def test_vnc(self):
        guest = self.useFixture(Qemu('-vnc', '127.0.0.1:{vnc}'))
        self.assert_shows(guest, 'novnc', 'novnc.html')

    def test_vnc_with_tls_and_certificates_on_both_sides(self):
        credentials = f'tls-creds-x509,id=tls0,dir={self.certificates.server},endpoint=server,verify-peer=on'
        guest = self.useFixture(Qemu('-object', credentials, '-vnc', '127.0.0.1:{vnc},tls-creds=tls0'))
        self.assert_shows(guest, 'novnc', 'novnc.html')

    def test_spice_is_one_session_of_several_websockets(self):
        guest = self.useFixture(Qemu('-spice', 'addr=127.0.0.1,port={port},disable-ticketing=on'))
        self.assert_shows(guest, 'spice-html5', 'spice.html')
        self.assertEqual(1, self.count('console_session'))
        ticket = self.browser.driver.execute_async_script(_TICKET, [5, 6, 7])
        self.assertEqual([1, 0, 0, 0] + 125 * [0] + [5, 6, 7], ticket)
        self.browser.open('about:blank')
        wait_until(lambda: self.count('console_session') == 0, what='the end of the session')

    def test_a_serial_port_that_the_guest_does_not_read_is_free_for_the_next_user(self):
        guest = self.useFixture(
            Qemu(
                *('-chardev', 'socket,id=port,host=127.0.0.1,port={port},server=on,wait=off'),
                *('-device', 'isa-serial,chardev=port'),
            )
        )
        for _ in range(4):
            before = guest.accepted()
            token = self.grant(guest, 'serial', 'serial.html').token
            with raw_user.User(self.proxy_process.port) as user:
                user.send(raw_user.handshake(f'/?token={token}'))
                self.assertEqual(101, user.answer().status)
                user.send(raw_user.frame(b'login'))
                wait_until(lambda before=before: guest.accepted() - before, what='the connection')
            wait_until(lambda: self.count('console_session') == 0, what='the end of the session')

    def test_a_text_is_typed_exactly(self):
        """It is long enough to overrun QEMU, if it was typed faster than QEMU hands keys on to a guest."""
        guest = self.useFixture(TypedGuest(self.useFixture(fixtures_library.TempDir()).path))
        self.assert_shows(guest, 'novnc', 'novnc.html')
        wait_until(lambda: guest.text == READY, what='the guest to read keys')
        characters = [chr(code) for code in range(32, 127)]
        text = '\n'.join(''.join(random.Random(row).sample(characters, 60)) for row in range(10))
        wanted = READY
        for part in (text, 'lower case\n'):
            wanted += part
            self.browser.driver.execute_script(_TYPE, part)
            wait_until(lambda: len(guest.text) >= len(wanted), timeout=120, what='all keys')  # noqa: B023
            wait_until(lambda: self.browser.text_of('state') == 'Connected', what='the end of typing')
        self.assertEqual(wanted, guest.text)

    def test_a_guest_that_ends(self):
        guest = self.useFixture(Qemu('-vnc', '127.0.0.1:{vnc}'))
        self.assert_shows(guest, 'novnc', 'novnc.html')
        guest.kill()
        self.browser.wait_for_state('ended', 'console_ended')
