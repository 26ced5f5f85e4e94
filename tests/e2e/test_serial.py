# SPDX-License-Identifier: Apache-2.0
"""The serial console in a real browser."""

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.serial_guest import SerialGuest
from tests.e2e import base


class SerialTest(base.BrowserTestCase):
    def setUp(self):
        super().setUp()
        self.router = self.guests.add(SerialGuest(name='router'))
        self.addCleanup(self.guests.remove, self.router)

    def open(self):
        grant = self.grant(self.router, 'serial', 'serial.html')
        self.browser.open(grant.access_url)
        return grant

    def wait_for_text(self, text):
        wait_until(lambda: text in self.browser.terminal(), what=f'{text} in {self.browser.terminal()}')

    def type(self, text):
        ActionChains(self.browser.driver).send_keys(text).perform()

    def test_the_terminal_shows_input_and_output(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.wait_for_text('router>')
        self.type('show version\n')
        self.wait_for_text('router> show version')
        wait_until(lambda: b'show version' in bytes(self.router.received), what='the keys')
        self.assertEqual([], self.browser.violations())

    def test_invariant_3_a_second_user_sees_that_the_port_is_in_use(self):
        self.open()
        self.browser.wait_for_state('connected')
        grant = self.grant(self.router, 'serial', 'serial.html')
        first = self.browser.driver.current_window_handle
        self.browser.driver.switch_to.new_window('tab')
        self.addCleanup(self.browser.driver.switch_to.window, first)
        self.addCleanup(self.browser.driver.close)
        self.browser.open(grant.access_url)
        self.browser.wait_for_state('ended', 'console_in_use')
        self.assertIn('in use since', self.browser.text_of('why'))

    def test_invariant_5_the_page_shows_why_a_session_was_cut(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.revoke()
        self.browser.wait_for_state('ended', 'revoked')
        self.assertIn('was revoked', self.browser.text_of('why'))

    def test_the_notice_has_the_focus_and_can_be_left_with_the_tab_key(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.browser.driver.find_element('id', 'paste').click()
        self.guests.disconnect(self.router)
        self.browser.wait_for_state('ended', 'console_ended')
        wait_until(self.browser.driver.find_element('id', 'retry').is_enabled, what='the button')
        self.assertEqual('notice', self.focus())
        self.browser.driver.execute_script("document.querySelector('.xterm-helper-textarea').focus()")
        pause = 1.1  # seconds without a key
        ActionChains(self.browser.driver).pause(pause).send_keys(Keys.TAB).perform()
        self.assertEqual('retry', self.focus())

    def focus(self):
        return self.browser.driver.execute_script('return document.activeElement.id')

    def test_leaving_the_page_frees_the_port(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.browser.open('about:blank')
        wait_until(lambda: self.count('console_session') == 0, what='the end of the session')
        self.open()
        self.browser.wait_for_state('connected')

    def test_the_page_shows_that_the_proxy_has_stopped(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.addCleanup(self.proxy_process.start)
        self.assertEqual(0, self.proxy_process.stop())
        self.browser.wait_for_state('ended', 'proxy_restart')
        self.assertEqual(0, self.count('console_session'))
