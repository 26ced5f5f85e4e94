# SPDX-License-Identifier: Apache-2.0
"""The URLs that Nova hands out, in a browser."""

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.serial_guest import SerialGuest
from consoled.testing.guests.vnc_guest import VncGuest
from tests.e2e import base

_REASON = "return document.getElementById('consoled-reason')?.textContent ?? null"


class NovaUrlsTest(base.BrowserTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.desktop = cls.guests.add(VncGuest(name='desktop'))
        cls.router = cls.guests.add(SerialGuest(name='router'))

    def wait_for_picture(self, canvas='canvas'):
        (x, y), colour = VncGuest.MARK
        wait_until(lambda: self.browser.pixel(canvas, x, y) == colour, what='the picture of the guest')

    def with_token(self, page, guest, console_type):
        """Return the URL of a page with the query argument ``token``, as Nova wrote it before noVNC 1.1."""
        return f'{self.url}/{page}?token={self.grant(guest, console_type, page).token}'

    def reason(self):
        return self.browser.driver.execute_script(_REASON)

    def test_vnc_auto_is_our_page_which_takes_the_token_in_both_arguments(self):
        for url in (
            self.grant(self.desktop, 'novnc', 'vnc_auto.html').access_url,
            self.with_token('vnc_auto.html', self.desktop, 'novnc') + '&title=web(0f9a4e4e)',
        ):
            self.browser.open(url)
            self.browser.wait_for_state('connected')
            self.wait_for_picture('#screen canvas')
        self.assertEqual('web(0f9a4e4e)', self.browser.driver.title)

    def test_vnc_lite_takes_the_token_in_both_arguments(self):
        for url in (
            self.grant(self.desktop, 'novnc', 'vnc_lite.html').access_url,
            self.with_token('vnc_lite.html', self.desktop, 'novnc'),
            self.with_token('novnc/vnc_lite.html', self.desktop, 'novnc'),
        ):
            self.browser.open(url)
            self.wait_for_picture()
        self.assertEqual([], self.browser.violations())

    def test_novncs_own_pages_show_why_a_session_was_cut(self):
        self.browser.open(self.grant(self.desktop, 'novnc', 'vnc_lite.html').access_url)
        self.wait_for_picture()
        self.revoke()
        wait_until(self.reason, what='the reason')
        self.assertIn('was revoked', self.reason())

    def test_novncs_own_pages_show_why_a_websocket_was_refused(self):
        grant = self.grant(self.desktop, 'novnc', 'vnc_lite.html')
        self.revoke()
        self.browser.open(grant.access_url)
        wait_until(self.reason, what='the reason')
        self.assertIn('not valid or has expired', self.reason())

    def test_pages_without_a_token_say_so(self):
        self.browser.open(f'{self.url}/vnc_lite.html')
        wait_until(self.reason, what='the reason')
        self.assertIn('has no token', self.reason())
        for query in ('', '?path=websockify'):
            self.browser.open(f'{self.url}/vnc_auto.html{query}')
            self.browser.wait_for_state('ended', 'bad_address')
            self.assertIn('has no token', self.browser.text_of('why'))

    def test_the_url_of_a_serial_websocket_pasted_into_a_browser_shows_the_terminal(self):
        self.browser.open(self.with_token('', self.router, 'serial'))
        self.browser.wait_for_state('connected')
        wait_until(lambda: 'router>' in self.browser.terminal(), what='the prompt')
        self.assertEqual([], self.browser.violations())

    def test_the_url_of_another_websocket_pasted_into_a_browser(self):
        self.browser.open(self.with_token('', self.desktop, 'novnc'))
        self.browser.wait_for_state('ended', 'wrong_page')
        self.assertIn('the screen of a guest', self.browser.text_of('why'))
        wait_until(lambda: self.count('console_session') == 0, what='the end of the session')
