# SPDX-License-Identifier: Apache-2.0
"""The request context, to and from the wire."""

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.context import RequestContext


class ContextTest(testtools.TestCase):
    def test_user_project_and_request_id_travel(self):
        sent = RequestContext(user_id='u', project_id='p')
        received = RequestContext.from_wire(sent.to_wire())
        self.assertEqual(sent.to_wire(), received.to_wire())

    def test_nothing_else_travels(self):
        sent = RequestContext(user_id='u', auth_token='canary', roles=['admin'], is_admin=True)
        self.assertEqual({'user_id', 'project_id', 'request_id'}, set(sent.to_wire()))

    @given(
        st.one_of(
            st.none(),
            st.text(),
            st.lists(st.text()),
            st.dictionaries(
                st.sampled_from(['user_id', 'project_id', 'request_id', 'is_admin']),
                st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text())),
            ),
        )
    )
    def test_whatever_a_peer_sends_becomes_a_context(self, values):
        context = RequestContext.from_wire(values)
        self.assertFalse(context.is_admin)
        self.assertTrue(context.request_id.startswith('req-'))
        self.assertTrue(len(context.user_id or '') <= 255)

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
