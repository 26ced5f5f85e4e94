# SPDX-License-Identifier: Apache-2.0
"""Web origins: equal ones, and texts that only resemble them."""

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.origin import Origin, parse_header, parse_host, parse_host_name, parse_url

GOOD = Origin('https', 'good.example', 443)

schemes = st.sampled_from(['http', 'https'])
hosts = st.one_of(
    st.from_regex(r'[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z0-9]{1,5}){0,2}', fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f'[{address}]'),
)
ports = st.integers(1, 65535)
# texts that get further than random ones
almost = st.lists(
    st.one_of(
        st.sampled_from(
            ['https', 'http', 'ws', '://', ':', '/', '@', '[', ']', '::1', 'good.example', '443', '.']
        ),
        st.text(max_size=3),
    ),
    max_size=8,
).map(''.join)
anything = st.one_of(st.text(), almost)


class ParseHeaderTest(testtools.TestCase):
    def test_scheme_host_and_port(self):
        self.assertEqual(Origin('http', 'a.example', 8080), parse_header('http://a.example:8080'))

    def test_the_default_port_of_each_scheme(self):
        self.assertEqual(GOOD, parse_header('https://good.example'))
        self.assertEqual(GOOD, parse_header('https://good.example:443'))
        self.assertEqual(Origin('http', 'good.example', 80), parse_header('http://good.example'))

    def test_case_and_a_trailing_dot_make_no_difference(self):
        for value in ('https://GOOD.example', 'HTTPS://good.EXAMPLE', 'https://good.example.'):
            self.assertEqual(GOOD, parse_header(value), value)

    def test_another_scheme_port_or_host_is_another_origin(self):
        for value in (
            'http://good.example:443',
            'https://good.example:8443',
            'https://good.example.evil',
            'https://evil.good.example',
            'https://evil-good.example',
            'https://good-example',
            'https://good.examp',
            'https://xgood.example',
            'https://good%2eexample',
        ):
            self.assertNotEqual(GOOD, parse_header(value), value)

    def test_a_text_that_only_contains_an_origin_is_rejected(self):
        for value in (
            'null',
            '',
            'good.example',
            '//good.example',
            'https:good.example',
            'https:///good.example',
            'https://',
            'https://.',
            'https://good.example/',
            'https://good.example/path',
            'https://good.example?',
            'https://good.example#',
            'https://good.example, https://evil.example',
            'https://good.example https://evil.example',
            ' https://good.example',
            'https://good.example ',
            'https://good.example\t',
            'https://go\tod.example',
            'https://go\nod.example',
            'https://good.example\x00',
            'ftp://good.example',
            'file://',
            'chrome-extension://abcdefgh',
            'javascript:alert(1)',
        ):
            self.assertIsNone(parse_header(value), value)

    def test_user_information_is_rejected(self):
        for value in (
            'https://good.example@evil.example',
            'https://evil.example@good.example',
            'https://user:word@good.example',
            'https://@good.example',
            'https://good.example:443@evil.example',
            'https://evil.example\\@good.example',
            'https://evil.example\\.good.example',
        ):
            self.assertIsNone(parse_header(value), value)

    def test_malformed_ports_are_rejected(self):
        for port in ('-1', '+443', '65536', '99999999999', 'https', '4 43', '443:443', '\u0664\u0664\u0663'):
            self.assertIsNone(parse_header(f'https://good.example:{port}'), port)

    def test_port_0_is_not_the_default_port(self):
        self.assertNotEqual(GOOD, parse_header('https://good.example:0'))

    def test_ipv6(self):
        there = Origin('https', '2001:db8::1', 6080)
        self.assertEqual(there, parse_header('https://[2001:db8::1]:6080'))
        self.assertEqual(there, parse_header('https://[2001:DB8::1]:6080'))
        self.assertEqual(there, parse_url('https://[2001:0db8:0:0::0001]:6080/novnc.html'))

    def test_misplaced_brackets_are_rejected(self):
        for value in (
            'https://evil.example[::1]',
            'https://[::1]evil.example',
            'https://[good.example]',
            'https://[v1.good]',
            'https://[192.0.2.1]',
            'https://[::1',
            'https://::1]',
            'https://[]',
        ):
            self.assertIsNone(parse_header(value), value)

    def test_letters_that_resemble_ascii_are_rejected(self):
        self.assertIsNone(parse_header('https://\uff47ood.example'))
        self.assertIsNone(parse_header('https://\u212aelvin.example'))  # lower case of the Kelvin sign is a k

    @given(schemes, hosts, ports)
    def test_origins_as_browsers_write_them(self, scheme, host, port):
        self.assertEqual(Origin(scheme, host.strip('[]'), port), parse_header(f'{scheme}://{host}:{port}'))

    @given(st.tuples(schemes, hosts, ports), st.tuples(schemes, hosts, ports))
    def test_origins_are_equal_only_if_all_parts_are(self, one, other):
        origins = [parse_header(f'{scheme}://{host}:{port}') for scheme, host, port in (one, other)]
        self.assertEqual(one == other, origins[0] == origins[1])

    @given(anything)
    def test_any_text_yields_a_valid_origin_or_none(self, text):
        found = parse_header(text)
        if found is not None:
            self.assertIn(found.scheme, ('http', 'https'))
            self.assertTrue(found.host)
            self.assertTrue(0 <= found.port <= 65535)
            host = f'[{found.host}]' if ':' in found.host else found.host
            self.assertEqual(found, parse_header(f'{found.scheme}://{host}:{found.port}'))


