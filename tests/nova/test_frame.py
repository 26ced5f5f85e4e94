# SPDX-License-Identifier: Apache-2.0
"""Consoles in Horizon's pages, which come from another port of the proxy's host.

Where the token comes from makes no difference, so these are consoled's own.
"""

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.serial_guest import SerialGuest
from consoled.testing.guests.vnc_guest import VncGuest
from tests.e2e import base, firefox
from tests.nova import frames

FOREIGN = 'localhost'  # a page of it has another host than the proxy, 127.0.0.1


class ChromiumTest(base.BrowserTestCase):
    proxy_options = {'proxy': {**base.PAGES, 'match_origin_by_host': True}}

    def open_page(self, page, host):
        """Open a page of a dashboard with this host name."""
        self.browser.open(self.serve_page(page).replace('127.0.0.1', host))

    def add(self, guest):
        self.guests.add(guest)
        self.addCleanup(self.guests.remove, guest)
        return guest

    def open_frame(self, page='vnc_auto.html', host='127.0.0.1'):
        """Open a page with a console in a frame, and look into the frame."""
        desktop = self.add(VncGuest())
        self.open_page(frames.frame(self.grant(desktop, 'novnc', page).access_url), host)
        self.addCleanup(self.browser.leave_frame)
        self.browser.enter_frame()
        return desktop

    def wait_for_picture(self):
        (x, y), colour = VncGuest.MARK
        wait_until(lambda: self.browser.pixel('#screen canvas', x, y) == colour, what='the picture')

    def test_a_screen_in_a_frame(self):
        desktop = self.open_frame()
        self.browser.wait_for_state('connected')
        self.wait_for_picture()
        self.assertEqual('guest(1)', self.browser.text_of('title'))
        self.assertEqual(1, desktop.connections)

    def test_a_screen_in_a_frame_by_novncs_own_page(self):
        self.open_frame('vnc_lite.html')
        self.wait_for_picture()

    def test_a_screen_in_a_frame_of_a_foreign_host(self):
        """The browser shows nothing: the page does not even begin to load."""
        desktop = self.open_frame(host=FOREIGN)
        self.assertIsNone(self.browser.state[0])
        self.guests.settle()
        self.assertEqual(0, desktop.connections)

    def open_serial(self, host='127.0.0.1'):
        router = self.add(SerialGuest(name='router'))
        url = self.grant(router, 'serial', '').access_url.replace('http:', 'ws:')
        self.open_page(frames.serial(url), host)
        return router

    def test_a_serial_console_in_horizons_own_page(self):
        self.open_serial()
        self.browser.wait_for_state('connected')
        wait_until(lambda: 'router>' in self.browser.text_of('terminal'), what='the prompt')

    def test_a_serial_console_in_a_page_of_a_foreign_host(self):
        router = self.open_serial(FOREIGN)
        self.browser.wait_for_state('ended', '1006')
        self.guests.settle()
        self.assertEqual(0, router.connections)


class FirefoxTest(ChromiumTest):
    browser_fixture = firefox.Firefox
