# SPDX-License-Identifier: Apache-2.0
"""Field types: what they accept, what they refuse, and that they never show a refused value."""

import datetime
import uuid

import testtools
from hypothesis import assume, given
from hypothesis import strategies as st

from consoled import objects
from consoled.objects import fields

UUID = '0f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'
ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.text())
)


class UUIDTest(testtools.TestCase):
    @given(st.uuids())
    def test_uuids_are_made_canonical(self, value):
        self.assertEqual(str(value), fields.checked_uuid(str(value).upper()))

    def test_other_forms_are_refused(self):
        for value in (
            '',
            'x' * 36,
            UUID.replace('-', ''),
            '{' + UUID + '}',
            UUID + '\n',
            'urn:uuid:' + UUID[9:],
            None,
            7,
            uuid.UUID(UUID),
        ):
            self.assertRaises(ValueError, fields.checked_uuid, value)


class PortTest(testtools.TestCase):
    @given(st.integers())
    def test_ports_are_integers_from_1_to_65535(self, value):
        if 1 <= value <= 65535:
            self.assertEqual(value, fields.checked_port(value))
        else:
            self.assertRaises(ValueError, fields.checked_port, value)

    def test_other_types_are_refused(self):
        for value in (True, '5900', 5900.0, None):
            self.assertRaises(ValueError, fields.checked_port, value)


class TextTest(testtools.TestCase):
    @given(ANYTHING, st.integers(1, 20))
    def test_text_is_printable_bounded_and_without_blanks_at_its_ends(self, value, max_length):
        good = isinstance(value, str) and 1 <= len(value) <= max_length
        good = good and value.isprintable() and value == value.strip()
        if good:
            self.assertEqual(value, fields.checked_text(value, max_length))
        else:
            self.assertRaises(ValueError, fields.checked_text, value, max_length)


class HostTest(testtools.TestCase):
    def test_hosts(self):
        for value in ('10.0.0.1', '::1', 'fe80::1', 'node-7', 'node_7.example.org', 'a'):
            self.assertEqual(value, fields.checked_host(value))
        for value in ('', ' a', 'a b', 'a\n', 'a/b', 'a:80', 'http://a', '-a', '[::1]', 'a' * 256, None):
            self.assertRaises(ValueError, fields.checked_host, value)

    def test_an_address_has_one_form(self):
        """Addresses are compared as texts."""
        for value in ('::ffff:192.0.2.10', '::FFFF:c000:20a', '0:0:0:0:0:ffff:192.0.2.10'):
            self.assertEqual('192.0.2.10', fields.checked_host(value))
        self.assertEqual('2001:db8::a', fields.checked_host('2001:DB8:0:0::000A'))
        for value in ('10.1', '167772161', '0x0a000001', '0x0a.1', '012.0.0.1', '192.0.2.10.', '1.2.3.4.5'):
            self.assertRaises(ValueError, fields.checked_host, value)
        for value in ('node.7', '7.example.org', '0xyz', 'a0x1'):
            self.assertEqual(value, fields.checked_host(value))

    def test_a_name_has_one_form(self):
        for value in ('node-7.example.org.', 'Node-7.EXAMPLE.org', 'NODE-7.example.org.'):
            self.assertEqual('node-7.example.org', fields.checked_host(value))

    def test_a_zone_is_refused(self):
        """It would be another form of the address: to a global one it changes nothing."""
        for value in ('2001:db8::a%1', 'fe80::1%eth0', '::1%0', '::ffff:192.0.2.10%1'):
            self.assertRaises(ValueError, fields.checked_host, value)

    def test_an_address_of_any_machine_is_refused(self):
        for value in ('0.0.0.0', '::', '::ffff:0.0.0.0', '0:0::0'):
            self.assertRaises(ValueError, fields.checked_host, value)

    @given(st.ip_addresses())
    def test_all_other_addresses_are_hosts(self, address):
        mapped = getattr(address, 'ipv4_mapped', None)
        assume(not (mapped or address).is_unspecified)
        self.assertEqual(str(mapped or address), fields.checked_host(str(address)))


class OptionsTest(testtools.TestCase):
    def test_options_are_bounded(self):
        check = fields.Options().check
        self.assertEqual({'mode': None}, check({'mode': None}))
        for value in ([], 'x', {'a': 1}, {1: 'a'}, {'a': 'x' * 1025}, {str(i): 'x' for i in range(17)}):
            self.assertRaises(ValueError, check, value)

    def test_a_tls_port_is_a_port_in_one_form(self):
        check = fields.Options().check
        for value in ('1', '5901', '65535', None):
            self.assertEqual({'tls_port': value}, check({'tls_port': value}))
        for value in ('0', '65536', '05901', '+1', '5_901', '५९०१', 'x'):
            self.assertRaises(ValueError, check, {'tls_port': value})

    def test_the_value_is_copied(self):
        given_options = {'mode': 'view'}
        console = a_console(options=given_options)
        given_options['mode'] = 'changed'
        self.assertEqual({'mode': 'view'}, console.options)

    def test_no_repr_shows_a_value(self):
        self.assertNotIn('canary', repr(a_console(options={'mode': 'canary'})))


def a_console(**changes):
    values = {
        'instance_uuid': UUID,
        'console_type': 'serial',
        'host': '192.0.2.7',
        'port': 5900,
        'compute_host': 'node-7',
    }
    return objects.ConsoleConnection(**(values | changes))


class ObjectTest(testtools.TestCase):
    """The types as fields of an object."""

    @given(st.sampled_from(sorted(objects.ConsoleConnection.fields)), ANYTHING)
    def test_a_refusal_names_the_field_and_not_the_value(self, name, value):
        console = a_console()
        before = console.obj_to_primitive()
        try:
            setattr(console, name, value)
        except ValueError as exc:
            refusals = (f'{name} must be', f"Field `{name}' cannot be None")
            self.assertTrue(str(exc).startswith(refusals), exc)
            if isinstance(value, str) and len(value) > 8:
                self.assertNotIn(value, str(exc))
            self.assertEqual(before, console.obj_to_primitive())
        else:
            console.obj_to_primitive()

    def test_console_types(self):
        for console_type in objects.ConsoleType.ALL:
            self.assertEqual(console_type, a_console(console_type=console_type).console_type)
        self.assertRaises(ValueError, a_console, console_type='xvpvnc')

    def test_moments_have_a_zone_and_travel_in_whole_seconds(self):
        moment = datetime.datetime(2026, 11, 30, 12, 0, 1, 999999, datetime.UTC)
        token = objects.ConsoleAuthToken(expires=moment)
        self.assertEqual(moment, token.expires)
        primitive = token.obj_to_primitive()
        self.assertEqual('2026-11-30T12:00:01Z', primitive['consoled_object.data']['expires'])
        self.assertEqual(
            moment.replace(microsecond=0), objects.ConsoleAuthToken.obj_from_primitive(primitive).expires
        )
        for wrong in ('noon', 5, [], '2026-13-01'):
            error = self.assertRaises(ValueError, objects.ConsoleAuthToken, expires=wrong)
            self.assertEqual('expires must be an ISO 8601 date and time', str(error))

    def test_a_secret_is_sent_and_not_shown(self):
        token = objects.ConsoleAuthToken(token='canary-canary-canary')
        self.assertEqual('canary-canary-canary', token.obj_to_primitive()['consoled_object.data']['token'])
        self.assertNotIn('canary', repr(token))
