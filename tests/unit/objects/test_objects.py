# SPDX-License-Identifier: Apache-2.0
"""The wire contract: fingerprints, compatibility, bounds, secrets (invariants 1 and 10 of doc/design.md)."""

import datetime

import testtools
from hypothesis import given
from hypothesis import strategies as st
from oslo_versionedobjects import base as ovo_base
from oslo_versionedobjects import fields as ovo_fields
from oslo_versionedobjects import fixture

from consoled import exception, objects
from consoled.objects import base
from consoled.rpc import versions
from consoled.rpc.serializer import Serializer

# A change here means that the wire changed: raise the object's VERSION, teach obj_make_compatible the
# older form, add the version to rpc/versions.py, and only then put the new fingerprint here.
FINGERPRINTS = {
    'ConsoleAuthToken': '1.0-2c7a8224e1f9804e4431ab885f2469f8',
    'ConsoleConnection': '1.0-653725acd2771a17d185336213f2c622',
    'ConsoleConnectionList': '1.0-15ecf022a68ddbb8c2a6739cfc9f8f5e',
    'ConsoleSession': '1.0-6cc2e5d624d18e4ed30b2a0f9f792a82',
    'ConsoleSessionList': '1.0-15ecf022a68ddbb8c2a6739cfc9f8f5e',
}

UUID = '0f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'
OURS = {
    name: classes
    for name, classes in base.ConsoledObjectRegistry.obj_classes().items()
    if classes[0].OBJ_PROJECT_NAMESPACE == 'consoled'
}


def data(entity):
    return entity.obj_to_primitive()['consoled_object.data']


def a_token(**changes):
    values = {
        'instance_uuid': UUID,
        'console_type': 'novnc',
        'host': '192.0.2.7',
        'port': 5900,
        'compute_host': 'node-7',
        'access_url_base': 'https://console.example.org/vnc.html',
        'options': {'tls_port': None, 'mode': 'view'},
        'token': None,
        'access_url': None,
        'expires': datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC),
        'user_id': 'u',
        'project_id': 'p',
    }
    return objects.ConsoleAuthToken(**(values | changes))


class ContractTest(testtools.TestCase):
    def test_fingerprints(self):
        checker = fixture.ObjectVersionChecker(OURS)
        expected, actual = checker.test_hashes(FINGERPRINTS)
        self.assertEqual(expected, actual, 'an object changed: see the comment at FINGERPRINTS')

    def test_every_object_has_a_row_in_the_newest_contract(self):
        newest = versions.OBJECTS_OF_VERSION[versions.RPC_VERSION]
        self.assertEqual({name: classes[0].VERSION for name, classes in OURS.items()}, newest)

    def test_namespaces(self):
        primitive = a_token().obj_to_primitive()
        self.assertEqual('consoled', primitive['consoled_object.namespace'])
        self.assertEqual('ConsoleAuthToken', primitive['consoled_object.name'])

    def test_the_wire_form_is_that_of_the_library_without_the_changes(self):
        console = objects.ConsoleConnection(
            instance_uuid=UUID, console_type='serial', host='::1', port=1, compute_host='c'
        )
        for entity in (a_token(), console, objects.ConsoleConnectionList(objects=[console])):
            expected = ovo_base.VersionedObject.obj_to_primitive(entity)
            expected.pop('consoled_object.changes')
            self.assertEqual(expected, entity.obj_to_primitive())

    def test_an_object_survives_the_wire(self):
        token = a_token()
        back = objects.ConsoleAuthToken.obj_from_primitive(token.obj_to_primitive())
        self.assertEqual(data(token), data(back))

    def test_no_repr_shows_a_secret(self):
        token = a_token(token='canary-canary-canary', access_url='https://x/?token=canary-canary-canary')
        for shown in (repr(token), str(token), f'{token}', str([token]), repr({'t': token})):
            self.assertNotIn('canary', shown)


