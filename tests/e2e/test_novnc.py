# SPDX-License-Identifier: Apache-2.0
"""A guest's VNC screen in a real browser."""

import struct

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from consoled.rpc.replies import Revocation
from consoled.testing.fixtures import wait_until
from consoled.testing.guests import rfb_session
from consoled.testing.guests.vnc_guest import VncGuest
from tests.e2e import base

CANVAS = '#screen canvas'

# A framebuffer update with one rectangle in Tight encoding that uses the gradient filter.
GRADIENT = struct.pack('>BxHHHHHiBB', 0, 1, 0, 0, 64, 64, 7, 0x40, 2) + bytes(100)
NO_SUCH_MESSAGE = b'\xc8' + bytes(100)
# Clipboard of the extended form: its text is not compressed as it has to be. noVNC 1.3 throws an error.
CLIPBOARD = struct.pack('>BxxxiI', 3, -104, 0x10000001) + b'\xff' * 100


# Notes the key events that noVNC sends, as [keysym, pressed], and stops all timers.
_STOPPED = """
const send = WebSocket.prototype.send;
window.keys = [];
WebSocket.prototype.send = function (data) {
  const view = data instanceof ArrayBuffer ? new DataView(data) : new DataView(data.buffer, data.byteOffset);
  if (view.getUint8(0) === 4) window.keys.push([view.getUint32(4), view.getUint8(1)]);
  return send.call(this, data);
};
window.setTimeout = () => 0;
"""
_DIALOG = """
const [text, action] = arguments;
document.getElementById('paste').click();
document.getElementById('text').select();
document.execCommand('insertText', false, text);
document.querySelector(`#text-dialog button[value="${action}"]`).click();
return document.getElementById('text-dialog').open;
"""
_CANCEL = """
document.querySelector('#text-dialog button').click();
return document.getElementById('text-dialog').open;
"""
# Clicks on "Try again" as soon as there is such a button.
_DOUBLE_CLICK = """
window.clicks = 0;
const retry = document.getElementById('retry');
new MutationObserver(() => {
  if (!document.getElementById('notice').hidden) {
    window.clicks += 1;
    retry.click();
  }
}).observe(document.getElementById('notice'), { attributes: true });
"""


