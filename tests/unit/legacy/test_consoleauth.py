# SPDX-License-Identifier: Apache-2.0
"""The old service's endpoint: what it accepts, what it passes on, and what it answers."""

import time

import testtools
from hypothesis import given
from hypothesis import strategies as st
from oslo_messaging.rpc import dispatcher

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.legacy import consoleauth

TOKEN = '0b5b1b0e-1111-4222-8333-444455556666'
INSTANCE = '1c5b1b0e-1111-4222-8333-444455556666'


class Consoles:
    """A manager that notes what it is asked."""

    def __init__(self):
        self.asked = []
        self.observed = []
        self.error = None

    def _answer(self, *asked):
        self.asked.append(asked)
        if self.error is not None:
            raise self.error

    def authorize_issued(self, context, token, issued, source):
        self._answer('authorize', token, issued, source)

    def check_issued(self, context, token, source):
        self._answer('check', token, source)
        console = objects.ConsoleConnection(
            instance_uuid=INSTANCE,
            console_type='novnc',
            host='192.0.2.10',
            port=5900,
            compute_host='node-1',
            access_url_base=None,
            options={'internal_access_path': '/path'},
        )
        return console, f'https://console.example.org/?token={token}'

    def revoke_issued(self, context, instance_uuid, source):
        self._answer('revoke', instance_uuid, source)

    def observe(self, method, code, seconds):
        self.observed.append((method, code))


class EndpointTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.consoles = Consoles()
        self.endpoint = consoleauth.ConsoleauthEndpoint(self.consoles)
        self.context = RequestContext()
        self.good = {
            'token': TOKEN,
            'console_type': 'novnc',
            'host': '192.0.2.10',
            'port': '5900',
            'internal_access_path': '',
            'instance_uuid': INSTANCE.upper(),
            'access_url': f'https://console.example.org/vnc.html?x=1&token={TOKEN}',
        }

    def authorize(self, **changes):
        self.endpoint.authorize_console(self.context, **(self.good | changes))

    def test_authorize_passes_on_canonical_values_without_the_token(self):
        before = time.time()
        self.authorize()
        ((_, token, issued, source),) = self.consoles.asked
        self.assertEqual((TOKEN, 'consoleauth'), (token, source))
        self.assertEqual((INSTANCE, 'novnc', '192.0.2.10', 5900), (
            issued.instance_uuid, issued.console_type, issued.host, issued.port
        ))  # fmt: skip
        self.assertIsNone(issued.internal_access_path)
        self.assertEqual('https://console.example.org/vnc.html?x=1', issued.access_url_base)
        self.assertTrue(before <= issued.issued_at <= time.time())

    def test_callers_of_2_0_give_no_url(self):
        del self.good['access_url']
        self.authorize(internal_access_path='/path')
        ((_, _, issued, _),) = self.consoles.asked
        self.assertEqual((None, '/path'), (issued.access_url_base, issued.internal_access_path))

    def test_wrong_arguments_are_refused_and_nothing_is_passed_on(self):
        for name, value in (
            ('token', 'short'),
            ('port', 0),
            ('console_type', 'xvpvnc'),
            ('instance_uuid', 'nobody'),
            ('access_url', 'javascript:alert(1)'),
            ('internal_access_path', f'/{TOKEN}'),
        ):
            error = self.assertRaises(dispatcher.ExpectedException, self.authorize, **{name: value})
            self.assertIn(error.__cause__.code, ('invalid_argument', 'invalid_console'))
            self.assertNotIn(TOKEN, str(error.__cause__))
        self.assertEqual([], self.consoles.asked)

    @given(st.integers(0, 3), st.booleans())
    def test_a_token_in_another_argument_is_found_however_it_is_encoded(self, depth, upper):
        encoded = TOKEN.upper() if upper else TOKEN
        for _ in range(depth):
            encoded = encoded.replace('%', '%25').replace('-', '%2D')
        error = self.assertRaises(
            exception.InvalidConsole, consoleauth._check_token_not_in, TOKEN, [1, None, f'/x/{encoded}']
        )
        self.assertNotIn(TOKEN, str(error))

    def test_check_answers_as_the_old_service_did(self):
        before = time.time()
        answer = self.endpoint.check_token(self.context, token=TOKEN)
        self.assertTrue(before <= answer.pop('last_activity_at') <= time.time())
        self.assertEqual(
            {
                'instance_uuid': INSTANCE,
                'console_type': 'novnc',
                'host': '192.0.2.10',
                'port': 5900,
                'internal_access_path': '/path',
                'access_url': f'https://console.example.org/?token={TOKEN}',
            },
            answer,
        )

    @given(st.none() | st.integers() | st.text(max_size=15) | st.lists(st.text(), max_size=2))
    def test_what_cannot_be_a_token_opens_nothing_and_is_not_looked_up(self, value):
        consoles = Consoles()
        endpoint = consoleauth.ConsoleauthEndpoint(consoles)
        self.assertIsNone(endpoint.check_token(self.context, token=value))
        self.assertEqual([], consoles.asked)

    def test_check_answers_none_to_refusals_but_not_to_faults_that_pass(self):
        for error in (exception.InvalidToken(), exception.ConsoleGone()):
            self.consoles.error = error
            self.assertIsNone(self.endpoint.check_token(self.context, token=TOKEN))
        for error in (exception.DatabaseUnavailable(), exception.ManagerBusy()):
            self.consoles.error = error
            self.assertTrue(error.retryable)
            raised = self.assertRaises(
                dispatcher.ExpectedException, self.endpoint.check_token, self.context, token=TOKEN
            )
            self.assertIs(error, raised.__cause__)

    def test_deletion_revokes_the_instance(self):
        self.endpoint.delete_tokens_for_instance(self.context, instance_uuid=INSTANCE)
        self.assertEqual([('revoke', INSTANCE, 'consoleauth')], self.consoles.asked)

    def test_calls_are_observed_under_the_old_services_name(self):
        self.endpoint.check_token(self.context, token=TOKEN)
        self.assertEqual([('consoleauth.check_token', 'ok')], self.consoles.observed)
