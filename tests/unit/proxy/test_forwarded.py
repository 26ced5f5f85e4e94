# SPDX-License-Identifier: Apache-2.0
"""Identifying clients: forwarded headers count only from trusted peers."""

import ipaddress

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.forwarded import Client, contains, identify_client, parse_address, parse_networks

TRUSTED = parse_networks(['10.0.0.0/8', 'fd00::/8'], 'x')

proxies = st.one_of(
    st.ip_addresses(network='10.0.0.0/8').map(str), st.ip_addresses(network='fd00::/8').map(str)
)
users = st.one_of(
    st.ip_addresses(network='203.0.113.0/24').map(str), st.ip_addresses(network='2001:db8::/32').map(str)
)
junk = st.one_of(st.sampled_from(['', 'unknown', '_hidden', '[', 'a.b.c.d', '1.2.3']), st.text(max_size=20))
names = st.sampled_from(['host', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'forwarded'])
values = st.one_of(junk, users, proxies, st.sampled_from(['https', 'http, https', 'ws', 'a.example']))
any_headers = st.dictionaries(names, st.lists(values, max_size=3))


def client_address(peer, *chains, trusted=TRUSTED):
    return identify_client(peer, 'http', {'x-forwarded-for': list(chains)}, trusted).address


class ParseAddressTest(testtools.TestCase):
    def test_forms(self):
        for text, address in (
            ('192.0.2.1', '192.0.2.1'),
            (' 192.0.2.1 ', '192.0.2.1'),
            ('192.0.2.1:50000', '192.0.2.1'),
            ('2001:db8::1', '2001:db8::1'),
            ('2001:DB8:0::0001', '2001:db8::1'),
            ('[2001:db8::1]', '2001:db8::1'),
            ('[2001:db8::1]:50000', '2001:db8::1'),
            ('"[2001:db8::1]:50000"', '2001:db8::1'),
            ('fe80::1%eth0', 'fe80::1'),
            ('::ffff:192.0.2.1', '192.0.2.1'),
            ('[::ffff:c000:201]:1', '192.0.2.1'),
        ):
            self.assertEqual(ipaddress.ip_address(address), parse_address(text), text)

    def test_other_texts_are_not_addresses(self):
        for text in (
            '',
            'unknown',
            '_x',
            '192.0.2',
            '192.0.2.1.2',
            '192.0.2.256',
            '::1::',
            '[',
            '[]',
            'a:1',
            '\u0661.2.3.4',
        ):
            self.assertIsNone(parse_address(text), text)

    @given(st.one_of(st.text(), junk))
    def test_it_never_raises(self, text):
        parse_address(text)

    @given(st.ip_addresses(), st.integers(0, 65535))
    def test_a_port_makes_no_difference(self, address, port):
        text = f'[{address}]:{port}' if address.version == 6 else f'{address}:{port}'
        self.assertEqual(parse_address(str(address)), parse_address(text))


class NetworksTest(testtools.TestCase):
    def test_networks_and_addresses(self):
        found = parse_networks(['10.0.0.0/8', ' 192.0.2.1 ', '2001:db8::1', '10.1.2.3/24'], 'x')
        for text in ('10.200.0.1', '192.0.2.1', '2001:db8::1', '10.1.2.99'):
            self.assertTrue(contains(found, parse_address(text)), text)
        for text in ('11.0.0.1', '192.0.2.2', '2001:db8::2'):
            self.assertFalse(contains(found, parse_address(text)), text)

    def test_other_texts_are_errors(self):
        for text in ('', 'example.org', '10.0.0.0/33', '10.0.0'):
            self.assertRaises(ValueError, parse_networks, [text], 'x')

    def test_no_address_and_no_networks(self):
        self.assertFalse(contains(TRUSTED, None))
        self.assertFalse(contains([], parse_address('10.0.0.1')))

    def test_a_mapped_address_counts_as_ipv4(self):
        self.assertTrue(contains(TRUSTED, parse_address('::ffff:10.0.0.1')))