class StrangeGuest(VncGuest):
    """A guest whose display sends the same bytes to everybody who connects."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    async def serve(self, reader, writer):
        await rfb_session.secure(reader, writer, (rfb_session.NONE,), None)
        await rfb_session.RfbSession(self, reader, writer).open()
        await reader.read(1)  # noVNC reads nothing after the handshake before it gets something more
        writer.write(self.data)
        while await reader.read(1000):
            pass


class NoVncTest(base.BrowserTestCase):
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

    def test_the_screen_is_shown_and_keys_reach_the_guest(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.wait_for_picture()
        box = VncGuest.TEXT_BOX
        before = self.browser.picture(CANVAS, *box)
        typed = self.desktop.text
        self.type('hello consoled')
        wait_until(lambda: self.desktop.text.endswith(typed + 'hello consoled'), what='the keys')
        wait_until(lambda: self.browser.picture(CANVAS, *box) != before, what='the typed text on the screen')
        self.assertEqual([], self.browser.violations())

    def test_the_pointer_reaches_the_guest(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.wait_for_picture()
        canvas = self.browser.driver.find_element(By.CSS_SELECTOR, CANVAS)
        ActionChains(self.browser.driver).move_to_element(canvas).click().perform()
        wait_until(lambda: self.desktop.pointer is not None, what='the pointer')

    def test_a_view_only_user_sends_no_input(self):
        self.open(mode='view')
        self.browser.wait_for_state('connected')
        self.wait_for_picture()
        before = len(self.desktop.keys)
        self.type('nothing of this')
        updates = self.desktop.updates
        # The guest's clock changes the screen. Input on the same connection would have arrived before that.
        wait_until(lambda: self.desktop.updates > updates + 1, what='an update of the screen')
        self.assertEqual(before, len(self.desktop.keys))

    def test_the_page_shows_why_a_user_is_refused(self):
        self.browser.open(f'{self.url}/novnc.html?path=%3Ftoken%3D' + 'x' * 43)
        self.browser.wait_for_state('ended', 'invalid_token')
        self.assertIn('not valid or has expired', self.browser.text_of('why'))

    def test_invariant_5_the_page_shows_why_a_session_was_cut(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.wait_for_picture()
        self.assertEqual(Revocation(tokens=1, sessions=1), self.revoke())
        self.browser.wait_for_state('ended', 'revoked')
        self.assertIn('was revoked', self.browser.text_of('why'))
        self.browser.driver.refresh()
        self.browser.wait_for_state('ended', 'invalid_token')

    def test_a_guest_that_is_switched_off(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.guests.disconnect(self.desktop)
        self.browser.wait_for_state('ended', 'console_ended')

    def test_a_display_that_noVNC_cannot_show(self):  # noqa: N802 - the name of a product
        for data in (GRADIENT, NO_SUCH_MESSAGE, CLIPBOARD):
            guest = self.guests.add(StrangeGuest(data))
            self.browser.open(self.grant(guest, 'novnc', 'novnc.html').access_url)
            self.browser.wait_for_state('ended', 'display_error')
            self.assertIn('does not understand', self.browser.text_of('why'))

    def test_typing_that_was_meant_for_the_guest_does_not_open_the_console_again(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.wait_for_picture()
        self.type('cd /t')
        opened = self.desktop.connections
        self.guests.disconnect(self.desktop)
        self.browser.wait_for_state('ended', 'console_ended')
        self.type(f'mp{Keys.TAB}{Keys.ENTER} {Keys.TAB} {Keys.ENTER}')
        self.assertEqual(('ended', 'console_ended'), self.browser.state)
        self.assertEqual(opened, self.desktop.connections)
        pause = 1.1  # seconds without a key
        keys = ActionChains(self.browser.driver).pause(pause).send_keys(Keys.TAB)
        keys.pause(pause).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT)
        keys.pause(pause).send_keys(Keys.TAB).pause(pause).send_keys(' ').perform()
        self.browser.wait_for_state('connected')
        self.type('x')
        wait_until(lambda: self.desktop.text.endswith('x'), what='the key')

    def test_a_click_that_was_meant_for_the_guest_does_not_open_the_console_again(self):
        self.open()
        self.browser.wait_for_state('connected')
        self.browser.driver.execute_script(_DOUBLE_CLICK)
        opened = self.desktop.connections
        self.guests.disconnect(self.desktop)
        self.browser.wait_for_state('ended', 'console_ended')
        retry = self.browser.driver.find_element(By.ID, 'retry')
        wait_until(retry.is_enabled, what='the button')
        self.assertEqual(1, self.browser.driver.execute_script('return window.clicks'))
        self.assertEqual(opened, self.desktop.connections)
        retry.click()
        self.browser.wait_for_state('connected')

    def test_a_key_that_is_typed_is_released_at_once(self):
        """A hidden page may be stopped between two timers, and guests repeat keys that are held."""
        self.open()
        self.browser.wait_for_state('connected')
        self.browser.driver.execute_script(_STOPPED)
        self.browser.driver.execute_script(_DIALOG, 'Ab', 'type')
        shift, character = 0xFFE1, ord('A')
        wanted = [[shift, 1], [character, 1], [character, 0]]
        sent = 'return window.keys'
        wait_until(lambda: self.browser.driver.execute_script(sent) == wanted, what='the keys')

    def test_the_end_of_a_long_text_is_not_lost(self):
        self.open()
        self.browser.wait_for_state('connected')
        text = 'x' * 9000 + 'end'
        self.assertFalse(self.browser.driver.execute_script(_DIALOG, text, 'clipboard'))
        wait_until(lambda: self.desktop.cut_text == text, what='the clipboard')
        still_open = self.browser.driver.execute_script(_DIALOG, 'x' * 100_001, 'clipboard')
        self.assertTrue(still_open, 'a text that is too long was sent')
        self.assertFalse(self.browser.driver.execute_script(_CANCEL))
        self.assertEqual(text, self.desktop.cut_text)

    def test_novncs_own_page_works_too(self):
        self.open('vnc_lite.html?scale=true')
        self.wait_for_picture('canvas')
        self.assertEqual([], self.browser.violations())

    def test_query_parameters_cannot_redirect_the_connection(self):
        """The parameters host, port and encrypt of noVNC's pages do not reach another server."""
        elsewhere = self.guests.add(VncGuest(name='evil'))
        for page in ('vnc_lite.html', 'vnc.html', 'novnc.html'):
            grant = self.grant(self.desktop, 'novnc', page)
            joined = f'{grant.access_url}&host=127.0.0.1&port={elsewhere.port}&encrypt=0&autoconnect=1'
            self.browser.open(joined)
            wait_until(lambda: self.browser.driver.execute_script('return document.readyState') == 'complete')
        self.guests.settle()
        self.assertEqual(0, elsewhere.connections)
        self.assertIn('connect-src', ''.join(self.browser.violations()))

    def test_the_page_refuses_a_path_to_another_host(self):
        elsewhere = self.guests.add(VncGuest(name='evil'))
        self.browser.open(f'{self.url}/novnc.html?path=//127.0.0.1:{elsewhere.port}/')
        self.browser.wait_for_state('ended', 'bad_address')
        self.guests.settle()
        self.assertEqual(0, elsewhere.connections)
