# SPDX-License-Identifier: Apache-2.0
"""The decision on a request, from its head alone."""

import base64
import dataclasses
import re
from urllib import parse

import testtools
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from consoled import exception
from consoled import token as tokens
from consoled.proxy import handshake, responses
from consoled.proxy.forwarded import parse_networks
from consoled.proxy.handshake import Fetch, Policy, Refusal, Request, Upgrade, decide
from consoled.proxy.origin import Origin
from consoled.proxy.origin_policy import OriginPolicy, WebPage

TOKEN = tokens.mint()
OTHER = tokens.mint()

# the example of RFC 6455, section 1.3
KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='

HEAD = {
    'host': ['proxy.example:6080'],
    'upgrade': ['websocket'],
    'connection': ['Upgrade'],
    'sec-websocket-version': ['13'],
    'sec-websocket-key': [KEY],
}
POLICY = Policy(
    trusted=parse_networks(['10.0.0.0/8'], 'x'),
    origins=OriginPolicy(frozenset([Origin('https', 'dashboard.example', 443)])),
)


def request(
    target=f'/?token={TOKEN}',
    *,
    method='GET',
    peer='203.0.113.5',
    secure=True,
    http_version='1.1',
    without=(),
    **headers,
):
    """Return a valid websocket request with these changes; write ``_`` for the ``-`` in header names."""
    found = {name: values for name, values in HEAD.items() if name not in without}
    for name, value in headers.items():
        found[name.replace('_', '-')] = value if isinstance(value, list) else [value]
    return Request(method, target, found, peer, secure, http_version)


def page(target, **headers):
    return request(target, without=set(HEAD) - {'host'}, **headers)


class DecisionCase(testtools.TestCase):
    def opened(self, *args, policy=POLICY, **values):
        decision = decide(request(*args, **values), policy)
        self.assertIsInstance(decision, Upgrade)
        return decision

    def fetched(self, *args, **values):
        decision = decide(page(*args, **values), POLICY)
        self.assertIsInstance(decision, Fetch)
        return decision

    def refused(self, error, *args, policy=POLICY, **values):
        decision = decide(request(*args, **values), policy)
        self.assertIsInstance(decision, Refusal)
        self.assertIs(error, type(decision.error))
        return decision


