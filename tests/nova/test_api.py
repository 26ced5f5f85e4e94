# SPDX-License-Identifier: Apache-2.0
"""From Nova's API to a guest's screen: servers that are built and deleted through the API, seen in a browser."""

import time

import testtools
from selenium.webdriver.common.keys import Keys
from testtools.content import text_content

from consoled.testing import daemons
from consoled.testing.fixtures import wait_until
from tests.e2e import base as screens
from tests.functional import base as functional_base
from tests.nova import cloud, frames

WITHIN = 3.0  # seconds until a session of a deleted server is cut
SLACK = 5.0  # additional seconds on a busy machine
WATCH_INTERVAL = 2


class CloudTestCase(testtools.TestCase):
    """All of Nova, and consoled where its proxies would be."""

    proxy_options: dict = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.horizon = cls.fixture(frames.Dashboard())
        proxy = daemons.ProxyProcess('fake://', {'proxy': {**screens.PAGES, **cls.proxy_options}})
        cls.url = f'http://127.0.0.1:{proxy.port}'
        cls.cloud = cls.fixture(cloud.Cloud(f'{cls.url}/vnc_lite.html', f'ws://127.0.0.1:{proxy.port}/'))
        cls.database = functional_base.database_url(cls, 'mariadb')
        options = {'nova': {'connection': cls.cloud.reader}, 'DEFAULT': {'debug': True}}
        cls.manager = cls.fixture(daemons.ManagerProcess(cls.cloud.bus, cls.database, options))
        proxy.options['DEFAULT']['transport_url'] = cls.cloud.bus
        cls.proxy = cls.fixture(proxy)
        cls.proxy.wait_ready()
        cls.browser = cls.fixture(screens.Browser())

    @classmethod
    def fixture(cls, fixture):
        fixture.setUp()
        cls.addClassCleanup(fixture.cleanUp)
        return fixture

    def setUp(self):
        super().setUp()
        self.addOnException(self._add_logs)
        self.browser.open('about:blank')

    def _add_logs(self, _):
        logs = {**self.cloud.logs(), 'manager': self.manager.log(), 'proxy': self.proxy.log()}
        for name, text in logs.items():
            self.addDetail(name, text_content(text[-20000:]))
        self.addDetail('browser', text_content(self.browser.report()))


class ApiTest(CloudTestCase):
    proxy_options = {'match_origin_by_host': True}

    def test_a_screen_and_a_serial_port_until_the_server_is_deleted(self):
        server = self.cloud.build()
        url = self.cloud.console(server)
        self.assertTrue(url.startswith(f'{self.url}/vnc_lite.html?path=%3Ftoken%3D'), url)
        self.browser.open(url)
        self.browser.wait_for_state('connected')
        self.browser.wait_for_text_on_screen()
        before = self.browser.lit_pixels()
        self.browser.type('x' * 40)
        self.browser.wait_for_text_on_screen(before)
        self.assert_serial_port_works(server)
        self.browser.open(self.cloud.console(server))
        self.browser.wait_for_state('connected')
        self.assertEqual([], self.browser.violations())
        self.cloud.delete(server)
        self.assert_ends('console_gone')

    def assert_ends(self, reason):
        """Assert that the page says in time that its console has ended, and why."""
        deleted = time.monotonic()
        self.browser.wait_for_state('ended')
        took = time.monotonic() - deleted
        text = f'{took:.2f} s after the API has accepted the deletion: {self.browser.text_of("why")}'
        print(f'{self.id()}: {text}', flush=True)
        self.addDetail('ended', text_content(text))
        self.assertEqual(reason, self.browser.state[1])
        self.assertLess(took, WITHIN + SLACK)

    def assert_serial_port_works(self, server):
        """Assert that a page as Horizon's, on another port, shows what a serial port says."""
        self.browser.open(self.horizon.serial(self.cloud.console(server, 'serial', 'serial')))
        self.browser.wait_for_state('connected')
        self.browser.type(Keys.ENTER)
        wait_until(lambda: cloud.GREETING in self.browser.text_of('terminal'), what='the greeting')
