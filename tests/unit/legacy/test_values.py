# SPDX-License-Identifier: Apache-2.0
"""The old service's values: how they are parsed, refused and formatted."""

import datetime
import json
from urllib import parse

import hypothesis
import testtools
from hypothesis import strategies as st

from consoled import objects
from consoled.legacy import values
from consoled.legacy.pickles import Cached, Refused
from consoled.manager import access_url

TOKEN = '0b5b1b0e-1111-4222-8333-444455556666'
INSTANCE = '1c5b1b0e-1111-4222-8333-444455556666'
NOW = 1795395813.5


def a_value(**changes):
    value = {
        'token': TOKEN,
        'instance_uuid': INSTANCE,
        'console_type': 'novnc',
        'host': '192.0.2.10',
        'port': 5900,
        'internal_access_path': None,
        'access_url': f'https://console.example.org/vnc_lite.html?path=%3Ftoken%3D{TOKEN}',
        'last_activity_at': NOW,
    }
    return value | changes


def read(value, stored_at=NOW):
    return values.parse_token(TOKEN, Cached(json.dumps(value), stored_at))


class ParseTokenTest(testtools.TestCase):
    def assert_refused(self, value, stored_at=NOW):
        error = self.assertRaises(Refused, read, value, stored_at)
        self.assertNotIn(TOKEN, str(error))
        self.assertNotIn('canary', str(error))

    def test_a_valid_value(self):
        found = read(a_value())
        self.assertEqual((INSTANCE, 'novnc', '192.0.2.10', 5900), (
            found.instance_uuid, found.console_type, found.host, found.port
        ))  # fmt: skip
        self.assertEqual('https://console.example.org/vnc_lite.html', found.access_url_base)
        self.assertEqual((None, NOW), (found.internal_access_path, found.issued_at))

    def test_each_field_but_the_url_is_required(self):
        for name in a_value():
            value = a_value()
            del value[name]
            if name == 'access_url':
                self.assertIsNone(read(value).access_url_base)
            else:
                self.assert_refused(value)

    def test_invalid_values_are_refused(self):
        for name, wrong in {
            'token': (None, 1, '', TOKEN.upper(), [TOKEN], '0b5b1b0e-1111-4222-8333-444455556667'),
            'instance_uuid': (None, 1, '', 'canary', INSTANCE + '0', [INSTANCE], '{' + INSTANCE[1:-1] + '}'),
            'console_type': (None, 1, '', 'canary', ['novnc'], {'a': 1}, 'NOVNC'),
            'host': (None, 1, '', 'a b', 'canary/x', 'a' * 256, '-x', 'x\n', ['h'], 'user@host', '::g'),
            'port': (
                *(None, 0, -1, 65536, 2**70, 5900.0, True, '', 'canary', '0', '65536', '5900 ', '-1', '+1'),
                *('٥٩٠٠', '05900', [5900], {}, '1e3', '5900\n'),
            ),
            'internal_access_path': (1, ['x'], 'a\nb', 'x' * 1025, f'/x?{TOKEN}', {}),
            'access_url': (
                *(
                    1,
                    [],
                    {},
                    '',
                    'canary',
                    'ftp://x/',
                    'javascript:canary',
                    'http://',
                    'http://[canary',
                    '//x/y',
                ),
                *('http://u:canary@h/', 'http://x/\n', 'http://h/' + 'x' * 1100, f'http://{TOKEN}\u2100.x/'),
            ),
            'last_activity_at': (None, 'canary', '1', [], True, 0, -1, 2**33, 2**2000, 1e308),
        }.items():
            for value in wrong:
                self.assert_refused(a_value(**{name: value}))

    def test_text_that_is_not_json_is_refused(self):
        good = json.dumps(a_value())
        for text in (
            *(
                good.replace(str(NOW), 'NaN'),
                good.replace(str(NOW), 'Infinity'),
                good.replace(str(NOW), '1e999'),
            ),
            *('', 'null', '[]', '1', '"x"', good[:-1], good + 'x', '[' * 60000, '{"a":' * 10000, '9' * 5000),
            good.replace(str(NOW), '9' * 5000),
        ):
            self.assertRaises(Refused, values.parse_token, TOKEN, Cached(text, NOW))

    def test_ports_as_strings(self):
        """As some hypervisors' drivers passed them to the old service."""
        self.assertEqual(5900, read(a_value(port='5900')).port)
        self.assertEqual(65535, read(a_value(port='65535')).port)

    def test_an_empty_access_path_is_none(self):
        self.assertIsNone(read(a_value(internal_access_path='')).internal_access_path)

    def test_a_token_elsewhere_in_the_url_costs_only_the_url(self):
        self.assertIsNone(read(a_value(access_url=f'https://h/{TOKEN}?token={TOKEN}')).access_url_base)

    def test_the_earlier_moment_is_that_of_issue(self):
        self.assertEqual(NOW - 5, read(a_value(), NOW - 5).issued_at)
        self.assertEqual(NOW, read(a_value(), NOW + 5).issued_at)
        for stored_at in (0, -1.0, float('nan'), float('inf'), 2**2000):
            self.assert_refused(a_value(), stored_at)

    @hypothesis.given(
        st.dictionaries(
            st.sampled_from(sorted(a_value())),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=5,
            ),
        )
    )
    def test_any_fields_are_parsed_or_refused(self, changes):
        try:
            found = read(a_value(**changes))
        except Refused:
            return
        self.assertIsInstance(found.port, int)
        self.assertIn(found.console_type, objects.ConsoleType.ALL)


