# SPDX-License-Identifier: Apache-2.0
"""The page with links: its redirects to consoles, and refusals."""

import http.client
import io
import sys
from unittest import mock
from urllib import parse

import testtools

from consoled import exception
from consoled.demo import links

URL = 'http://127.0.0.1:1/serial.html?token=secret'


def refuse():
    raise exception.ConsolePortsExhausted(instance_uuid='<guest>', console_type='serial')


class DashboardTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.page = links.Dashboard(
            '127.0.0.1',
            {
                '/open': links._Link('a <b>', 'text', lambda: URL),
                '/full': links._Link('full', 'text', refuse),
            },
        )
        self.page.start()
        self.addCleanup(self.page.stop)

    def get(self, path):
        connection = http.client.HTTPConnection(parse.urlsplit(self.page.url).netloc, timeout=20)
        self.addCleanup(connection.close)
        connection.request('GET', path)
        response = connection.getresponse()
        return response, response.read().decode()

    def test_the_page_links_to_each_console(self):
        response, body = self.get('/')
        self.assertEqual(200, response.status)
        self.assertIn('<a href="/open"><b>a &lt;b&gt;</b>', body)
        self.assertIn('<a href="/full">', body)

    def test_a_link_requests_a_token_and_redirects(self):
        with mock.patch.object(sys, 'stderr', io.StringIO()) as err:
            response, body = self.get('/open')
        self.assertEqual((302, URL, ''), (response.status, response.headers['Location'], body))
        self.assertEqual('no-store', response.headers['Cache-Control'])
        self.assertEqual('', err.getvalue())

    def test_a_refusal_is_shown_with_its_status(self):
        response, body = self.get('/full')
        self.assertEqual(exception.ConsolePortsExhausted.http_status, response.status)
        self.assertNotIn('<guest>', body)

    def test_other_paths_do_not_exist(self):
        self.assertEqual(404, self.get('/other')[0].status)
