# SPDX-License-Identifier: Apache-2.0
"""Access URLs."""

from urllib import parse

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import exception
from consoled.manager import access_url

TOKEN = 'A' * 43


class BuildTest(testtools.TestCase):
    def test_novnc_gets_the_token_into_its_path(self):
        self.assertEqual(
            f'https://c.example.org/vnc.html?path=%3Ftoken%3D{TOKEN}',
            access_url.build('https://c.example.org/vnc.html', 'novnc', TOKEN),
        )

    def test_novnc_keeps_the_path_and_arguments_it_had(self):
        url = access_url.build('https://c/vnc.html?autoconnect=1&path=a/b%3Fc%3Dd', 'novnc', TOKEN)
        query = dict(parse.parse_qsl(parse.urlsplit(url).query))
        self.assertEqual({'autoconnect': '1', 'path': f'a/b?c=d&token={TOKEN}'}, query)

    def test_the_others_get_an_argument(self):
        for console_type in ('spice-html5', 'serial', 'webmks', 'rdp-html5'):
            url = access_url.build('wss://c:6083/x?a=1', console_type, TOKEN)
            self.assertEqual(f'wss://c:6083/x?a=1&token={TOKEN}', url)

    def test_a_token_in_the_base_is_replaced(self):
        url = access_url.build('wss://c/?token=old', 'serial', TOKEN)
        self.assertEqual(f'wss://c/?token={TOKEN}', url)

    @given(st.text(st.characters(codec='ascii', exclude_characters='#\t\r\n'), max_size=40))
    def test_a_token_is_found_again_whatever_the_query(self, query):
        url = access_url.build(f'https://c/p?{query}', 'serial', TOKEN)
        self.assertEqual(TOKEN, dict(parse.parse_qsl(parse.urlsplit(url).query))['token'])


class BaseTest(testtools.TestCase):
    def test_good_ones(self):
        for base in (None, 'http://c', 'https://c:6080/vnc.html?a=b', 'ws://[::1]:6083/', 'wss://c/x'):
            self.assertIsNone(access_url.check_base(base))

    def test_bad_ones(self):
        for base in (
            'c',
            '/vnc.html',
            'ftp://c/',
            'javascript:alert(1)',
            'http://',
            'http://u:p@c/',
            'http://[',
            '//c',
        ):
            self.assertRaises(exception.InvalidConsole, access_url.check_base, base)
