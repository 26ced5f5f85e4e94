# SPDX-License-Identifier: Apache-2.0
"""The pages behind load balancers that serve a cell below a path."""

import pathlib
import re

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.serial_guest import SerialGuest
from consoled.testing.guests.vnc_guest import VncGuest
from tests.e2e import base
from tests.e2e.balancers import HAProxy, Nginx
from tests.e2e.qemu import Qemu

PREFIX = '/c/cell1/'
CANVAS = 'canvas'


class BalancersTest(base.BrowserTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.desktop = cls.guests.add(VncGuest(name='desktop'))

    def setUp(self):
        super().setUp()
        self.inner = self.useFixture(HAProxy(self.proxy_process.port, PREFIX))
        self.outer = self.useFixture(Nginx(self.inner.port, PREFIX))
        self.nginx = self.useFixture(Nginx(self.proxy_process.port, PREFIX))

    @property
    def url(self):
        return f'http://localhost:{self.balancer.port}{PREFIX.rstrip("/")}'

    def test_every_page_below_a_path_and_through_two_load_balancers(self):
        router = self.guests.add(SerialGuest(name='router'))
        spice = self.useFixture(Qemu('-spice', 'addr=127.0.0.1,port={port},disable-ticketing=on'))
        for balancer in (self.nginx, self.inner, self.outer):
            self.balancer = balancer
            for guest, console_type, page in (
                (router, 'serial', 'serial.html'),
                (self.desktop, 'novnc', 'novnc.html'),
                (self.desktop, 'novnc', 'novnc.html?path=websockify'),
                (spice, 'spice-html5', 'spice.html'),
            ):
                grant = self.grant(guest, console_type, page)
                self.browser.open(grant.access_url)
                self.browser.wait_for_state('connected')
                self.assertEqual([], self.browser.violations())
                self.leave(grant.token)

    def test_pages_of_novnc_itself(self):
        (x, y), colour = VncGuest.MARK
        self.balancer = self.nginx
        for page in (
            'vnc_lite.html',
            'vnc.html?autoconnect=1',
            'vnc.html?autoconnect=1&path=c/cell1/',
            'novnc/vnc_lite.html',
        ):
            grant = self.grant(self.desktop, 'novnc', page)
            self.browser.open(grant.access_url)
            wait_until(lambda: self.browser.pixel(CANVAS, x, y) == colour, what=f'the picture in {page}')
            self.leave(grant.token)

    def test_why_a_user_is_refused_below_a_path(self):
        for balancer in (self.nginx, self.inner):
            self.balancer = balancer
            for page in ('novnc.html?path=%3Ftoken%3D', 'serial.html?token=', 'spice.html?token='):
                self.browser.open(f'{self.url}/{page}' + 'x' * 43)
                self.browser.wait_for_state('ended', 'invalid_token')

    def test_log_formats_without_tokens(self):
        """Those of doc/deployment.md, as they are written there."""
        page = (pathlib.Path(__file__).parents[2] / 'doc' / 'deployment.md').read_text()
        haproxy = re.search(r'^ +(log-format "[^"\n]+")$', page, re.MULTILINE).group(1)
        nginx = re.search(
            r"^ +(log_format without_query '[^;]+;)\n +access_log \S+ ", page, re.MULTILINE
        ).group(1)
        for balancer in (
            HAProxy(self.proxy_process.port, PREFIX, haproxy),
            Nginx(self.proxy_process.port, PREFIX, f'{nginx} access_log /dev/stdout without_query;'),
        ):
            self.balancer = self.useFixture(balancer)
            grant = self.grant(self.desktop, 'novnc', 'novnc.html')
            self.browser.open(grant.access_url)
            self.browser.wait_for_state('connected')
            self.leave(grant.token)
            self.assertIn(f'GET {PREFIX}novnc.html HTTP', balancer.log())
            self.assertNotIn(grant.token, balancer.log())

    def leave(self, token):
        """End the session, and check that the log has its token in the URL of the page only."""
        before = self.balancer.log().count(' 101 ')
        self.browser.open('about:blank')
        wait_until(lambda: self.count('console_session') == 0, what='the end of the session')
        wait_until(lambda: self.balancer.log().count(' 101 ') > before, what='the websocket in the log')
        lines = [line for line in self.balancer.log().splitlines() if token in line]
        self.assertEqual([], [line for line in lines if '.html' not in line])
