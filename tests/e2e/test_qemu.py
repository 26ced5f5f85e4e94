# SPDX-License-Identifier: Apache-2.0
"""Screens of real guests, by VNC with and without TLS and by SPICE, in a real browser."""

import pathlib

import fixtures as fixtures_library
import trustme

from consoled.testing.fixtures import wait_until
from tests.e2e import base
from tests.e2e.qemu import Qemu

# Whether a canvas shows anything: how many of its pixels are not black.
_LIT = """
let lit = 0;
for (const canvas of document.querySelectorAll('#screen canvas')) {
  if (!canvas.width || !canvas.height) continue;
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  for (let i = 0; i < data.length; i += 4) lit += data[i] + data[i + 1] + data[i + 2] > 150;
}
return lit;
"""
_SOME = 200  # pixels: a few words of the BIOS


class Certificates:
    """What the test's hypervisor and proxy show each other."""

    def __init__(self, directory):
        self.server = pathlib.Path(directory, 'server')
        self.server.mkdir()
        authority = trustme.CA()
        self.ca = pathlib.Path(directory, 'ca.pem')
        authority.cert_pem.write_to_path(self.ca)
        authority.cert_pem.write_to_path(self.server / 'ca-cert.pem')
        mine = authority.issue_cert('127.0.0.1')
        mine.private_key_pem.write_to_path(self.server / 'server-key.pem')
        mine.cert_chain_pems[0].write_to_path(self.server / 'server-cert.pem')
        self.client = pathlib.Path(directory, 'client.pem')
        authority.issue_cert('proxy.example.org').private_key_and_cert_chain_pem.write_to_path(self.client)


class QemuTest(base.CellCase):
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
        wait_until(lambda: self.browser.driver.execute_script(_LIT) > _SOME, what='the text of the BIOS')
        self.assertEqual([], self.browser.complaints())

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
        self.browser.open('about:blank')
        wait_until(lambda: self.count('console_session') == 0, what='the end of the session')

    def test_a_guest_that_ends(self):
        guest = self.useFixture(Qemu('-vnc', '127.0.0.1:{vnc}'))
        self.assert_shows(guest, 'novnc', 'novnc.html')
        guest.kill()
        self.browser.wait_for_state('ended', 'console_ended')