class IdentifyClientTest(testtools.TestCase):
    def test_a_direct_client(self):
        self.assertEqual(
            Client('203.0.113.5', 'https', 'a.example:6080'),
            identify_client('203.0.113.5', 'https', {'host': ['a.example:6080']}, TRUSTED),
        )

    def test_a_mapped_peer_is_an_ipv4_client(self):
        self.assertEqual('203.0.113.5', client_address('::ffff:203.0.113.5'))

    def test_a_mapped_peer_can_be_trusted(self):
        self.assertEqual('203.0.113.5', client_address('::ffff:10.0.0.1', '203.0.113.5'))

    def test_a_trusted_peer_forwards_address_scheme_and_host(self):
        headers = {
            'host': ['10.0.0.9:6080'],
            'x-forwarded-for': ['203.0.113.5'],
            'x-forwarded-proto': ['https'],
            'x-forwarded-host': ['console.example'],
        }
        self.assertEqual(
            Client('203.0.113.5', 'https', 'console.example', 'https'),
            identify_client('10.0.0.1', 'http', headers, TRUSTED),
        )

    def test_a_unix_socket_is_trusted(self):
        headers = {
            'x-forwarded-for': ['203.0.113.5'],
            'x-forwarded-proto': ['wss'],
            'x-forwarded-host': ['a'],
        }
        self.assertEqual(
            Client('203.0.113.5', 'https', 'a', 'https'), identify_client(None, 'http', headers, ())
        )

    def test_without_a_header_the_peer_is_the_client(self):
        self.assertEqual('10.0.0.1', client_address('10.0.0.1'))
        self.assertIsNone(client_address(None))

    def test_forwarded_headers_are_independent(self):
        self.assertEqual(
            Client('10.0.0.1', 'https', 'a.example', 'https'),
            identify_client(
                '10.0.0.1', 'http', {'host': ['a.example'], 'x-forwarded-proto': ['HTTPS']}, TRUSTED
            ),
        )

    def test_an_unknown_scheme_is_ignored(self):
        for proto in ('', 'ftp', 'https://', 'javascript'):
            client = identify_client('10.0.0.1', 'http', {'x-forwarded-proto': [proto]}, TRUSTED)
            self.assertEqual('http', client.scheme, proto)

    def test_the_last_value_counts(self):
        headers = {
            'x-forwarded-proto': ['http', 'http, https'],
            'x-forwarded-host': ['evil.example', 'x, b.example'],
        }
        client = identify_client('10.0.0.1', 'http', headers, TRUSTED)
        self.assertEqual(('https', 'b.example'), (client.scheme, client.host))

    def test_a_chain_of_proxies(self):
        self.assertEqual('203.0.113.5', client_address('10.0.0.1', '203.0.113.5, 10.0.0.3, 10.0.0.2'))
        self.assertEqual('203.0.113.5', client_address('10.0.0.1', '203.0.113.5', '10.0.0.3', '10.0.0.2'))

    def test_addresses_invented_by_the_user_are_ignored(self):
        self.assertEqual('203.0.113.5', client_address('10.0.0.1', '198.51.100.1, 10.0.0.9, 203.0.113.5'))

    def test_if_all_are_trusted_the_first_is_the_client(self):
        self.assertEqual('10.9.9.9', client_address('10.0.0.1', '10.9.9.9, 10.0.0.2'))

    def test_everything_left_of_a_malformed_address_is_ignored(self):
        self.assertEqual('10.0.0.2', client_address('10.0.0.1', '203.0.113.5, unknown, 10.0.0.2'))
        self.assertEqual('10.0.0.1', client_address('10.0.0.1', '203.0.113.5, '))

    def test_a_malformed_peer_has_no_address(self):
        self.assertIsNone(client_address('not an address', '203.0.113.5'))

    def test_the_length_of_a_chain_is_limited(self):
        self.assertEqual(
            '10.0.0.1', client_address('10.0.0.1', ','.join(['203.0.113.5'] + ['10.0.0.1'] * 1000))
        )

    @given(users, any_headers)
    def test_an_untrusted_peer_cannot_forward_anything(self, peer, headers):
        client = identify_client(peer, 'http', headers, TRUSTED)
        self.assertEqual((peer, 'http'), (client.address, client.scheme))
        self.assertEqual(identify_client(peer, 'http', {'host': headers.get('host', [])}, ()), client)

    @given(
        st.one_of(st.none(), proxies),
        st.lists(st.one_of(junk.map(lambda text: text.replace(',', '')), users, proxies), max_size=5),
        users,
        st.lists(proxies, max_size=5),
    )
    def test_the_right_most_untrusted_address_is_the_client(self, peer, made_up, user, chain):
        self.assertEqual(user, client_address(peer, ', '.join([*made_up, user, *chain])))

    @given(st.one_of(st.none(), users, proxies, junk), any_headers)
    def test_it_never_raises_and_returns_valid_values(self, peer, headers):
        client = identify_client(peer, 'https', headers, TRUSTED)
        if client.address is not None:
            self.assertEqual(client.address, str(ipaddress.ip_address(client.address)))
        self.assertIn(client.scheme, ('http', 'https'))
