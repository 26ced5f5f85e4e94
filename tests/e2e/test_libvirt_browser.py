# SPDX-License-Identifier: Apache-2.0
"""Guests of libvirt in a real browser, opened as the agent says: VNC, SPICE, serial; with TLS and without."""

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
from tests.functional.proxy_base import User, frame, handshake

REFUSED = {'code': 'target_failed', 'reason': "The guest's console cannot be reached.", 'retryable': True}


class BrowserCase(test_libvirt.AgentCase):
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
        self.browser.complaints()  # of the test before

    def waiting_guest(self, *devices, firmware=lv.BOOT_MENU):
        """A guest with these consoles whose BIOS waits for a key; the managers know it."""
        domain = self.new_guest(*devices, lv.bios_log(self.bios_log), firmware=firmware)
        self.known(domain, len(devices))
        self.wait_for_bios(lv.ASKS)
        return domain

    def wait_for_bios(self, text):
        wait_until(lambda: text in self.bios_log.read_bytes(), what=f'the BIOS saying {text}')

    def open(self, domain, console_type):
        granted = self.get(domain, console_type)
        self.browser.open(granted.access_url)
        self.browser.wait_for_state('connected')
        return granted

    def press_escape(self):
        ActionChains(self.browser.driver).send_keys(Keys.ESCAPE).perform()

    def assert_seen_and_heard(self, domain, console_type):
        """The guest's screen is on the page; a key reaches the guest, and what it does then is seen too."""
        granted = self.open(domain, console_type)
        self.browser.wait_for_text_on_screen()
        before = self.settled()
        self.assertNotIn(lv.ANSWERS, self.bios_log.read_bytes())
        self.press_escape()
        self.wait_for_bios(lv.ANSWERS)
        self.browser.wait_for_text_on_screen(before)
        self.assertEqual([], self.browser.complaints())
        return granted

    def settled(self):
        """How much is on the screen once all is there that the BIOS has said."""
        last = []

        def same_again():
            last.append(self.browser.lit())
            return len(last) > 5 and len(set(last[-5:])) == 1

        wait_until(same_again, what='a screen that stays as it is')
        return last[-1]

    def assert_refused_by(self, proxy, granted, reason):
        """The user gets 502 with a neutral text; the log of the proxy has the reason."""
        user = User(proxy.port)
        self.addCleanup(user.leave)
        user.send(handshake(f'/?token={granted.token}', Accept='application/json') + frame(b'secret'))
        answer = user.answer()
        self.assertEqual((502, REFUSED), (answer.status, json.loads(answer.body)))
        said = f'console {granted.host}:{granted.port}: {reason}'
        wait_until(lambda: said in proxy.log(), what=f'"{said}" in the log: {proxy.log()[-2000:]}')

    def proxy_with(self, **options):
        """Another proxy of the cell, which serves users."""
        proxy = self.useFixture(self.new_proxy(**options))
        proxy.wait_ready()
        return proxy


class BrowserTest(BrowserCase):
    def test_vnc(self):
        self.assert_seen_and_heard(self.waiting_guest(lv.vnc()), 'novnc')

    def test_spice(self):
        granted = self.assert_seen_and_heard(self.waiting_guest(lv.spice()), 'spice-html5')
        self.assertEqual({}, granted.options)

    def test_serial(self):
        domain = self.waiting_guest(lv.serial(services.free_port()), firmware=lv.TALKS)
        self.open(domain, 'serial')
        self.press_escape()
        self.wait_for_bios(lv.ANSWERS)
        text = lv.ANSWERS.decode()
        wait_until(lambda: text in self.browser.terminal(), what='the answer in the terminal')
        self.assertEqual([], self.browser.complaints())

    def test_a_guest_that_is_destroyed_is_said_to_have_ended(self):
        domain = self.waiting_guest(lv.vnc())
        self.open(domain, 'novnc')
        domain.destroy()
        self.browser.wait_for_state('ended')
        self.assertIn(self.browser.state[1], ('console_ended', 'console_gone'))

    def test_a_guest_without_tls_is_refused_where_the_policy_is_vencrypt(self):
        certificates = Certificates(self.useFixture(fixtures_library.TempDir()).path)
        proxy = self.proxy_with(vnc=vencrypt(certificates))
        granted = self.get(self.guest(lv.vnc()))
        self.assert_refused_by(proxy, granted, 'no_common_scheme: security types [1]')
        self.connected(granted)


def vencrypt(certificates, client=None):
    """The group [vnc] of a proxy that speaks nothing else."""
    mine = client or certificates.client
    return {
        'auth_schemes': 'vencrypt',
        'vencrypt_ca_certs': certificates.ca,
        'vencrypt_client_cert': mine,
        'vencrypt_client_key': mine,
    }


class TLSTest(BrowserCase):
    """QEMU demands certificates for VNC, and offers SPICE over TLS."""

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
        self.assert_seen_and_heard(self.waiting_guest(lv.vnc()), 'novnc')

    def test_a_proxy_that_the_guest_does_not_know(self):
        """QEMU looks at our certificate after the TLS handshake, and says nothing when it hangs up."""
        granted = self.get(self.guest(lv.vnc()))
        anonymous = vencrypt(self.certificates)
        del anonymous['vencrypt_client_cert'], anonymous['vencrypt_client_key']
        for options in (vencrypt(self.certificates, self.certificates.strangers), anonymous):
            reason = 'eof: security result, right after TLS: it may not accept our certificate'
            self.assert_refused_by(self.proxy_with(vnc=options), granted, reason)
        self.connected(granted)

    def test_a_guest_with_a_certificate_for_another_name(self):
        self.certificates.name_server('other.example.org')
        self.addCleanup(self.certificates.name_server, '127.0.0.1')
        granted = self.get(self.guest(lv.vnc()))
        self.assert_refused_by(self.proxy_daemon, granted, '[SSL: CERTIFICATE_VERIFY_FAILED]')
        self.assertIn("certificate is not valid for '127.0.0.1'", self.proxy_daemon.log())

    def test_a_proxy_that_does_not_speak_vencrypt(self):
        granted = self.get(self.guest(lv.vnc()))
        proxy = self.proxy_with(vnc={'auth_schemes': 'none'})
        self.assert_refused_by(proxy, granted, 'no_common_scheme: security types [19]')
        self.connected(granted)

    # SPICE

    def test_spice_that_may_be_had_with_and_without_tls(self):
        granted = self.assert_seen_and_heard(self.waiting_guest(lv.spice()), 'spice-html5')
        self.assertEqual(['tls_port'], list(granted.options))
        self.assertNotEqual(str(granted.port), granted.options['tls_port'])

    def test_spice_that_demands_tls(self):
        for spice in (
            lv.spice(mode='secure'),
            lv.spice(channels="<channel name='main' mode='secure'/><channel name='inputs' mode='secure'/>"),
        ):
            domain = self.waiting_guest(spice)
            granted = self.assert_seen_and_heard(domain, 'spice-html5')
            self.assertEqual('true', granted.options['use_tls'])
            self.assertEqual(1, self.sessions_of(domain))
            self.remove(domain)
            self.bios_log.unlink()

    def sessions_of(self, domain):
        query = 'SELECT COUNT(*) FROM console_session WHERE instance_uuid = :uuid'
        return self.rows(query, uuid=domain.UUIDString())[0][0]
