# SPDX-License-Identifier: Apache-2.0
"""A guest with several serial ports in a real browser: what a user is offered whose port is taken."""

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from consoled import objects
from consoled.rpc.replies import Closing
from consoled.testing.fixtures import wait_until
from consoled.testing.guests.serial_guest import SerialGuest
from tests.e2e import base
from tests.functional.base import COMPUTE_HOST

PAUSE = 1.1  # seconds without a key


class SerialPortsTest(base.BrowserTestCase):
    """A guest with four serial ports, of which the first, that of the token, is connected."""

    def setUp(self):
        super().setUp()
        routers = [self.guests.add(SerialGuest(name=f'router{number}')) for number in range(4)]
        for router in routers:
            self.addCleanup(self.guests.remove, router)
        self.routers = sorted(routers, key=lambda router: router.port)
        self.define()
        self.first = self.grant(self.routers[0], 'serial', 'serial.html')
        self.other = self.proxy()
        self.session = self.other.open(self.first.token)
        self.addCleanup(lambda: self.close(self.session))

    def define(self, routers=None):
        consoles = [
            objects.ConsoleConnection(
                instance_uuid=self.instance,
                console_type='serial',
                host='127.0.0.1',
                port=router.port,
                compute_host=COMPUTE_HOST,
                access_url_base=f'{self.url}/serial.html',
                options={},
            )
            for router in routers or self.routers
        ]
        wanted = objects.ConsoleConnectionList(objects=consoles)
        self.api.define_consoles(self.context, self.instance, COMPUTE_HOST, wanted, wait=True)

    def close(self, session):
        self.api.close_session(self.context, Closing(session.id, 'user_left'))

    def refused(self):
        self.browser.open(self.first.access_url)
        self.browser.wait_for_state('ended', 'console_in_use')

    def buttons(self):
        """Return the buttons of the free ports by their text."""
        found = self.browser.driver.find_elements('css selector', '#ports button')
        return {button.text: button for button in found if button.is_displayed()}

    def choose(self, number):
        button = self.buttons()[f'Open serial port {number}']
        wait_until(button.is_enabled, what='the button')
        button.click()

    def wait_for_port(self, number):
        """Wait until the page shows this port and says so."""
        self.browser.wait_for_state('connected')
        text = f'{self.routers[number - 1].name}>'
        wait_until(lambda: text in self.browser.terminal(), what=text)
        wait_until(lambda: self.title() == f'Serial port {number} - Console', what='the title')
        self.assertEqual(f'Connected to serial port {number}', self.browser.text_of('state'))

    def title(self):
        return self.browser.driver.title

    def test_free_ports_are_offered_and_a_click_opens_one(self):
        self.refused()
        self.assertIn('in use since', self.browser.text_of('why'))
        self.assertEqual('Other serial ports of this guest are free: 2, 3, 4.', self.browser.text_of('free'))
        self.assertEqual([f'Open serial port {number}' for number in (2, 3, 4)], list(self.buttons()))
        self.assertEqual(1, self.count('console_session'), 'nothing is opened before the user chooses')
        self.choose(3)
        self.wait_for_port(3)
        ActionChains(self.browser.driver).send_keys('show version\n').perform()
        wait_until(lambda: b'show version' in bytes(self.routers[2].received), what='the keys')
        self.assertEqual([b''] * 3, [bytes(self.routers[other].received) for other in (0, 1, 3)])
        self.assertEqual([], self.browser.violations())

    def test_the_last_free_port_is_named(self):
        self.define(self.routers[:2])
        self.refused()
        self.assertEqual('Serial port 2 of 2 is free.', self.browser.text_of('free'))
        self.choose(2)
        self.wait_for_port(2)

    def test_a_port_is_opened_with_the_keyboard(self):
        self.refused()
        wait_until(self.buttons()['Open serial port 2'].is_enabled, what='the button')
        ActionChains(self.browser.driver).pause(PAUSE).send_keys(Keys.TAB).perform()
        self.assertEqual('Open serial port 2', self.browser.driver.switch_to.active_element.text)
        ActionChains(self.browser.driver).pause(PAUSE).send_keys(Keys.ENTER).perform()
        self.wait_for_port(2)

    def test_a_port_that_was_taken_meanwhile_is_not_switched_for_another(self):
        self.refused()
        taken = self.other.open(self.first.token, serial_port=2)
        self.choose(2)
        self.browser.wait_for_state('ended', 'console_in_use')
        wait_until(
            lambda: list(self.buttons()) == ['Open serial port 3', 'Open serial port 4'], what='the rest'
        )
        self.assertEqual(2, self.count('console_session'))
        self.close(taken)
        retry = self.browser.driver.find_element('id', 'retry')
        wait_until(retry.is_enabled, what='the button')
        retry.click()
        self.wait_for_port(2)

    def test_after_a_port_that_is_not_there_any_more_the_one_of_the_token_can_be_tried(self):
        self.refused()
        self.define(self.routers[:2])
        self.choose(3)
        self.browser.wait_for_state('ended', 'console_gone')
        retry = self.browser.driver.find_element('id', 'retry')
        wait_until(retry.is_enabled, what='the button')
        retry.click()
        self.browser.wait_for_state('ended', 'console_in_use')
        self.assertEqual(['Open serial port 2'], list(self.buttons()))
        self.set(serial_console__other_ports='refuse')
        self.choose(2)
        self.browser.wait_for_state('ended', 'invalid_argument')
        wait_until(retry.is_enabled, what='the button')
        retry.click()
        self.browser.wait_for_state('ended', 'console_in_use')
        self.assertEqual({}, self.buttons())

    def test_nothing_is_offered_if_the_operator_refuses_or_no_port_is_free(self):
        self.set(serial_console__other_ports='refuse')
        self.refused()
        self.assertEqual({}, self.buttons())
        self.set(serial_console__other_ports='offer')
        self.define(self.routers[:1])
        self.refused()
        self.assertEqual({}, self.buttons())
        self.assertFalse(self.browser.driver.find_element('id', 'free').is_displayed())

    def test_the_session_of_a_chosen_port_is_cut_with_its_token(self):
        self.refused()
        self.choose(2)
        self.wait_for_port(2)
        self.api.revoke(self.context, 'left_the_project', project_id='project-1')
        self.browser.wait_for_state('ended', 'revoked')

    def test_the_next_free_port_is_opened_and_named(self):
        self.set(serial_console__other_ports='next')
        self.browser.open(f'{self.first.access_url}&title=Router')
        self.browser.wait_for_state('connected')
        wait_until(lambda: self.title() == 'Serial port 2 - Router', what='the title')
        self.assertEqual('Connected to serial port 2', self.browser.text_of('state'))
        wait_until(lambda: f'{self.routers[1].name}>' in self.browser.terminal(), what='the prompt')
        self.assertNotIn('serial_port', self.browser.terminal())
        self.close(self.session)
        self.guests.disconnect(self.routers[1])
        self.browser.wait_for_state('ended')
        retry = self.browser.driver.find_element('id', 'retry')
        wait_until(retry.is_enabled, what='the button')
        retry.click()
        self.browser.wait_for_state('connected')
        wait_until(lambda: f'{self.routers[0].name}>' in self.browser.terminal(), what='the prompt')
        self.assertEqual(('Router', 'Connected'), (self.title(), self.browser.text_of('state')))