class TokenTest(DecisionCase):
    def test_in_the_query_argument_token(self):
        self.assertEqual(TOKEN, self.opened(f'/?token={TOKEN}').token)
        self.assertEqual(TOKEN, self.opened(f'/websockify?a=b&token={TOKEN}&c').token)

    def test_in_the_query_argument_path_as_novnc_sends_it(self):
        for target in (
            f'/websockify?path=websockify%3Ftoken%3D{TOKEN}',
            f'/?path=%3Ftoken%3D{TOKEN}',
            f'/?path=?token={TOKEN}',
            f'/?path=websockify?token={TOKEN}',
            f'/?path=%2Fa%2Fb%3Fc%3Dd%26token%3D{TOKEN}%26e',
            f'/novnc.html?autoconnect=1&path=%3Ftoken%3D{TOKEN}',
        ):
            self.assertEqual(TOKEN, self.opened(target).token, target)

    def test_each_query_is_percent_decoded_once(self):
        encoded = ''.join(f'%{ord(char):02x}' for char in TOKEN)
        self.assertEqual(TOKEN, self.opened(f'/?token={encoded}').token)
        nested = parse.quote(f'?token={encoded}', safe='')
        self.assertEqual(TOKEN, self.opened(f'/?path={nested}').token)
        twice = encoded.replace('%', '%25')
        self.refused(exception.InvalidToken, f'/?token={twice}')

    def test_in_a_cookie(self):
        for cookie in (
            f'consoled_token={TOKEN}',
            f'a=b; consoled_token={TOKEN}; c=d',
            f'a=b;consoled_token={TOKEN}',
            f'consoled_token="{TOKEN}"',
        ):
            self.assertEqual(TOKEN, self.opened('/', cookie=cookie).token, cookie)

    def test_cookies_of_other_applications_do_not_hide_it(self):
        for other in (
            '{"a": [1, 2]}',
            'a={"b": 1}',
            'version=1',
            'path=/',
            'a b',
            'a[0]=1',
            'x="',
            '=',
            '',
            'ä=ö',
        ):
            self.assertEqual(TOKEN, self.opened('/', cookie=f'{other}; consoled_token={TOKEN}').token, other)
            self.assertEqual(TOKEN, self.opened('/', cookie=f'consoled_token={TOKEN}; {other}').token, other)

    def test_cookies_with_similar_names_are_ignored(self):
        for name in ('xconsoled_token', 'consoled_token2', 'Consoled_Token', 'consoled'):
            self.refused(exception.InvalidToken, '/', cookie=f'{name}={TOKEN}')

    def test_in_the_cookie_of_novas_pages_if_there_is_no_other(self):
        cookie = f'a=b; token={TOKEN}'
        self.assertEqual(TOKEN, self.opened('/websockify', cookie=cookie).token)
        self.assertEqual(TOKEN, self.opened('/', cookie=f'token="{TOKEN}"').token)
        for target, headers in (
            (f'/?token={OTHER}', {'cookie': cookie}),
            (f'/?path=%3Ftoken%3D{OTHER}', {'cookie': cookie}),
            ('/', {'cookie': cookie, 'consoled_token': OTHER}),
            ('/', {'cookie': cookie, 'sec_websocket_protocol': f'binary, consoled.token.{OTHER}'}),
            ('/', {'cookie': f'{cookie}; consoled_token={OTHER}'}),
        ):
            self.assertEqual(OTHER, self.opened(target, **headers).token)
        self.refused(exception.InvalidToken, '/?token=short', cookie=cookie)

    def test_a_cookie_token_of_another_application_is_no_token(self):
        for other in ('short', 'eyJhbGciOi.eyJzdWIiOiIx.SflKxwRJSMeKKF2QT4', '', 'a b', '%7B%7D', 'x' * 129):
            self.refused(exception.InvalidToken, '/', cookie=f'token={other}')
            self.assertEqual(TOKEN, self.opened('/', cookie=f'token={other}; token={TOKEN}').token)
        self.refused(exception.InvalidToken, '/', cookie=f'token={TOKEN}; token={OTHER}')
        self.assertEqual(TOKEN, self.opened('/', cookie=[f'token={TOKEN}', f'token={TOKEN}']).token)

    def test_a_cookie_of_novas_pages_asks_for_no_reason(self):
        """Whatever a user looks for, his browser sends it: it may be another application's."""
        self.assertIsNone(self.fetched('/nothing', cookie=f'token={TOKEN}').token)
        self.assertEqual(TOKEN, self.fetched('/nothing', cookie=f'consoled_token={TOKEN}').token)

    def test_many_cookies(self):
        many = '; '.join(f'token=x{number}' for number in range(3000))
        self.assertEqual(TOKEN, self.opened('/', cookie=f'{many}; token={TOKEN}').token)
        self.refused(exception.InvalidToken, '/', cookie=many)

    def test_in_a_subprotocol(self):
        for protocols in (
            f'consoled.token.{TOKEN}',
            f'binary, consoled.token.{TOKEN}',
            [f'consoled.token.{TOKEN}', 'binary'],
        ):
            self.assertEqual(TOKEN, self.opened('/', sec_websocket_protocol=protocols).token, protocols)

    def test_in_a_header(self):
        self.assertEqual(TOKEN, self.opened('/', consoled_token=TOKEN).token)
        self.assertEqual(TOKEN, self.fetched('/', consoled_token=TOKEN).token)

    def test_the_first_location_with_a_token_counts(self):
        locations = [
            (f'/?token={TOKEN}&path=%3Ftoken%3D{OTHER}', {}),
            (f'/?path=%3Ftoken%3D{TOKEN}', {'cookie': f'consoled_token={OTHER}'}),
            ('/', {'consoled_token': TOKEN, 'sec_websocket_protocol': f'consoled.token.{OTHER}'}),
            ('/', {'sec_websocket_protocol': f'consoled.token.{TOKEN}', 'cookie': f'consoled_token={OTHER}'}),
        ]
        for target, headers in locations:
            self.assertEqual(TOKEN, self.opened(target, **headers).token)

    def test_an_empty_token_is_ignored(self):
        target = f'/?token=&path=%3Ftoken%3D{TOKEN}'
        self.assertEqual(TOKEN, self.opened(target).token)

    def test_a_malformed_token_is_not_skipped(self):
        self.refused(exception.InvalidToken, '/?token=short', cookie=f'consoled_token={TOKEN}')

    def test_two_different_tokens_in_one_location_are_refused(self):
        for target, headers in (
            (f'/?token={TOKEN}&token={OTHER}', {}),
            (f'/?path=%3Ftoken%3D{TOKEN}%26token%3D{OTHER}', {}),
            (f'/?path=%3Ftoken%3D{TOKEN}&path=%3Ftoken%3D{OTHER}', {}),
            ('/', {'cookie': f'consoled_token={TOKEN}; consoled_token={OTHER}'}),
            ('/', {'cookie': [f'consoled_token={TOKEN}', f'consoled_token={OTHER}']}),
            ('/', {'sec_websocket_protocol': f'consoled.token.{TOKEN}, consoled.token.{OTHER}'}),
        ):
            self.refused(exception.InvalidToken, target, **headers)

    def test_a_repeated_token_counts_once(self):
        self.assertEqual(TOKEN, self.opened(f'/?token={TOKEN}&token={TOKEN}').token)

    def test_no_token(self):
        for target in ('/', '/?', '/?path=websockify', '/?token', f'/{TOKEN}', f'/#token={TOKEN}'):
            self.refused(exception.InvalidToken, target)

    def test_malformed_tokens_are_refused(self):
        for token in (
            'x',
            'a' * 15,
            'a' * 129,
            'a b' * 10,
            'ä' * 20,
            '%00' * 20,
            "a' OR 1=1 --" * 3,
            '../' * 8,
        ):
            self.refused(exception.InvalidToken, f'/?token={token}')

    def test_a_token_of_the_old_service(self):
        uuid = '0f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'
        self.assertEqual(uuid, self.opened(f'/?token={uuid}').token)

    def test_invariant_9_query_arguments_are_limited(self):
        self.refused(exception.BadRequest, '/?' + '&'.join(['a=b'] * 65) + f'&token={TOKEN}')
        self.refused(exception.BadRequest, '/?path=%3F' + '%26'.join(['a%3Db'] * 65))


