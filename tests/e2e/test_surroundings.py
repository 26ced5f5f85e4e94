# SPDX-License-Identifier: Apache-2.0
"""The console pages where a browser or a frame forbids something: each works, or says why it does not."""

import contextlib

from selenium.webdriver.common.action_chains import ActionChains

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.serial_guest import SerialGuest
from consoled.testing.guests.vnc_guest import VncGuest
from tests.e2e import base

PAGES = (('novnc', 'novnc.html'), ('serial', 'serial.html'), ('spice-html5', 'spice.html'))

NO_STORAGE = """
const denied = [[window, 'localStorage'], [window, 'sessionStorage'], [Document.prototype, 'cookie']];
for (const [owner, name] of denied) {
  Object.defineProperty(owner, name, {
    configurable: true,
    get() { throw new DOMException('denied', 'SecurityError'); },
  });
}
"""
NO_COPYING = "Clipboard.prototype.writeText = () => Promise.reject(new DOMException('', 'NotAllowedError'));"
NO_WEBSOCKET = 'delete window.WebSocket;'
FORBIDDEN_WEBSOCKET = """
window.WebSocket = new Proxy(WebSocket, {
  construct() { throw new DOMException('denied', 'SecurityError'); },
});
"""
# As a load balancer may add it. Chromium tells the page by nothing but the state of the websocket.
FORBIDDEN_BY_POLICY = """
new MutationObserver((_, observer) => {
  if (document.head !== null) {
    observer.disconnect();
    const policy = document.createElement('meta');
    policy.httpEquiv = 'Content-Security-Policy';
    policy.content = "connect-src 'none'";
    document.head.append(policy);
  }
}).observe(document, { childList: true, subtree: true });
"""


