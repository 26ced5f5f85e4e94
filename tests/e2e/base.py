# SPDX-License-Identifier: Apache-2.0
"""Base of the end-to-end tests: a cell with a proxy daemon, guests, and a browser."""

import functools
import http.server
import pathlib
import shlex
import threading

import fixtures as fixtures_library
from selenium import webdriver
from selenium.webdriver.chrome import options as chrome_options
from selenium.webdriver.chrome import service as chrome_service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from consoled import objects
from consoled.db import models
from consoled.testing import daemons, service_process, services
from consoled.testing.fixtures import wait_until
from consoled.testing.guests.host import GuestHost
from tests.functional import base

NOVNC = '/usr/share/novnc'
SPICE = '/usr/share/spice-html5'
TERMINAL = '/usr/local/share/consoled/xterm'
PAGES = {'novnc_path': NOVNC, 'spice_path': SPICE, 'terminal_path': TERMINAL}

_FLAGS = (
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
    '--window-size=1000,800',
)

# The colour of one pixel of a canvas.
_PIXEL = """
const canvas = document.querySelector(arguments[0]);
return canvas && Array.from(canvas.getContext('2d').getImageData(arguments[1], arguments[2], 1, 1).data);
"""
_PICTURE = """
const canvas = document.querySelector(arguments[0]);
const [x, y, w, h] = arguments[1];
return Array.from(canvas.getContext('2d').getImageData(x, y, w, h).data).join();
"""

# How many pixels of the guest's screen are not black.
_LIT = """
let lit = 0;
for (const canvas of document.querySelectorAll('#screen canvas')) {
  if (!canvas.width || !canvas.height) continue;
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  for (let i = 0; i < data.length; i += 4) lit += data[i] + data[i + 1] + data[i + 2] > 150;
}
return lit;
"""
_ROWS = "return Array.from(document.querySelectorAll('.xterm-rows > div')).map(row => row.textContent)"
A_FEW_WORDS = 200  # pixels that a few words of a BIOS light up


def _mortal(program, directory):
    """Return a script that runs a program, which ends when whoever has started it does, even if killed."""
    command = [*service_process.death_prefix('TERM'), services.find_program(program)]
    path = pathlib.Path(directory, f'run-{program}')
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o700)
    return str(path)


class Browser(fixtures_library.Fixture):
    """Headless Chromium with an empty profile."""

    def _setUp(self):  # noqa: N802 - named by the library
        profile = self.useFixture(fixtures_library.TempDir()).path
        options = chrome_options.Options()
        options.binary_location = _mortal('chromium', profile)
        for flag in (*_FLAGS, f'--user-data-dir={profile}'):
            options.add_argument(flag)
        options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
        service = chrome_service.Service(_mortal('chromedriver', profile))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.addCleanup(self.driver.quit)

    def open(self, url):
        self.driver.get(url)

    def enter_frame(self):
        """Look into the first frame of the page, until ``leave_frame``."""
        self.driver.switch_to.frame(0)

    def leave_frame(self):
        self.driver.switch_to.default_content()

    def type(self, text):
        ActionChains(self.driver).send_keys(text).perform()

    def interrupt(self):
        """Press Ctrl+C."""
        ActionChains(self.driver).key_down(Keys.CONTROL).send_keys('c').key_up(Keys.CONTROL).perform()

    @property
    def state(self):
        """The state that the console page reports: (state, reason)."""
        root = 'document.documentElement.dataset'
        return tuple(self.driver.execute_script(f'return [{root}.state || null, {root}.reason || null]'))

    def wait_for_state(self, *wanted):
        """Wait until the page reports this state, and this reason if one is given."""
        wait_until(lambda: self.state[: len(wanted)] == wanted, what=f'{wanted}, first {self.state}')

    def text_of(self, element_id):
        return self.driver.execute_script(f"return document.getElementById('{element_id}').textContent")

    def pixel(self, selector, x, y):
        """Return a canvas pixel's colour as (red, green, blue), or None when there is no such canvas."""
        found = self.driver.execute_script(_PIXEL, selector, x, y)
        return found and tuple(found[:3])

    def picture(self, selector, x, y, width, height):
        """Return the pixels of a part of a canvas, for comparison."""
        return self.driver.execute_script(_PICTURE, selector, [x, y, width, height])

    def lit_pixels(self):
        """Return how many pixels of the guest's screen are not black."""
        return self.driver.execute_script(_LIT)

    def wait_for_text_on_screen(self, before=0):
        """Wait until the screen shows a few words more than when it had ``before`` lit pixels."""
        wait_until(lambda: self.lit_pixels() > before + A_FEW_WORDS, what='text on the screen')

    def terminal(self):
        """Return the text that the terminal shows."""
        rows = self.driver.execute_script(_ROWS)
        return '\n'.join(row.replace('\xa0', ' ').rstrip() for row in rows)

    def report(self):
        """Return the page's state and the browser's log, for the details of a failed test."""
        log = '\n'.join(entry['message'] for entry in self.driver.get_log('browser'))
        return f'{self.state}\n{log}'

    def violations(self):
        """Return the policy violations and uncaught errors in the browser's log since the last call."""
        return [
            entry['message']
            for entry in self.driver.get_log('browser')
            if 'Content Security Policy' in entry['message'] or 'Uncaught' in entry['message']
        ]


class _SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class BrowserTestCase(base.CellTestCase):
    """A manager on RabbitMQ and MariaDB in this process, a proxy daemon, guests, and a browser."""

    browser_fixture = Browser
    proxy_options: dict = {}
    options = {'manager__check_port': False}
    emptied = (models.instances,)  # the proxy's row stays: the daemon outlives the test

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.guests = GuestHost()
        cls.guests.start()
        cls.addClassCleanup(cls.guests.stop)
        cls.proxy_process = daemons.ProxyProcess(
            cls.bus, {'proxy': {**PAGES, 'close_timeout': 1}, **cls.proxy_options}
        )
        cls.proxy_process.setUp()
        cls.addClassCleanup(cls.proxy_process.cleanUp)
        cls.browser = cls.browser_fixture()
        cls.browser.setUp()
        cls.addClassCleanup(cls.browser.cleanUp)

    def setUp(self):
        super().setUp()
        self.proxy_process.wait_ready()
        self.browser.open('about:blank')
        self.browser.violations()  # discard those of the previous test
        wait_until(lambda: self.count('console_session') == 0, what='the end of earlier sessions')

    @property
    def url(self):
        return f'http://127.0.0.1:{self.proxy_process.port}'

    def grant(self, guest, console_type, page, ttl=None, **options):
        """Authorize a guest's console with the URL of a page, and return the token."""
        token = objects.ConsoleAuthToken(
            instance_uuid=self.instance,
            console_type=console_type,
            host='127.0.0.1',
            port=guest.port,
            compute_host=base.COMPUTE_HOST,
            access_url_base=f'{self.url}/{page}',
            options=options,
            user_id='user-1',
            project_id='project-1',
        )
        return self.api.authorize(self.context, token, ttl)

    def serve_page(self, page):
        """Serve a page of a dashboard, at another port of the proxy's host, and return its URL."""
        directory = self.useFixture(fixtures_library.TempDir()).path
        pathlib.Path(directory, 'index.html').write_text(page)
        handler = functools.partial(_SilentHandler, directory=directory)
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for cleanup in (thread.join, server.server_close, server.shutdown):
            self.addCleanup(cleanup)
        return f'http://127.0.0.1:{server.server_port}/'

    def revoke(self, reason='left_the_project'):
        return self.api.revoke(self.context, reason, instance_uuid=self.instance)