class ParseUrlTest(testtools.TestCase):
    def test_path_query_and_fragment_make_no_difference(self):
        for url in (
            'https://good.example',
            'https://good.example/',
            'https://good.example:443/a/b?c=https://evil.example#d',
            'wss://good.example/websockify',
        ):
            self.assertEqual(GOOD, parse_url(url), url)

    def test_a_websocket_has_the_origin_of_its_page(self):
        self.assertEqual(Origin('http', 'a.example', 6080), parse_url('ws://a.example:6080/'))
        self.assertEqual(parse_url('https://a.example'), parse_url('wss://a.example'))

    def test_urls_without_an_origin(self):
        for url in (
            '',
            '/novnc.html',
            'mailto:a@good.example',
            'https://user@good.example/',
            'https://...',
            'https://[x',
        ):
            self.assertIsNone(parse_url(url), url)

    @given(anything)
    def test_it_never_raises(self, url):
        parse_url(url)


class ParseHostTest(testtools.TestCase):
    def test_the_default_port(self):
        self.assertEqual(GOOD, parse_host('https', 'good.example'))
        self.assertEqual(GOOD, parse_host('https', 'GOOD.example.:443'))
        self.assertEqual(Origin('http', 'good.example', 6080), parse_host('http', 'good.example:6080'))
        self.assertEqual(Origin('http', '::1', 80), parse_host('http', '[::1]'))

    def test_malformed_hosts_are_rejected(self):
        for host in (
            '',
            '.',
            'a b',
            'good.example/',
            'good.example?x',
            'good.example#x',
            'user@good.example',
            'evil.example\\good.example',
            'good.example\t',
            '[::1]evil.example',
            'evil.example[::1]',
            'a:b',
            'a:1:2',
            '::1',
        ):
            self.assertIsNone(parse_host('https', host), host)

    @given(schemes, hosts, ports)
    def test_it_equals_the_origin_of_the_pages_of_the_server(self, scheme, host, port):
        self.assertEqual(parse_header(f'{scheme}://{host}:{port}'), parse_host(scheme, f'{host}:{port}'))

    @given(schemes, anything)
    def test_any_text_yields_a_valid_origin_or_none(self, scheme, text):
        found = parse_host(scheme, text)
        if found is not None:
            self.assertEqual(scheme, found.scheme)
            self.assertTrue(found.host)


class ParseHostNameTest(testtools.TestCase):
    @given(schemes, hosts, ports)
    def test_the_host_of_whatever_names_one(self, scheme, host, port):
        expected = parse_url(f'{scheme}://{host}').host
        for text in (host, f'{host}:{port}', f'{scheme}://{host}', f'{scheme}://{host}:{port}', expected):
            self.assertEqual(expected, parse_host_name(text), text)

    @given(anything)
    def test_what_is_found_is_a_host(self, text):
        host = parse_host_name(text)
        if host is not None:
            self.assertEqual(host, parse_host_name(host))
            self.assertRegex(host, r'\A[a-z0-9._:-]+\Z')