class FormatTest(testtools.TestCase):
    def test_a_token_is_formatted_as_by_the_old_service(self):
        grant = objects.ConsoleAuthToken(
            instance_uuid=INSTANCE,
            console_type='serial',
            host='h',
            port=10000,
            compute_host='node-1',
            token=TOKEN,
            access_url=f'ws://h/?token={TOKEN}',
            expires=datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC),
            options={'internal_access_path': '/x', 'mode': 'view'},
        )
        self.assertEqual(
            f'{{"token": "{TOKEN}", "instance_uuid": "{INSTANCE}", "console_type": "serial", "host": "h", '
            f'"port": 10000, "internal_access_path": "/x", "access_url": "ws://h/?token={TOKEN}", '
            f'"last_activity_at": {NOW}}}',
            values.format_token(grant, NOW),
        )
        found = values.parse_token(TOKEN, Cached(values.format_token(grant, NOW), NOW))
        self.assertEqual(('/x', 'ws://h/'), (found.internal_access_path, found.access_url_base))

    def test_lists(self):
        self.assertEqual([TOKEN], values.parse_list(Cached(values.format_list([TOKEN]), NOW)))
        mixed = [TOKEN, 'short', 1, None, TOKEN, 'x' * 129, 'a b c d e f g h i j', [TOKEN], INSTANCE]
        self.assertEqual([TOKEN, INSTANCE], values.parse_list(Cached(json.dumps(mixed), NOW)))
        for wrong in ({}, 'x', 1, None, [TOKEN] * (values.MAX_LISTED + 1)):
            self.assertRaises(Refused, values.parse_list, Cached(json.dumps(wrong), NOW))
        many = [f'{number:020}' for number in range(values.MAX_LISTED + 5)]
        self.assertEqual(many[5:], values.parse_list(Cached(values.format_list(many), NOW)))
        self.assertLess(len(values.format_list([TOKEN] * values.MAX_LISTED)), values.MAX_LIST_BYTES - 1000)


_WORDS = st.text('abcXYZ019-_.~ /?&=%+äß', max_size=12)
_QUERY = st.lists(st.tuples(st.text('abcpath', min_size=1, max_size=5), _WORDS), max_size=4)


class StripTokenTest(testtools.TestCase):
    def test_examples(self):
        for url, base in {
            f'http://h:6080/vnc_auto.html?token={TOKEN}': 'http://h:6080/vnc_auto.html',
            f'http://h/x?path=%3Ftoken%3D{TOKEN}': 'http://h/x',
            f'http://h/x?path=websockify%3Ftoken%3D{TOKEN}': 'http://h/x?path=websockify',
            f'http://h/x?path=w%3Fa%3Db%26token%3D{TOKEN}&z=1': 'http://h/x?path=w%3Fa%3Db&z=1',
            f'http://h/x?path=?token={TOKEN}': 'http://h/x',
            f'http://h/x?title=a%20b+c&token={TOKEN}#top': 'http://h/x?title=a%20b+c#top',
            f'http://h/x?to%6ben={TOKEN}': 'http://h/x',
            'http://h/x?path=a%2Fb&c': 'http://h/x?path=a%2Fb&c',
            f'http://h/{TOKEN}': None,
            f'http://h/x#{TOKEN}': None,
            f'http://h/x?a={TOKEN.upper()}': None,
            f'http://h/x?a=%25{ord(TOKEN[0]):02x}{TOKEN[1:]}': None,
            f'http://{TOKEN}.example.org/': None,
        }.items():
            self.assertEqual(base, values.strip_token(url, TOKEN), url)

    @hypothesis.given(_QUERY, st.sampled_from(objects.ConsoleType.ALL))
    def test_stripping_a_url_that_the_manager_built_can_be_undone(self, query, console_type):
        base = 'https://console.example.org/page.html'
        if query:
            base += '?' + parse.urlencode(query)
        url = access_url.build(base, console_type, TOKEN)
        found = values.strip_token(url, TOKEN)
        self.assertNotIn(TOKEN, found)
        again = parse.parse_qsl(parse.urlsplit(access_url.build(found, console_type, TOKEN)).query, True)
        self.assertEqual(sorted(parse.parse_qsl(parse.urlsplit(url).query, True)), sorted(again))

    @hypothesis.given(
        st.lists(st.sampled_from(['token', TOKEN, '=', '&', '?', '%3F', '%26', '%3D', 'path', '/', '#', 'x']))
    )
    def test_the_token_is_gone_or_there_is_no_url(self, pieces):
        found = values.strip_token('http://h/?' + ''.join(pieces), TOKEN)
        self.assertNotIn(TOKEN, parse.unquote(parse.unquote(found or '')))