class SurroundingsTest(base.BrowserTestCase):
    proxy_options = {
        'proxy': {**base.PAGES, 'close_timeout': 1, 'frame_ancestors': "'self',http://127.0.0.1:*"}
    }

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.desktop = cls.guests.add(VncGuest(name='desktop'))

    def dashboard(self, frame):
        """Serve a page with a frame, and open it."""
        url = self.serve_page(f'<!doctype html><title>d</title>{frame}')
        self.addCleanup(self.browser.driver.switch_to.default_content)
        self.browser.open(url)
        self.browser.driver.switch_to.frame(0)

    @contextlib.contextmanager
    def first(self, script):
        """Run a script in each page before its own."""
        execute = self.browser.driver.execute_cdp_cmd
        added = execute('Page.addScriptToEvaluateOnNewDocument', {'source': script})
        try:
            yield
        finally:
            execute('Page.removeScriptToEvaluateOnNewDocument', added)

    def text(self):
        return self.browser.driver.find_element('css selector', 'body').text

    def drawn(self):
        """Return the text that the browser draws, also of a page that runs no script."""
        snapshot = self.browser.driver.execute_cdp_cmd(
            'DOMSnapshot.captureSnapshot', {'computedStyles': ['display']}
        )
        strings = snapshot['strings']
        layouts = [document['layout']['text'] for document in snapshot['documents']]
        return ' '.join(strings[index] for layout in layouts for index in layout if index >= 0)

    def test_a_frame_whose_sandbox_is_too_strict(self):
        for console_type, page in PAGES:
            url = self.grant(self.desktop, console_type, page).access_url
            self.dashboard(f'<iframe sandbox="allow-scripts" src="{url}"></iframe>')
            self.browser.wait_for_state('ended', 'sandboxed')
            self.assertIn('allow-same-origin', self.text())

    def test_a_browser_without_scripts(self):
        execute = self.browser.driver.execute_cdp_cmd
        self.addCleanup(execute, 'Emulation.setScriptExecutionDisabled', {'value': False})
        for console_type, page in PAGES:
            execute('Emulation.setScriptExecutionDisabled', {'value': True})
            self.browser.open(self.grant(self.desktop, console_type, page).access_url)
            wait_until(lambda: 'requires JavaScript' in self.drawn(), what='what is missing')
            self.assertNotIn('Loading', self.drawn())

    def test_a_frame_that_allows_enough(self):
        url = self.grant(self.desktop, 'novnc', 'novnc.html').access_url
        self.dashboard(f'<iframe sandbox="allow-scripts allow-same-origin" src="{url}"></iframe>')
        self.browser.wait_for_state('connected')
        self.browser.driver.switch_to.default_content()
        self.browser.open('about:blank')
        wait_until(lambda: self.count('console_session') == 0, what='the end of the session')

    def test_pages_without_storage(self):
        (x, y), colour = VncGuest.MARK
        router = self.guests.add(SerialGuest(name='router'))
        with self.first(NO_STORAGE):
            for page in ('vnc.html', 'vnc_lite.html', 'novnc.html'):
                self.browser.open(self.grant(self.desktop, 'novnc', f'{page}?autoconnect=1').access_url)
                wait_until(lambda: self.browser.pixel('canvas', x, y) == colour, what='the picture')
            self.browser.open(self.grant(router, 'serial', 'serial.html').access_url)
            self.browser.wait_for_state('connected')

    def test_a_terminal_that_may_not_copy(self):
        router = self.guests.add(SerialGuest(name='router'))
        with self.first(NO_COPYING):
            self.browser.open(self.grant(router, 'serial', 'serial.html').access_url)
            wait_until(lambda: 'router>' in self.browser.terminal(), what='the prompt')
            row = self.browser.driver.find_element('css selector', '.xterm-rows > div')
            ActionChains(self.browser.driver).move_to_element(row).double_click().perform()
            self.browser.driver.execute_script("document.getElementById('copy').disabled = false")
            self.browser.driver.find_element('id', 'copy').click()
            wait_until(lambda: 'not allow copying' in self.browser.text_of('state'), what='what is wrong')
        self.assertEqual([], self.browser.violations())

    def test_pages_without_websockets(self):
        for script in (NO_WEBSOCKET, FORBIDDEN_WEBSOCKET, FORBIDDEN_BY_POLICY):
            with self.first(script):
                for console_type, page in PAGES:
                    self.browser.open(self.grant(self.desktop, console_type, page).access_url)
                    self.browser.wait_for_state('ended')
                    self.assertIn('no_websocket', self.browser.state, (page, script))

    def test_a_part_of_a_page_that_cannot_be_loaded(self):
        execute = self.browser.driver.execute_cdp_cmd
        execute('Network.enable', {})
        self.addCleanup(execute, 'Network.setBlockedURLs', {'urls': []})
        for console_type, page, part in (
            ('novnc', 'novnc.html', '*/core/inflator.js'),
            ('spice-html5', 'spice.html', '*/spice/main.js'),
            ('serial', 'serial.html', '*/xterm.js'),
            ('novnc', 'novnc.html', '*/page.js'),
        ):
            execute('Network.setBlockedURLs', {'urls': [part]})
            self.browser.open(self.grant(self.desktop, console_type, page).access_url)
            wait_until(lambda: 'could not be loaded' in self.text(), what=f'what is wrong without {part}')

    def test_addresses_that_make_no_sense(self):
        for query, reason in (
            ('', 'bad_address'),
            ('path=http%3A%2F%2F%5B', 'bad_address'),
            ('path=%2F%2Felsewhere.example%2F%3Ftoken%3D' + 'x' * 43, 'bad_address'),
            (f'path=blob:{self.url}/', 'bad_address'),
            ('token=short', 'invalid_token'),
            ('token=' + 'x' * 42 + '%22', 'invalid_token'),
        ):
            for page in ('novnc.html', 'serial.html', 'spice.html'):
                self.browser.open(f'{self.url}/{page}?{query}')
                self.browser.wait_for_state('ended', reason)
