# SPDX-License-Identifier: Apache-2.0
"""From Nova's API to a guest's screen: servers that the API builds and deletes, seen in a browser."""

import time

from testtools.content import text_content

from consoled.testing import daemons, services
from consoled.testing.fixtures import wait_until
from tests.e2e import base as screens
from tests.functional import base as functional_base
from tests.nova import base, cloud, frames, tempest_run

WITHIN = 3.0  # seconds until a session of a deleted server is cut
SLACK = 5.0  # additional seconds on a busy machine
CLOSED = 'The guest closed its console.'
DELETED = 'The guest has been deleted or stopped.'
GONE = 'The console no longer exists.'
INVALID = 'The console token is not valid or has expired.'
_WHY = "return document.querySelector('#consoled-reason, #why')?.textContent"
DEBUG = {'debug': True}  # whatever is logged, no token may be in it


class CloudTestCase(base.SharedFixtures):
    """All of Nova, and consoled where its proxies would be."""

    serve_page = screens.BrowserTestCase.serve_page

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cloud.skip_old_releases()
        serial = services.free_port()
        options = {'match_origin_by_host': True, 'additional_addresses': f'127.0.0.1:{serial}'}
        proxy = daemons.ProxyProcess('fake://', {'DEFAULT': DEBUG, 'proxy': {**screens.PAGES, **options}})
        cls.url = f'http://127.0.0.1:{proxy.port}'
        cls.cloud = cls.share(cloud.Cloud(proxy.port, serial))
        cls.database = functional_base.database_url(cls, 'mariadb')
        options = {'nova': {'connection': cls.cloud.reader}, 'DEFAULT': DEBUG}
        cls.manager = cls.share(daemons.ManagerProcess(cls.cloud.bus, cls.database, options))
        proxy.options['DEFAULT']['transport_url'] = cls.cloud.bus
        cls.proxy = cls.share(proxy)
        cls.proxy.wait_ready()
        cls.browser = cls.share(screens.Browser())

    def setUp(self):
        super().setUp()
        self.addOnException(self._add_logs)
        self.addCleanup(lambda: self.assert_no_token_in(self.manager.log() + self.proxy.log()))
        self.browser.open('about:blank')

    def assert_no_token_in(self, log):
        self.assertEqual([], [token for token in self.cloud.tokens if token in log])

    def _add_logs(self, _):
        logs = {**self.cloud.logs(), 'manager': self.manager.log(), 'proxy': self.proxy.log()}
        for name, text in logs.items():
            self.addDetail(name, text_content(text[-20000:]))
        self.addDetail('browser', text_content(self.browser.report()))


class ApiTest(CloudTestCase):
    def open(self, server):
        """Open the screen of a server at the URL that Nova's API hands out."""
        url = self.cloud.console(server)
        self.assertTrue(url.startswith(f'{self.url}/vnc_lite.html?path=%3Ftoken%3D'), url)
        self.browser.open(url)
        self.browser.wait_for_text_on_screen()

    def why(self):
        """Wait until the page says why its console has ended or was refused, and return that."""
        return wait_until(lambda: self.browser.driver.execute_script(_WHY), what='the reason')

    def delete(self, server):
        """Delete a server, and return what the page says about that in time."""
        self.cloud.delete(server)
        deleted = time.monotonic()
        why = self.why()
        took = time.monotonic() - deleted
        text = f'{took:.2f} s after the API has accepted the deletion: {why}'
        print(f'{self.id()}: {text}', flush=True)
        self.addDetail('ended', text_content(text))
        self.assertLess(took, WITHIN + SLACK)
        return why

    def test_a_screen_until_its_server_is_deleted(self):
        server = self.cloud.build()
        self.open(server)
        before = self.browser.lit_pixels()
        self.browser.driver.find_element('css selector', '#screen canvas').click()  # noVNC's page needs it
        self.browser.type('x' * 40)
        self.browser.wait_for_text_on_screen(before)
        self.assertEqual([], self.browser.violations())
        # the hypervisor closes the console, or the manager cuts the session: who is first
        self.assertIn(self.delete(server), (CLOSED, DELETED))
        self.browser.driver.refresh()
        self.assertIn(self.why(), (GONE, INVALID))

    def test_a_serial_port_in_horizons_page(self):
        server = self.cloud.build()
        self.assert_serial_port_works(server)
        self.assertIn(self.delete(server), (CLOSED, DELETED))

    def assert_serial_port_works(self, server):
        """Assert that Horizon's page, which comes from another port, shows what a serial port says."""
        self.browser.open(self.serve_page(frames.serial(self.cloud.console(server, 'serial', 'serial'))))
        self.browser.wait_for_state('connected')
        wait_until(lambda: cloud.GREETING in self.browser.text_of('terminal'), what='the greeting')
        self.browser.type('uptime')
        wait_until(lambda: 'uptime' in self.browser.text_of('terminal'), what='the echo')

    def test_a_server_that_is_deleted_while_its_compute_host_is_down(self):
        """Nova deletes it in its database only. Its guest goes on, and its hypervisor closes nothing."""
        server = self.cloud.build()
        self.open(server)
        with self.cloud.compute_down():
            self.assertEqual(DELETED, self.delete(server))
        self.assertIn('instance_gone', self.proxy.log())

    def test_tempest(self):
        """Tempest as it is released, without a change, against Nova's API."""
        self.assert_tempest_passes(3, tempest_run.NOVNC, tempest_run.SERIAL)

    def test_one_program_with_two_lines_of_its_own_and_novas_nova_conf(self):
        server = self.cloud.build()
        options = {
            'database': {'connection': self.database},
            'nova': {'config_file': self.cloud.directory / 'nova.conf'},
        }
        self.proxy.stop()
        self.manager.stop()
        try:
            with daemons.DaemonProcess('consoled.cmd.nova', options) as both:
                self.open(server)
                self.assert_serial_port_works(server)
                self.open(server)
                self.assertIn(self.delete(server), (CLOSED, DELETED))
                self.assert_no_token_in(both.log())
        finally:
            self.manager.start()
            self.proxy.start()
            self.proxy.wait_ready()

    def test_back_to_novas_own_proxy(self):
        """A stock nova-novncproxy at the same address, with the same Tempest and the same token."""
        server = self.cloud.build()
        url = self.cloud.console(server)
        self.proxy.stop()
        before = len(self.proxy.log())
        try:
            with self.cloud.novncproxy():
                self.browser.open(url)
                wait_until(self.browser.lit_pixels, what='the screen')
                self.assert_tempest_passes(2, tempest_run.NOVNC)
        finally:
            self.proxy.start()
            self.proxy.wait_ready()
        self.browser.open('about:blank')
        self.browser.open(url)  # the browser may have kept the page of Nova's proxy, which works too
        wait_until(self.browser.lit_pixels, what='the screen')
        self.assertIn('session opened', self.proxy.log()[before:])
        self.cloud.delete(server)

    def assert_tempest_passes(self, number, *modules):
        """Assert that so many tests of these modules ran, and that none was skipped or failed."""
        status, output = tempest_run.run(self.cloud, *modules)
        self.addDetail('tempest', text_content(output))
        self.assertEqual((0, number), (status, output.count(' ... ok\n')), output)
