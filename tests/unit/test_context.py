# SPDX-License-Identifier: Apache-2.0
"""The request context, to and from the wire."""

import fixtures
import testtools
from hypothesis import given
from hypothesis import strategies as st
from oslo_context import context as oslo_context

from consoled.context import RequestContext, wire_form

REQUEST = 'req-0f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'
GLOBAL = 'req-5c8a1c1e-7f9b-4a55-9d0c-2f4b5a0e1d11'
IDS = {'request_id': REQUEST, 'global_request_id': GLOBAL}

# What to_dict writes, by who does: the keys that name a user, a project or a request.
WRITTEN = {
    'consoled': {'user_id': 'u', 'project_id': 'p'},
    'oslo.context 0.1': {'user': 'u', 'tenant': 'p', 'user_identity': 'u p - - -'},
    'oslo.context 2.19': {'user': 'u', 'tenant': 'p', 'project': 'p', 'user_identity': 'u p - - -'},
    'oslo.context 4.0': {'user': 'u', 'project_id': 'p', 'project': 'p', 'user_identity': 'u p - - -'},
    'nova': {
        'user': 'u',
        'user_id': 'u',
        'tenant': 'p',
        'project': 'p',
        'project_id': 'p',
        'read_deleted': 'no',
        'service_catalog': [],
        'timestamp': '2026-01-01T00:00:00.000000',
    },
    'neutron': {'user_id': 'u', 'tenant_id': 'p', 'tenant': 'p', 'tenant_name': 'a name'},
}


class ContextTest(testtools.TestCase):
    def test_user_project_and_request_id_travel(self):
        sent = RequestContext(user_id='u', project_id='p')
        received = RequestContext.from_wire(sent.to_wire())
        self.assertEqual(sent.to_wire(), received.to_wire())

    def test_nothing_else_travels(self):
        sent = RequestContext(user_id='u', auth_token='canary', roles=['admin'], is_admin=True)
        self.assertEqual({'user_id', 'project_id', 'request_id'}, set(sent.to_wire()))

    def test_contexts_of_other_services_and_releases_keep_user_project_and_request(self):
        for writer, values in WRITTEN.items():
            received = RequestContext.from_wire({**values, **IDS, 'auth_token': 'canary', 'is_admin': True})
            expected = {'user_id': 'u', 'project_id': 'p', **IDS}
            self.assertEqual(expected, received.to_wire(), writer)
            self.assertEqual((GLOBAL, None), (received.global_request_id, received.auth_token))

    def test_a_context_of_the_installed_oslo_context_keeps_them_too(self):
        sent = oslo_context.RequestContext(user_id='u', project_id='p', overwrite=False, **IDS)
        received = RequestContext.from_wire(sent.to_dict())
        self.assertEqual({'user_id': 'u', 'project_id': 'p', **IDS}, received.to_wire())

    def test_a_caller_may_use_the_context_of_its_own_service(self):
        """Without a change to what oslo.log finds in the caller's thread."""
        own = oslo_context.RequestContext(user_id='u', project_id='p', auth_token='canary', **IDS)
        expected = {'user_id': 'u', 'project_id': 'p', **IDS}
        for context in (
            own,
            own.to_dict(),
            RequestContext(user_id='u', project_id='p', **IDS, overwrite=False),
        ):
            self.assertEqual(expected, wire_form(context))
        self.assertIs(own, oslo_context.get_current())
        for nothing in (None, {}, 'x', fixtures.FakeLogger()):
            self.assertEqual({'user_id': None, 'project_id': None, 'request_id': None}, wire_form(nothing))

    def test_the_first_name_that_has_a_good_value_counts(self):
        for values, user in (
            ({'user_id': 'a', 'user': 'b'}, 'a'),
            ({'user_id': None, 'user': 'b'}, 'b'),
            ({'user_id': ['a'], 'user': 'b'}, 'b'),
            ({'user_id': 'x' * 256, 'user': 'b'}, 'b'),
            ({'user': '\x1b[2J'}, None),
            ({'user': ' b'}, None),
        ):
            self.assertEqual(user, RequestContext.from_wire(values).user_id, values)

    @given(
        st.one_of(
            st.none(),
            st.text(),
            st.lists(st.text()),
            st.dictionaries(
                st.sampled_from(
                    ['user_id', 'user', 'project_id', 'tenant', 'request_id', 'global_request_id', 'is_admin']
                ),
                st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text())),
            ),
        )
    )
    def test_whatever_a_peer_sends_becomes_a_context(self, values):
        context = RequestContext.from_wire(values)
        self.assertFalse(context.is_admin)
        self.assertTrue(context.request_id.startswith('req-'))
        for name in (context.user_id, context.project_id):
            self.assertTrue(name is None or (0 < len(name) <= 255 and name.isprintable()))
        self.assertTrue((context.global_request_id or 'req-x').startswith('req-'))

    def test_a_request_id_is_kept_only_if_it_is_one(self):
        for request_id, kept in (
            ('req-0f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11', True),
            ('req-' + 'a' * 60, True),
            ('req-' + 'a' * 61, False),
            ('req-', False),
            ('req-a b', False),
            ('req-a\n', False),
            ('0f9a4e4e', False),
        ):
            received = RequestContext.from_wire({'request_id': request_id})
            self.assertEqual(kept, received.request_id == request_id, request_id)
