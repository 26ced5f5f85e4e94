# SPDX-License-Identifier: Apache-2.0
"""Content-Security-Policy: which inline code of a page is allowed, and what a source may be."""

import base64
import hashlib

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy import csp


def hash_source(text):
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def directives(page, frame_ancestors="'self'"):
    policy = csp.page_policy(page.encode(), frame_ancestors)
    return {name: sources for name, *sources in (each.split() for each in policy.split('; '))}


class PagePolicyTest(testtools.TestCase):
    def test_without_inline_code_only_the_same_origin(self):
        found = directives('<!doctype html><script src="a.js">ignored</script><p style="x" onclick="y">')
        self.assertEqual(["'self'"], found['script-src'])
        self.assertEqual(["'self'"], found['style-src'])
        self.assertEqual(["'none'"], found['default-src'])
        self.assertEqual(["'self'"], found['connect-src'])

    def test_inline_code_is_allowed_by_its_hash(self):
        found = directives('<style> b {} </style><script type="module">\n< & é\n</script><p>text</p>')
        self.assertEqual(["'self'", hash_source('\n< & é\n')], found['script-src'])
        self.assertEqual(["'self'", hash_source(' b {} ')], found['style-src'])

    def test_a_hash_is_of_the_text_that_a_browser_sees(self):
        found = directives('\ufeff<script>a\r\nb\rc</script><SCRIPT>d</SCRIPT><script></script>')
        self.assertEqual(["'self'", *map(hash_source, ('a\nb\nc', 'd', ''))], found['script-src'])

    def test_frame_ancestors(self):
        found = directives('', "'self' https://dashboard.example.org")
        self.assertEqual(["'self'", 'https://dashboard.example.org'], found['frame-ancestors'])

    @given(st.text(st.characters(exclude_categories=['Cs'])))
    def test_no_page_can_extend_its_policy(self, text):
        found = directives(f'<script>{text}')
        self.assertEqual(set(directives('')), set(found))
        for source in found['script-src'] + found['style-src']:
            self.assertRegex(source, r"\A'(self|sha256-[A-Za-z0-9+/]{43}=)'\Z")


class IsSourceTest(testtools.TestCase):
    def test_sources(self):
        for text in (
            "'self'",
            "'none'",
            '*',
            'https:',
            'https://*.example.com:8443',
            'https://a.example/b?c',
        ):
            self.assertTrue(csp.is_source(text), text)

    @given(st.text(max_size=10), st.sampled_from([' ', ';', ',', '\t', '\r', '\n', '\0', '\x7f', 'é']))
    def test_a_source_cannot_end_its_directive(self, text, separator):
        self.assertFalse(csp.is_source(f'{text}{separator}{text}'))

    def test_an_empty_text_is_no_source(self):
        self.assertFalse(csp.is_source(''))


class AncestorsTest(testtools.TestCase):
    POLICY = csp.page_policy(b'<html>', "'self' https://a.example")

    def test_hosts_are_added_at_any_port(self):
        self.assertEqual(
            f'{self.POLICY} https://b.example:* https://192.0.2.1:*',
            csp.with_ancestors(self.POLICY, 'https', ['b.example', '192.0.2.1']),
        )
        self.assertEqual(f'{self.POLICY} http://b:*', csp.with_ancestors(self.POLICY, 'http', ['b']))
        self.assertEqual(self.POLICY, csp.with_ancestors(self.POLICY, 'http', []))

    def test_what_is_no_host_is_left_out(self):
        for host in (
            '2001:db8::1',
            'a b',
            'a;script-src *',
            'a,b',
            "'unsafe-inline'",
            '*',
            'a\n',
            '',
            '*.example',
        ):
            self.assertEqual(self.POLICY, csp.with_ancestors(self.POLICY, 'https', [host]), host)

    def test_what_nobody_may_embed_stays_so(self):
        policy = csp.page_policy(b'<html>', "'none'")
        self.assertEqual(policy, csp.with_ancestors(policy, 'https', ['b.example']))
        other = "default-src 'none'; sandbox"
        self.assertEqual(other, csp.with_ancestors(other, 'https', ['b.example']))

    @given(st.lists(st.text()))
    def test_no_host_adds_a_directive_or_a_header(self, hosts):
        added = csp.with_ancestors(self.POLICY, 'https', hosts).removeprefix(self.POLICY)
        self.assertRegex(added, r'\A( https://[A-Za-z0-9._-]+:\*)*\Z')