class UpgradeTest(DecisionCase):
    def test_the_accept_key(self):
        self.assertEqual(ACCEPT, self.opened().accept)

    def test_headers_are_lists_and_ignore_case(self):
        self.opened(upgrade='h2c, WebSocket', connection='keep-alive, UPGRADE')
        self.opened(connection=['keep-alive', 'upgrade'])

    def test_other_versions_are_answered_with_the_supported_one(self):
        for headers in (
            {'sec_websocket_version': '8'},
            {'sec_websocket_version': '13, 8'},
            {'sec_websocket_version': ['13', '13']},
            {'sec_websocket_version': ''},
            {'without': ['sec-websocket-version']},
        ):
            refusal = self.refused(exception.UpgradeRequired, **headers)
            response, _ = responses.refusal(refusal.error, as_json=True)
            self.assertEqual(426, response.status_code)
            self.assertIn((b'sec-websocket-version', b'13'), response.headers)

    def test_malformed_handshakes_are_refused(self):
        for headers in (
            {'without': ['connection']},
            {'connection': 'close'},
            {'without': ['sec-websocket-key']},
            {'sec_websocket_key': [KEY, KEY]},
            {'sec_websocket_key': ''},
            {'sec_websocket_key': 'short'},
            {'sec_websocket_key': 'ä' * 24},
            {'sec_websocket_key': base64.b64encode(b'x' * 15).decode()},
            {'sec_websocket_key': base64.b64encode(b'x' * 17).decode()},
            {'sec_websocket_key': KEY + '!'},
            {'method': 'HEAD'},
            {'http_version': '1.0'},
        ):
            self.refused(exception.BadRequest, **headers)

    def test_other_methods_are_refused(self):
        for method in ('POST', 'PUT', 'DELETE', 'OPTIONS', 'CONNECT', 'TRACE', 'get', ''):
            self.refused(exception.MethodNotAllowed, method=method)

    def test_requests_with_a_body_are_refused(self):
        for headers in (
            {'content_length': '5'},
            {'content_length': ['0', '0']},
            {'transfer_encoding': 'chunked'},
            {'transfer_encoding': 'identity', 'content_length': '0'},
        ):
            self.refused(exception.BadRequest, **headers)
        self.opened(content_length='0')

    def test_targets_that_are_not_paths_are_refused(self):
        for target in ('', '*', f'?token={TOKEN}', f'proxy.example:6080/?token={TOKEN}'):
            self.refused(exception.BadRequest, target)

    def test_the_subprotocol(self):
        for offered, chosen in (
            ('binary', 'binary'),
            ('base64, binary', 'binary'),
            (['base64', 'consoled'], 'consoled'),
            ('consoled, binary', 'binary'),
            ('binary, consoled.flow', 'consoled.flow'),
            ('base64', None),
            ('Binary', None),
            (f'consoled.token.{TOKEN}', None),
            (f'consoled.token.{TOKEN}, binary', 'binary'),
        ):
            self.assertEqual(chosen, self.opened(sec_websocket_protocol=offered).subprotocol, offered)
        self.assertIsNone(self.opened().subprotocol)


