# SPDX-License-Identifier: Apache-2.0
"""Guests of libvirt in a real browser, at the URLs of the agent: VNC, SPICE, serial, with and without TLS."""

import contextlib
import json
import pathlib

import fixtures as fixtures_library
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from testtools.content import text_content

from consoled.testing import services
from consoled.testing.fixtures import wait_until
from tests.e2e import base as screens
from tests.e2e import libvirt as lv
from tests.e2e import test_libvirt
from tests.e2e.certificates import Certificates
from tests.functional.raw_user import User, frame, handshake

REFUSED = {'code': 'target_failed', 'reason': "The guest's console cannot be reached.", 'retryable': True}


class LibvirtBrowserTestCase(test_libvirt.LibvirtTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = screens.Browser()
        cls.browser.setUp()
        cls.addClassCleanup(cls.browser.cleanUp)

    def setUp(self):
        super().setUp()
        self.addOnException(lambda _: self.addDetail('proxy', text_content(self.proxy_daemon.log()[-6000:])))
        self.addOnException(lambda _: self.addDetail('browser', text_content(self.browser.report())))
        self.bios_log = pathlib.Path(self.useFixture(fixtures_library.TempDir()).join('bios.log'))
        self.browser.open('about:blank')
        self.browser.violations()  # discard those of the previous test

    def waiting_guest(self, *devices, firmware=lv.BOOT_MENU):
        """Start a guest with these consoles, and wait until it is known and its BIOS waits for a key."""
        domain = self.new_guest(*devices, lv.bios_log(self.bios_log), firmware=firmware)
        self.wait_for_definition(domain, len(devices))
        self.wait_for_bios(lv.MENU_PROMPT)
        return domain

    def wait_for_bios(self, text, timeout=30.0):
        wait_until(lambda: text in self.bios_log.read_bytes(), timeout=timeout, what=f'{text} from the BIOS')

    def open(self, domain, console_type):
        granted = self.get(domain, console_type)
        self.browser.open(granted.access_url)
        self.browser.wait_for_state('connected')
        return granted

    def open_menu(self):
        """Press Escape until the BIOS shows its menu. On a busy machine it may miss a key."""

        def pressed():
            ActionChains(self.browser.driver).send_keys(Keys.ESCAPE).perform()
            with contextlib.suppress(TimeoutError):
                self.wait_for_bios(lv.MENU, timeout=5.0)
                return True

        wait_until(pressed, what='the menu of the BIOS')

    def assert_screen_works(self, domain, console_type):
        """Assert that the page shows the guest's screen, and that a key changes it."""
        granted = self.open(domain, console_type)
        self.browser.wait_for_text_on_screen()
        before = self.stable_screen()
        self.assertNotIn(lv.MENU, self.bios_log.read_bytes())
        self.open_menu()
        self.browser.wait_for_text_on_screen(before)
        self.assertEqual([], self.browser.violations())
        return granted

    def stable_screen(self):
        """Wait until the screen stops changing, and return its number of lit pixels.

        The BIOS waits for a key by then, so only pixels that are still under way can change it.
        """
        counts = []

        def is_stable():
            counts.append(self.browser.lit_pixels())
            return len(counts) > 5 and len(set(counts[-5:])) == 1

        wait_until(is_stable, what='a stable screen')
        return counts[-1]

    def assert_refused_by(self, proxy, granted, reason):
        """Assert that the user gets 502 with a neutral text, and that the proxy's log has the reason."""
        user = User(proxy.port)
        self.addCleanup(user.leave)
        user.send(handshake(f'/?token={granted.token}', Accept='application/json') + frame(b'secret'))
        answer = user.answer()
        self.assertEqual((502, REFUSED), (answer.status, json.loads(answer.body)))
        line = f'console {granted.host}:{granted.port}: {reason}'
        wait_until(lambda: line in proxy.log(), what=f'"{line}" in the log: {proxy.log()[-2000:]}')

    def proxy_with(self, **options):
        """Start another proxy of the cell, and wait until it is ready."""
        proxy = self.useFixture(self.new_proxy(**options))
        proxy.wait_ready()
        return proxy


class BrowserTest(LibvirtBrowserTestCase):
    def test_vnc(self):
        self.assert_screen_works(self.waiting_guest(lv.vnc()), 'novnc')

    def test_spice(self):
        granted = self.assert_screen_works(self.waiting_guest(lv.spice()), 'spice-html5')
        self.assertEqual({}, granted.options)

    def test_serial(self):
        domain = self.waiting_guest(lv.serial(services.free_port()), firmware=lv.SERIAL_BOOT_MENU)
        self.open(domain, 'serial')
        self.open_menu()
        text = lv.MENU.decode()
        wait_until(lambda: text in self.browser.terminal(), what='the menu in the terminal')
        self.assertEqual([], self.browser.violations())

    def test_the_page_shows_that_the_guest_was_destroyed(self):
        domain = self.waiting_guest(lv.vnc())
        self.open(domain, 'novnc')
        domain.destroy()
        self.browser.wait_for_state('ended')
        self.assertIn(self.browser.state[1], ('console_ended', 'console_gone'))

    def test_a_guest_without_tls_is_refused_when_vencrypt_is_required(self):
        certificates = Certificates(self.useFixture(fixtures_library.TempDir()).path)
        proxy = self.proxy_with(vnc=vencrypt(certificates))
        granted = self.get(self.guest(lv.vnc()))
        self.assert_refused_by(proxy, granted, 'no_common_scheme: security types [1]')
        self.connected(granted)


def vencrypt(certificates, client=None):
    """Return the options in [vnc] of a proxy that requires VeNCrypt."""
    certificate = client or certificates.client
    return {
        'auth_schemes': 'vencrypt',
        'vencrypt_ca_certs': certificates.ca,
        'vencrypt_client_cert': certificate,
        'vencrypt_client_key': certificate,
    }


class TLSTest(LibvirtBrowserTestCase):
    """QEMU requires client certificates for VNC, and offers SPICE over TLS."""

    @classmethod
    def setUpClass(cls):
        directory = fixtures_library.TempDir()
        directory.setUp()
        cls.addClassCleanup(directory.cleanUp)
        cls.certificates = Certificates(directory.path)
        cls.qemu_conf = (
            f'vnc_tls = 1\nvnc_tls_x509_verify = 1\nvnc_tls_x509_cert_dir = "{cls.certificates.server}"\n'
            f'spice_tls = 1\nspice_tls_x509_cert_dir = "{cls.certificates.server}"\n'
        )
        cls.proxy_options = {
            'vnc': vencrypt(cls.certificates),
            'spice': {'target_ca_certs': cls.certificates.ca},
        }
        super().setUpClass()

    # VNC

    def test_vnc_with_certificates_on_both_sides(self):
        self.assert_screen_works(self.waiting_guest(lv.vnc()), 'novnc')

    def test_a_proxy_that_the_guest_does_not_trust(self):
        """QEMU checks the proxy's certificate after the TLS handshake, and closes without a message."""
        granted = self.get(self.guest(lv.vnc()))
        anonymous = vencrypt(self.certificates)
        del anonymous['vencrypt_client_cert'], anonymous['vencrypt_client_key']
        for options in (vencrypt(self.certificates, self.certificates.untrusted_client), anonymous):
            reason = 'eof: security result, right after TLS: it may not accept our certificate'
            self.assert_refused_by(self.proxy_with(vnc=options), granted, reason)
        self.connected(granted)

    def test_a_guest_with_a_certificate_for_another_name(self):
        self.certificates.name_server('other.example.org')
        self.addCleanup(self.certificates.name_server, '127.0.0.1')
        granted = self.get(self.guest(lv.vnc()))
        self.assert_refused_by(self.proxy_daemon, granted, '[SSL: CERTIFICATE_VERIFY_FAILED]')
        self.assertIn("certificate is not valid for '127.0.0.1'", self.proxy_daemon.log())

    def test_a_proxy_without_vencrypt(self):
        granted = self.get(self.guest(lv.vnc()))
        proxy = self.proxy_with(vnc={'auth_schemes': 'none'})
        self.assert_refused_by(proxy, granted, 'no_common_scheme: security types [19]')
        self.connected(granted)

    # SPICE

    def test_spice_that_offers_tls(self):
        granted = self.assert_screen_works(self.waiting_guest(lv.spice()), 'spice-html5')
        self.assertEqual(['tls_port'], list(granted.options))
        self.assertNotEqual(str(granted.port), granted.options['tls_port'])

    def test_spice_that_requires_tls(self):
        for spice in (
            lv.spice(mode='secure'),
            lv.spice(channels="<channel name='main' mode='secure'/><channel name='inputs' mode='secure'/>"),
        ):
            domain = self.waiting_guest(spice)
            granted = self.assert_screen_works(domain, 'spice-html5')
            self.assertEqual('true', granted.options['use_tls'])
            self.assertEqual(1, self.sessions_of(domain))
            self.remove(domain)
            self.bios_log.unlink()

    def sessions_of(self, domain):
        query = 'SELECT COUNT(*) FROM console_session WHERE instance_uuid = :uuid'
        return self.rows(query, uuid=domain.UUIDString())[0][0]
