# SPDX-License-Identifier: Apache-2.0
"""A guest's screen in a real browser."""

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.vnc_guest import VncGuest
from tests.e2e import base

CANVAS = '#screen canvas'


class NoVncTest(base.CellCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.desktop = cls.guests.add(VncGuest(name='desktop'))

    def open(self, page='novnc.html', **options):
        grant = self.grant(self.desktop, 'novnc', page, **options)
        self.browser.open(grant.access_url)
        return grant

    def wait_for_picture(self, canvas=CANVAS):
        (x, y), colour = VncGuest.MARK
        wait_until(lambda: self.browser.pixel(canvas, x, y) == colour, what='the picture of the guest')

    def type(self, text):
        ActionChains(self.browser.driver).send_keys(text).perform()

    def test_the_guest_is_seen_and_its_keys_arrive(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.wait_for_picture()
        box = VncGuest.TEXT_BOX
        before = self.browser.picture(CANVAS, *box)
        typed = self.desktop.text
        self.type('hello consoled')
        wait_until(lambda: self.desktop.text.endswith(typed + 'hello consoled'), what='the keys')
        wait_until(lambda: self.browser.picture(CANVAS, *box) != before, what='the typed text on the screen')
        self.assertEqual([], self.browser.complaints())

    def test_the_pointer_arrives(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.wait_for_picture()
        canvas = self.browser.driver.find_element(By.CSS_SELECTOR, CANVAS)
        ActionChains(self.browser.driver).move_to_element(canvas).click().perform()
        wait_until(lambda: self.desktop.pointer is not None, what='the pointer')

    def test_a_viewer_sees_and_does_nothing(self):
        self.open(mode='view')
        self.browser.wait_for_state('connected')
        self.wait_for_picture()
        before = len(self.desktop.keys)
        self.type('nothing of this')
        updates = self.desktop.updates
        # the clock ticks: what was typed before has gone the same way by then
        wait_until(lambda: self.desktop.updates > updates + 1, what='an update of the screen')
        self.assertEqual(before, len(self.desktop.keys))

    def test_a_refused_user_reads_why(self):
        self.browser.open(f'{self.url}/novnc.html?path=%3Ftoken%3D' + 'x' * 43)
        self.browser.wait_for_state('ended', 'invalid_token')
        self.assertIn('not valid or has expired', self.browser.text_of('why'))

    def test_invariant_5_a_cut_session_ends_and_says_why(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.wait_for_picture()
        self.assertEqual({'tokens': 1, 'sessions': 1}, self.revoke())
        self.browser.wait_for_state('ended', 'revoked')
        self.assertIn('was taken back', self.browser.text_of('why'))
        self.browser.driver.refresh()
        self.browser.wait_for_state('ended', 'invalid_token')

    def test_a_guest_that_is_switched_off(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.guests.disconnect(self.desktop)
        self.browser.wait_for_state('ended', 'console_ended')

    def test_pages_of_novnc_itself_work_as_well(self):
        self.open('vnc_lite.html?scale=true')
        self.wait_for_picture('canvas')
        self.assertEqual([], self.browser.complaints())

    def test_the_address_has_no_power_over_the_host(self):
        """host, port and encrypt of noVNC's page can't make it talk to somebody else."""
        elsewhere = self.guests.add(VncGuest(name='evil'))
        for page in ('vnc_lite.html', 'vnc.html', 'novnc.html'):
            grant = self.grant(self.desktop, 'novnc', page)
            joined = f'{grant.access_url}&host=127.0.0.1&port={elsewhere.port}&encrypt=0&autoconnect=1'
            self.browser.open(joined)
            wait_until(lambda: self.browser.driver.execute_script('return document.readyState') == 'complete')
        self.guests.settle()
        self.assertEqual(0, elsewhere.connections)
        self.assertIn('connect-src', ''.join(self.browser.complaints()))

    def test_a_path_that_leads_elsewhere_is_refused_by_the_page(self):
        elsewhere = self.guests.add(VncGuest(name='evil'))
        self.browser.open(f'{self.url}/novnc.html?path=//127.0.0.1:{elsewhere.port}/')
        self.browser.wait_for_state('ended', 'bad_address')
        self.guests.settle()
        self.assertEqual(0, elsewhere.connections)