class OriginTest(DecisionCase):
    def test_programs_send_none(self):
        self.assertEqual(WebPage(), self.opened().page)

    def test_the_origin_of_the_proxy_itself(self):
        for values in (
            {'origin': 'https://proxy.example:6080'},
            {'origin': 'HTTPS://PROXY.example.:6080'},
            {'origin': 'https://proxy.example', 'host': 'proxy.example'},
            {'origin': 'https://proxy.example', 'host': 'proxy.example:443'},
            {'origin': 'https://proxy.example:443', 'host': 'proxy.example'},
            {'origin': 'http://proxy.example', 'host': 'proxy.example', 'secure': False},
            {'origin': 'https://[2001:db8::1]:6080', 'host': '[2001:DB8::1]:6080'},
        ):
            self.assertFalse(self.opened(**values).foreign, values)

    def test_an_allowed_origin(self):
        for origin in (
            'https://dashboard.example',
            'https://dashboard.example:443',
            'https://DASHBOARD.example',
        ):
            self.assertEqual(WebPage(), dataclasses.replace(self.opened(origin=origin).page, origin=None))

    def test_any_other_has_to_match_the_access_url(self):
        for origin, found in (
            ('http://proxy.example:6080', Origin('http', 'proxy.example', 6080)),
            ('https://proxy.example', Origin('https', 'proxy.example', 443)),
            ('https://proxy.example.evil:6080', Origin('https', 'proxy.example.evil', 6080)),
            ('https://evil.proxy.example:6080', Origin('https', 'evil.proxy.example', 6080)),
            ('https://dashboard.example.evil', Origin('https', 'dashboard.example.evil', 443)),
            ('https://xdashboard.example', Origin('https', 'xdashboard.example', 443)),
            ('http://dashboard.example', Origin('http', 'dashboard.example', 80)),
            ('https://dashboard.example:8443', Origin('https', 'dashboard.example', 8443)),
        ):
            opened = self.opened(origin=origin)
            self.assertEqual((True, found), (opened.foreign, opened.page.origin))

    def test_malformed_origins_are_refused(self):
        for origin in (
            '',
            'null',
            'proxy.example:6080',
            'https://proxy.example:6080/',
            'https://proxy.example:6080@evil.example',
            'https://evil.example@proxy.example:6080',
            'https://proxy.example:6080 https://evil.example',
            'https://evil.example#https://proxy.example:6080',
            'file://',
        ):
            self.refused(exception.OriginRefused, origin=origin)

    def test_two_origins_are_refused(self):
        self.refused(exception.BadRequest, origin=['https://proxy.example:6080'] * 2)

    def test_null_if_it_is_allowed(self):
        policy = Policy.from_options((), ['null'])
        self.assertEqual(WebPage(), self.opened(origin='null', policy=policy).page)
        self.refused(exception.OriginRefused, origin='NULL', policy=policy)

    def test_a_malformed_host_matches_no_origin(self):
        for values in ({'without': ['host']}, {'host': ''}, {'host': 'a b'}, {'host': '.'}):
            self.assertTrue(self.opened(origin='https://proxy.example:6080', **values).foreign)

    def test_the_origin_is_checked_before_the_token(self):
        """A page of another site learns nothing, not even whether its token is well-formed."""
        self.refused(exception.OriginRefused, '/?token=x', origin='null')