class CompatibilityTest(testtools.TestCase):
    """Invariant 10: two releases side by side, the next one being made up here."""

    def setUp(self):
        super().setUp()

        class NewerToken(objects.ConsoleAuthToken):
            VERSION = '1.1'
            fields = {**objects.ConsoleAuthToken.fields, 'colour': ovo_fields.StringField(nullable=True)}

            @classmethod
            def obj_name(cls):
                return 'ConsoleAuthToken'

            def obj_make_compatible(self, primitive, target_version):
                super().obj_make_compatible(primitive, target_version)
                if target_version == '1.0':
                    primitive.pop('colour', None)

        self.newer = NewerToken(colour='red', **data(a_token()))

    def test_invariant_10_a_pinned_newer_service_speaks_the_older_form(self):
        sent = Serializer(pins={'ConsoleAuthToken': '1.0'}).serialize_entity(None, self.newer)
        self.assertEqual('1.0', sent['consoled_object.version'])
        received = Serializer().deserialize_entity(None, sent)
        self.assertEqual(data(a_token()), data(received))

    def test_invariant_10_an_older_service_asks_for_the_older_form(self):
        asked = []

        def backport(context, primitive, wanted):
            asked.append(wanted)
            return self.newer.__class__.obj_name() and objects.ConsoleAuthToken.obj_from_primitive(
                self.newer.obj_to_primitive(target_version=wanted['ConsoleAuthToken'])
            )

        sent = Serializer().serialize_entity(None, self.newer)
        self.assertEqual('1.1', sent['consoled_object.version'])
        received = Serializer(backport=backport).deserialize_entity(None, sent)
        self.assertEqual([{'ConsoleAuthToken': '1.0'}], asked)
        self.assertEqual(data(a_token()), data(received))

    def test_a_newer_object_is_refused_where_nobody_can_be_asked(self):
        sent = Serializer().serialize_entity(None, self.newer)
        error = self.assertRaises(exception.IncompatibleObject, Serializer().deserialize_entity, None, sent)
        self.assertEqual('incompatible_object', error.code)

    def test_a_patch_version_is_accepted(self):
        sent = a_token().obj_to_primitive()
        sent['consoled_object.version'] = '1.0.5'
        self.assertEqual(data(a_token()), data(Serializer().deserialize_entity(None, sent)))


def json_values():
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
        max_leaves=10,
    )


class HostilePeerTest(testtools.TestCase):
    @given(name=st.sampled_from(sorted(objects.ConsoleAuthToken.fields)), value=json_values())
    def test_a_field_is_accepted_or_refused(self, name, value):
        primitive = a_token().obj_to_primitive()
        primitive['consoled_object.data'][name] = value
        try:
            received = Serializer().deserialize_entity(None, primitive)
        except exception.InvalidArgument as refused:
            self.assertEqual('invalid_argument', refused.code)
        else:
            self.assertIsInstance(received, objects.ConsoleAuthToken)
            received.obj_to_primitive()

    @given(value=json_values(), key=st.sampled_from(['data', 'version', 'name', 'namespace', 'changes']))
    def test_an_envelope_is_accepted_or_refused(self, key, value):
        primitive = a_token().obj_to_primitive()
        primitive[f'consoled_object.{key}'] = value
        try:
            Serializer().deserialize_entity(None, primitive)
        except (exception.InvalidArgument, exception.IncompatibleObject) as refused:
            self.assertIn(refused.code, ('invalid_argument', 'incompatible_object'))

    def test_a_refusal_does_not_repeat_the_value(self):
        for name in ('token', 'host', 'instance_uuid', 'port', 'console_type', 'options', 'expires'):
            primitive = a_token().obj_to_primitive()
            primitive['consoled_object.data'][name] = 'canary\x00' * 4
            error = self.assertRaises(
                exception.InvalidArgument, Serializer().deserialize_entity, None, primitive
            )
            self.assertNotIn('canary', str(error))


class ConsoleTest(testtools.TestCase):
    def test_the_console_of_a_token(self):
        token = a_token()
        console = token.console()
        self.assertIsInstance(console, objects.ConsoleConnection)
        for name in objects.ConsoleConnection.fields:
            self.assertEqual(getattr(token, name), getattr(console, name), name)

    def test_a_token_for_no_particular_console_has_none(self):
        for missing in ('host', 'port'):
            self.assertRaises(ValueError, a_token(**{missing: None}).console)

    def test_a_truth_value_is_one(self):
        for value in ('false', 'true', 0, 1, []):
            self.assertRaises(ValueError, objects.ConsoleSession, limited=value)
        self.assertIs(True, objects.ConsoleSession(limited=True).limited)

    def test_moments_can_be_sent(self):
        good = '2026-01-01T00:00:00Z'
        for value in ('0001-01-01T00:00:00+14:00', '9999-12-31T23:59:59-12:00', good + 'x' * 99):
            self.assertRaises(ValueError, objects.ConsoleSession, ends_at=value)
        self.assertEqual(2026, objects.ConsoleSession(ends_at=good).ends_at.year)

    def test_a_copy_is_independent(self):
        token = a_token()
        copied = token.copy()
        copied.options['mode'] = 'other'
        copied.port = 1
        self.assertEqual((5900, 'view'), (token.port, token.options['mode']))


class ListTest(testtools.TestCase):
    def test_lists_travel(self):
        console = objects.ConsoleConnection(
            instance_uuid=UUID, console_type='serial', host='::1', port=1, compute_host='c'
        )
        listed = objects.ConsoleConnectionList(objects=[console])
        received = Serializer().deserialize_entity(None, Serializer().serialize_entity(None, listed))
        self.assertEqual(1, received.objects[0].port)
        self.assertIsInstance(received, ovo_base.ObjectListBase)
