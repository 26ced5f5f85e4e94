# SPDX-License-Identifier: Apache-2.0
"""Objects of other versions, malformed objects, and contexts."""

import json

import fixtures as fixtures_library
import testtools
from hypothesis import given
from hypothesis import strategies as st
from oslo_context import context as oslo_context

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.rpc.serializer import ReplySerializer, Serializer
from tests.functional import base

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
INSTANCE = '2f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'


class SerializerTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.context = RequestContext()
        self.console = base.a_console(INSTANCE, 5900)

    def primitive(self, **changes):
        return {**Serializer().serialize_entity(self.context, self.console), **changes}

    def read(self, primitive, **options):
        return Serializer(**options).deserialize_entity(self.context, primitive)

    def test_an_object_comes_back(self):
        wire = json.loads(json.dumps(self.primitive()))
        self.assertEqual(self.console.obj_to_primitive(), self.read(wire).obj_to_primitive())

    def test_an_object_is_sent_in_its_pinned_version(self):
        self.useFixture(fixtures_library.MonkeyPatch('consoled.objects.ConsoleConnection.VERSION', '1.1'))
        for pins, sent in (
            ({'ConsoleConnection': '1.0'}, '1.0'),
            ({}, '1.1'),
            ({'ConsoleSession': '1.0'}, '1.1'),
        ):
            primitive = Serializer(pins).serialize_entity(self.context, self.console)
            self.assertEqual(sent, primitive['consoled_object.version'])

    def test_an_object_that_is_too_new_is_asked_for_in_an_older_form(self):
        newer = self.primitive(**{'consoled_object.version': '1.7'})
        asked = []

        def backport(context, primitive, wanted):
            asked.append((primitive, wanted['ConsoleConnection']))
            return self.console

        self.assertIs(self.console, self.read(newer, backport=backport))
        self.assertEqual([(newer, objects.ConsoleConnection.VERSION)], asked)

    def test_without_a_newer_peer_to_ask_it_is_refused(self):
        newer = self.primitive(**{'consoled_object.version': '1.7'})
        error = self.assertRaises(exception.IncompatibleObject, self.read, newer)
        self.assertEqual(('ConsoleConnection', '1.7'), (error.kwargs['name'], error.kwargs['version']))

    def test_a_malformed_object_is_refused_without_its_values(self):
        data = dict(self.primitive()['consoled_object.data'])
        for wrong in (
            self.primitive(**{'consoled_object.data': {**data, 'port': 'canary'}}),
            self.primitive(**{'consoled_object.data': {**data, 'options': {'canary': 1}}}),
            self.primitive(**{'consoled_object.name': 'Canary'}),
            self.primitive(**{'consoled_object.namespace': 'canary'}),
            self.primitive(**{'consoled_object.version': 'canary'}),
            self.primitive(**{'consoled_object.version': '1.canary'}),
            self.primitive(**{'consoled_object.version': ['canary']}),
            self.primitive(**{'consoled_object.name': ['canary']}),
        ):
            error = self.assertRaises(exception.ConsoledException, self.read, wrong)
            self.assertIn(error.code, ('invalid_argument', 'incompatible_object'))
            self.assertNotIn('canary', str(error))

    def test_no_name_or_version_that_a_peer_gives_is_logged(self):
        logged = self.useFixture(fixtures_library.FakeLogger(level=1))
        nested = {**self.primitive(), 'consoled_object.name': 'canary'}
        for wrong in (
            self.primitive(**{'consoled_object.name': 'canary'}),
            self.primitive(
                **{
                    'consoled_object.name': 'ConsoleConnectionList',
                    'consoled_object.data': {'objects': [nested]},
                }
            ),
        ):
            self.assertRaises(exception.InvalidArgument, self.read, wrong)
        self.assertNotIn('canary', logged.output)

    def test_a_malformed_reply_is_no_fault_of_the_caller(self):
        wrong = self.primitive(**{'consoled_object.data': {'port': 'canary'}})
        logged = self.useFixture(fixtures_library.FakeLogger(level=1))
        error = self.assertRaises(
            exception.InternalError, ReplySerializer().deserialize_entity, self.context, wrong
        )
        self.assertNotIn('canary', f'{error}{logged.output}')
        self.assertIn('A reply is malformed: Argument object: port', logged.output)

    def test_a_context_of_another_service_is_sent_as_ours(self):
        own = oslo_context.RequestContext(user_id='u', project_id='p', auth_token='canary')
        expected = {'user_id': 'u', 'project_id': 'p', 'request_id': own.request_id}
        self.assertEqual(expected, Serializer().serialize_context(own))
        self.assertEqual(expected, Serializer().serialize_context(own.to_dict()))

    @given(
        data=JSON,
        name=st.sampled_from(['ConsoleConnection', 'ConsoleSession', 'ConsoleAuthToken', 'x']) | JSON,
        version=st.sampled_from(['1.0', '1.0.1', '1.1', '2.0', '1']) | JSON,
    )
    def test_whatever_a_peer_sends_is_read_or_refused(self, data, name, version):
        primitive = {
            'consoled_object.name': name,
            'consoled_object.namespace': 'consoled',
            'consoled_object.version': version,
            'consoled_object.data': data,
        }
        try:
            Serializer().deserialize_entity(RequestContext(), primitive)
        except exception.ConsoledException as refused:
            self.assertIn(refused.code, ('invalid_argument', 'incompatible_object'))

    def test_a_context_comes_back_as_one_of_ours(self):
        sent = RequestContext(user_id='u', project_id='p')
        received = Serializer().deserialize_context(Serializer().serialize_context(sent))
        self.assertIsInstance(received, RequestContext)
        self.assertEqual(sent.to_wire(), received.to_wire())