class ForwardedTest(DecisionCase):
    forwarded = {
        'x_forwarded_proto': 'https',
        'x_forwarded_host': 'console.example',
        'x_forwarded_for': '192.0.2.7',
    }

    def test_a_trusted_peer_forwards_the_origin_of_the_proxy(self):
        for peer in ('10.0.0.1', '::ffff:10.0.0.1', None):
            opened = self.opened(origin='https://console.example', peer=peer, secure=False, **self.forwarded)
            self.assertFalse(opened.foreign)
            self.assertEqual('192.0.2.7', opened.client.address)

    def test_an_untrusted_peer_does_not(self):
        opened = self.opened(origin='https://console.example', **self.forwarded)
        self.assertEqual(Origin('https', 'console.example', 443), opened.page.origin)
        self.assertEqual('203.0.113.5', opened.client.address)

    def test_refusals_and_pages_have_the_client(self):
        self.assertEqual(
            '192.0.2.7', self.refused(exception.InvalidToken, '/', peer=None, **self.forwarded).client.address
        )
        self.assertEqual('192.0.2.7', self.fetched('/', peer='10.0.0.1', **self.forwarded).client.address)


class FetchTest(DecisionCase):
    def test_a_page_at_another_port_of_the_host_is_not_foreign_if_host_names_are_compared(self):
        policy = Policy.from_options((), ['dashboard.example'], True)
        for expected, headers in (
            (False, {'sec_fetch_site': 'same-site', 'origin': 'https://proxy.example:8443'}),
            (False, {'sec_fetch_site': 'same-site', 'origin': 'https://dashboard.example'}),
            (False, {'origin': 'https://dashboard.example:8443'}),
            (True, {'sec_fetch_site': 'same-site', 'origin': 'https://evil.example'}),
            (True, {'sec_fetch_site': 'same-site', 'origin': 'null'}),
            (True, {'sec_fetch_site': 'same-site'}),  # it does not say which host
            (True, {'sec_fetch_site': 'cross-site', 'origin': 'https://proxy.example:8443'}),
        ):
            decision = decide(page(f'/?token={TOKEN}', **headers), policy)
            self.assertEqual(expected, decision.foreign, headers)

    def test_hosts_that_may_embed_a_page(self):
        self.assertEqual((), self.fetched('/novnc.html').embedders)
        policy = Policy.from_options(['10.0.0.0/8'], ['dashboard.example'], True)
        for expected, headers in (
            (('dashboard.example', 'proxy.example'), {}),
            (('2001:db8::1', 'dashboard.example'), {'host': '[2001:DB8::1]:6080'}),
            (('dashboard.example',), {'host': 'x; script-src *'}),
            (('dashboard.example',), {'host': 'a.example b.example'}),
            (('dashboard.example',), {'host': '*'}),
            (('dashboard.example',), {'host': "'unsafe-inline'"}),
            (('dashboard.example',), {'host': ''}),
            (('dashboard.example', 'proxy.example'), {'x_forwarded_host': 'evil.example'}),
            (('dashboard.example', 'www.example'), {'x_forwarded_host': 'www.example', 'peer': '10.0.0.1'}),
        ):
            self.assertEqual(expected, decide(page('/novnc.html', **headers), policy).embedders, headers)

    def test_a_request_of_another_sites_page_is_foreign(self):
        for headers in (
            {'sec_fetch_site': 'cross-site'},
            {'sec_fetch_site': 'same-site'},
            {'sec_fetch_site': ['none', 'cross-site']},
            {'sec_fetch_site': 'Cross-Site'},
            {'origin': 'https://evil.example'},
            {'origin': 'null'},
            {'origin': 'garbage'},
            {'origin': ['https://proxy.example:6080', 'https://evil.example']},
        ):
            self.assertTrue(self.fetched(f'/?token={TOKEN}', **headers).foreign, headers)

    def test_a_request_of_the_proxys_own_page_is_not_foreign_nor_one_without_a_page(self):
        for headers in (
            {},
            {'sec_fetch_site': 'same-origin'},
            {'sec_fetch_site': 'none'},
            {'origin': 'https://proxy.example:6080'},
            {'origin': 'https://dashboard.example'},
        ):
            self.assertFalse(self.fetched(f'/?token={TOKEN}', **headers).foreign, headers)

    def test_a_page(self):
        fetched = self.fetched('/novnc.html?autoconnect=1')
        self.assertEqual(('/novnc.html', None, False), (fetched.path, fetched.token, fetched.head))

    def test_a_pasted_url_of_a_websocket(self):
        html = 'text/html,application/xhtml+xml;q=0.9'
        self.assertTrue(self.fetched(f'/?token={TOKEN}', accept=html).pasted)
        for target, headers in (
            (f'/?token={TOKEN}', {}),
            (f'/?token={TOKEN}', {'accept': 'application/json'}),
            ('/', {'accept': html}),
            ('/', {'accept': html, 'consoled_token': TOKEN}),
            (f'/websockify?token={TOKEN}', {'accept': html}),
        ):
            self.assertFalse(self.fetched(target, **headers).pasted, target)

    def test_the_path_is_decoded(self):
        self.assertEqual('/a b/ä', self.fetched('/a%20b/%C3%A4').path)
        self.assertEqual('/../etc/passwd', self.fetched('/%2e%2e/etc/passwd').path)

    def test_a_token_asks_for_the_reason_of_a_refusal(self):
        self.assertEqual(TOKEN, self.fetched(f'/?token={TOKEN}').token)

    def test_head(self):
        self.assertTrue(self.fetched('/', method='HEAD').head)

    def test_the_accept_header(self):
        for accept, wants in (
            ('application/json', True),
            ('text/html, Application/JSON;q=0.9', True),
            (['text/html', 'application/json'], True),
            ('text/html', False),
            ('*/*', False),
        ):
            self.assertEqual(wants, handshake.wants_json(page('/', accept=accept)), accept)
        self.assertFalse(handshake.wants_json(page('/')))

    def test_if_none_match(self):
        self.assertEqual('"x"', self.fetched('/', if_none_match='"x"').if_none_match)

    def test_an_upgrade_to_another_protocol_is_ignored(self):
        self.assertFalse(handshake.wants_websocket(request('/', upgrade='h2c')))
        self.assertTrue(handshake.wants_websocket(request('/', upgrade='h2c, WebSocket', method='POST')))
        self.assertIsInstance(decide(request('/', upgrade='h2c'), POLICY), Fetch)


