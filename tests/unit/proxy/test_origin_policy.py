# SPDX-License-Identifier: Apache-2.0
"""Web pages that may open consoles, by origin or by host name. ``tests/nova`` asks Nova itself."""

import testtools

from consoled import exception
from consoled.proxy.forwarded import Client
from consoled.proxy.origin import Origin
from consoled.proxy.origin_policy import OriginPolicy, WebPage

ALLOWED = ['dashboard.example', 'https://horizon.example:8443', '2001:db8::2', 'http://plain.example']


def client(host='proxy.example:6080', scheme='https', forwarded_scheme=None):
    return Client('203.0.113.5', scheme, host, forwarded_scheme)


def opens(policy, origin, access_url, **reached):
    """Return whether a page with this origin may open the console with this access URL."""
    try:
        policy.identify(origin, client(**reached)).check_access_url(access_url)
    except exception.OriginRefused:
        return False
    return True


class AccessUrlTest(testtools.TestCase):
    def test_an_origin_that_is_not_accepted_has_to_be_that_of_the_access_url(self):
        page = WebPage(Origin('https', 'console.example', 443), accepted=False)
        for url in ('https://console.example/novnc.html?a=b', 'wss://console.example:443'):
            page.check_access_url(url)
        for url in (
            None,
            '',
            'https://console.example:6080/',
            'http://console.example/',
            'https://evil.example/',
        ):
            self.assertRaises(exception.OriginRefused, page.check_access_url, url)

    def test_no_page_needs_no_access_url(self):
        self.assertFalse(WebPage().needs_access_url)
        for url in (None, '', 'https://console.example/'):
            WebPage().check_access_url(url)

    def test_a_page_without_tls_opens_no_console_whose_access_url_has_it(self):
        """As with Nova's proxies. It is not the proxy alone that decides how users should reach it."""
        policy = OriginPolicy.from_options(['http://lab.example'], False)
        for url, expected in (
            ('https://console.example/', False),
            ('wss://proxy.example:6080/', False),
            ('http://console.example/', True),
            ('ws://console.example/', True),
            ('nonsense', True),
            (None, True),
        ):
            self.assertEqual(expected, opens(policy, 'http://proxy.example:6080', url, scheme='http'), url)
            self.assertTrue(opens(policy, 'https://proxy.example:6080', url, scheme='https'), url)
            self.assertTrue(opens(policy, 'http://lab.example', url), 'the operator has named it')


class OptionsTest(testtools.TestCase):
    def test_origins(self):
        policy = OriginPolicy.from_options(['https://a.example', 'http://b.example:8080', 'null'], False)
        self.assertEqual(
            {Origin('https', 'a.example', 443), Origin('http', 'b.example', 8080)}, policy.allowed
        )
        self.assertTrue(policy.null)
        self.assertIsNone(policy.allowed_hosts)
        self.assertFalse(OriginPolicy.from_options([], False).null)
        for wrong in ('*', '', 'a.example', 'https://a.example/', 'https://*.example'):
            error = self.assertRaises(ValueError, OriginPolicy.from_options, [wrong], False)
            self.assertIn(f'[proxy] allowed_origins: {wrong!r}', str(error))

    def test_host_names(self):
        """``[console] allowed_origins`` of Nova, and what operators have written there."""
        texts = [
            'a.example',
            'B.example.',
            'https://c.example:8443',
            'd.example:6080',
            '192.0.2.1',
            '2001:DB8::1',
            '[2001:db8::2]:443',
            'null',
        ]
        policy = OriginPolicy.from_options(texts, True)
        self.assertEqual(
            {'a.example', 'b.example', 'c.example', 'd.example', '192.0.2.1', '2001:db8::1', '2001:db8::2'},
            policy.allowed_hosts,
        )
        self.assertTrue(policy.null)
        for wrong in ('*', '', 'a b', '*.example', 'https://a.example/', 'a.example/path', '[::1', 'ftp://a'):
            error = self.assertRaises(ValueError, OriginPolicy.from_options, [wrong], True)
            self.assertIn(f'[proxy] allowed_origins: {wrong!r}', str(error))


class ByHostTest(testtools.TestCase):
    policy = OriginPolicy.from_options(ALLOWED, True)

    def test_any_port_of_an_accepted_host(self):
        for origin in (
            'https://proxy.example',
            'https://proxy.example:6080',
            'https://PROXY.example.:9999',
            'https://dashboard.example:8443',
            'https://horizon.example',
            'https://[2001:db8::2]:1',
            'https://plain.example:1',
        ):
            page = self.policy.identify(origin, client())
            self.assertEqual((True, False), (page.accepted, page.needs_access_url), origin)

    def test_the_host_of_the_access_url(self):
        for url in (
            'https://console.example:6080/vnc_lite.html',
            'wss://Console.example/',
            'http://console.example',
        ):
            self.assertTrue(opens(self.policy, 'https://console.example:8443', url), url)
        for url in (None, '', 'https://other.example/', 'https://console.example.evil/'):
            self.assertFalse(opens(self.policy, 'https://console.example:8443', url), url)

    def test_other_hosts(self):
        for origin in (
            'https://evil.example',
            'https://proxy.example.evil',
            'https://evil.proxy.example',
            'https://proxy',
            'https://[2001:db8::3]',
            'null',
            '',
            'proxy.example',
            'https://proxy.example@evil.example',
        ):
            self.assertFalse(opens(self.policy, origin, 'https://console.example/'), origin)
        for host in ('', 'a b', '.', 'proxy.example:x'):
            self.assertFalse(opens(self.policy, 'https://proxy.example', None, host=host), host)

    def test_a_page_without_tls_opens_no_console_whose_access_url_has_it(self):
        for origin in ('http://proxy.example', 'http://proxy.example:6080', 'http://plain.example'):
            self.assertTrue(self.policy.identify(origin, client()).needs_access_url)
            self.assertFalse(opens(self.policy, origin, 'https://console.example/'))
            self.assertFalse(opens(self.policy, origin, 'wss://console.example/'))
            self.assertTrue(opens(self.policy, origin, 'http://console.example/'))
            self.assertTrue(opens(self.policy, origin, 'ws://console.example/'))

    def test_the_scheme_that_a_trusted_load_balancer_names_counts(self):
        url = 'https://console.example/'
        self.assertTrue(opens(self.policy, 'http://proxy.example', url, forwarded_scheme='https'))
        self.assertFalse(opens(self.policy, 'https://proxy.example', url, forwarded_scheme='http'))

    def test_hosts_that_may_embed_pages(self):
        self.assertEqual((), OriginPolicy().embedders(client()))
        self.assertEqual(
            ('2001:db8::2', 'dashboard.example', 'horizon.example', 'plain.example', 'proxy.example'),
            self.policy.embedders(client()),
        )
        self.assertNotIn('', self.policy.embedders(client(host='')))