# --- arbitrary requests ---

texts = st.text(st.characters(exclude_categories=()), max_size=30)  # surrogates, too: nothing may raise
plausible = st.sampled_from(
    [
        'websocket',
        'upgrade',
        'Upgrade, keep-alive',
        '13',
        '8',
        KEY,
        '0',
        'https://proxy.example:6080',
        'https://[::1',
        'http://a:99999',
        'null',
        'proxy.example:6080',
        '[::1]:6080',
        '10.0.0.1, 192.0.2.1',
        'application/json',
        f'consoled_token={TOKEN}',
        f'token={OTHER}; token',
        'consoled_token="\\',
        'consoled_token=\\\\"; $Version=1; a',
        f'binary, consoled.token.{TOKEN}',
    ]
)
header_names = st.sampled_from(
    [
        *HEAD,
        'origin',
        'cookie',
        'consoled-token',
        'accept',
        'content-length',
        'transfer-encoding',
        'sec-websocket-protocol',
        'if-none-match',
        'x-forwarded-for',
        'x-forwarded-proto',
        'x-forwarded-host',
    ]
)
changes = st.dictionaries(header_names, st.lists(st.one_of(plausible, texts), max_size=3), max_size=4)
targets = st.one_of(
    st.sampled_from(
        ['/', '/?token=', f'/?token={TOKEN}', '/?path=%3ftoken=%ff', '/?path=?path=?token=x', '/%', '*']
    ),
    texts,
    texts.map(lambda text: '/' + text),
    texts.map(lambda text: '/?token=' + text),
    texts.map(lambda text: '/?path=%3Ftoken=' + text),
    texts.map(lambda text: '/?' + parse.quote(text, safe='&=;?', errors='replace')),
)
requests = st.builds(
    lambda method, target, changed, gone, peer, secure, version: Request(
        method,
        target,
        {name: values for name, values in {**HEAD, **changed}.items() if name not in gone},
        peer,
        secure,
        version,
    ),
    st.sampled_from(['GET', 'GET', 'GET', 'HEAD', 'POST']),
    targets,
    changes,
    st.sets(header_names, max_size=1),
    st.one_of(st.none(), st.sampled_from(['10.0.0.1', '203.0.113.5', 'fe80::1%eth0', '']), texts),
    st.booleans(),
    st.sampled_from(['1.1', '1.1', '1.1', '1.0', '']),
)


def in_the_query(token):
    return f'/?token={token}', {}


def in_the_path(token):
    return f'/websockify?path=%3Ftoken%3D{token}', {}


def in_a_cookie(token):
    return '/', {'cookie': [f'a=b; consoled_token={token}']}


def in_the_cookie_of_nova(token):
    return '/', {'cookie': [f'a=b; token={token}']}


def in_a_header(token):
    return '/', {'consoled-token': [token]}


def in_a_subprotocol(token):
    return '/', {'sec-websocket-protocol': [f'binary, consoled.token.{token}']}


locations = st.sampled_from(
    [in_the_query, in_the_path, in_a_header, in_a_cookie, in_the_cookie_of_nova, in_a_subprotocol]
)
well_formed = st.from_regex(r'[A-Za-z0-9_-]{16,128}', fullmatch=True)
spoilers = st.sampled_from(
    [
        {},
        {'sec-websocket-version': ['8']},
        {'sec-websocket-key': ['x']},
        {'origin': ['null']},
        {'origin': ['https://evil.example']},
        {'content-length': ['1']},
        {'upgrade': ['h2c']},
        {'if-none-match': ['"a"', '"b"'], 'upgrade': ['h2c']},
        {'origin': ['a', 'b']},
    ]
)


class AnyRequestTest(testtools.TestCase):
    @settings(max_examples=400)
    @given(requests)
    def test_every_request_gets_a_decision(self, asked):
        decision = decide(asked, POLICY)
        if isinstance(decision, Refusal):
            self.assertIsInstance(decision.error, exception.ConsoledException)
            self.assertTrue(400 <= decision.error.http_status < 500)
            responses.refusal(decision.error, as_json=True)
        else:
            self.assertTrue(decision.token is None or tokens.well_formed(decision.token))
        if isinstance(decision, Upgrade):
            self.assertEqual('GET', asked.method)
            self.assertIn(decision.subprotocol, (None, 'binary', 'consoled', 'consoled.flow'))
            self.assertTrue(re.fullmatch(r'[A-Za-z0-9+/]{27}=', decision.accept))

    @given(requests)
    def test_a_foreign_origin_is_never_accepted(self, asked):
        """It must match the access URL regardless of the rest of the request."""
        asked = dataclasses.replace(
            asked, peer='203.0.113.5', headers={**asked.headers, 'origin': ['https://evil.example']}
        )
        assume('evil' not in str(asked.headers.get('host')))
        decision = decide(asked, POLICY)
        if isinstance(decision, Upgrade):
            self.assertEqual(WebPage(Origin('https', 'evil.example', 443), accepted=False), decision.page)

    @given(well_formed, locations, spoilers, st.sampled_from(['GET', 'HEAD', 'POST']))
    def test_invariant_1_no_text_contains_the_token(self, token, carrier, spoiler, method):
        """Neither texts that may be logged nor the response."""
        assume(token not in f'{HEAD} token consoled.token.')
        target, headers = carrier(token)
        asked = Request(method, target, {**HEAD, **headers, **spoiler}, '203.0.113.5', False)
        decision = decide(asked, POLICY)
        self.assertNotIn(token, repr(asked))
        self.assertNotIn(token, repr(decision))
        if isinstance(decision, Refusal):
            self.assertNotIn(token, str(decision.error))
            for as_json in (True, False):
                response, body = responses.refusal(decision.error, as_json=as_json)
                self.assertNotIn(token.encode(), body)
                self.assertNotIn(token, repr(response.headers))
        elif isinstance(decision, Upgrade) or carrier is not in_the_cookie_of_nova:
            self.assertEqual(token, decision.token)
        if isinstance(decision, Upgrade):
            self.assertNotIn(token, f'{decision.subprotocol} {decision.accept}')

    @given(well_formed, locations, locations)
    def test_the_same_token_in_two_locations(self, token, one, other):
        (target, first), (second_target, second) = one(token), other(token)
        asked = Request('GET', max(target, second_target), {**HEAD, **first, **second}, None, False)
        self.assertEqual(token, decide(asked, POLICY).token)
