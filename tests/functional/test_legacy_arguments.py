# SPDX-License-Identifier: Apache-2.0
"""Arguments of the old service's callers: bad ones are refused in one line that shows no secret."""

import oslo_messaging

from consoled import token as tokens
from consoled.db import models
from consoled.testing import fixtures
from consoled.testing.fixtures import wait_until
from tests.functional import base, old_callers
from tests.functional.old_callers import ConsoleauthCase


class MalformedTest(ConsoleauthCase):
    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(
            fixtures.fixtures.FakeLogger(level=5, format='%(name)s %(levelname)s %(message)s')
        )
        self.token = base.new_uuid()
        self.good = {
            'token': self.token,
            'console_type': 'novnc',
            'host': base.ADDRESS,
            'port': 5900,
            'internal_access_path': None,
            'instance_uuid': self.instance,
            'access_url': f'{base.BASE_URL}?token={self.token}',
        }

    def refused(self, **changes):
        yield self.assertRaises(
            oslo_messaging.RemoteError, self.old.call, 'authorize_console', **(self.good | changes)
        )

    def test_malformed_arguments(self):
        token = self.token
        errors = [
            *self.refused(token='short'),
            *self.refused(token=None),
            *self.refused(token=[token]),
            *self.refused(token=token * 9),
            *self.refused(console_type='xvpvnc'),
            *self.refused(console_type=token),
            *self.refused(console_type=None),
            *self.refused(host=f'{token} '),
            *self.refused(host=None),
            *self.refused(host=token),
            *self.refused(port=0),
            *self.refused(port='05900'),
            *self.refused(port='65536'),
            *self.refused(port='٥٩٠٠'),
            *self.refused(port=' 5900'),
            *self.refused(port='9' * 5000),
            *self.refused(port=True),
            *self.refused(port=None),
            *self.refused(port=token),
            *self.refused(internal_access_path='/' * 1025),
            *self.refused(internal_access_path=f'/{token}'),
            *self.refused(internal_access_path=f'/{token.replace("-", "%2D").upper()}'),
            *self.refused(internal_access_path=[token]),
            *self.refused(internal_access_path='/\r\nHost: there'),
            *self.refused(instance_uuid='nobody'),
            *self.refused(instance_uuid=token),
            *self.refused(instance_uuid=None),
            *self.refused(access_url='javascript:alert(1)'),
            *self.refused(access_url='//console.example.org'),
            *self.refused(access_url='https://user:x@console.example.org/'),
            *self.refused(access_url=f'https://[?token={token}'),
            *self.refused(access_url='https://console.example.org/' + 'x' * 2000),
            *self.refused(access_url={'url': token}),
            *self.refused(**{f'x{token}': token}),
            *self.refused(extra=token),
        ]
        del self.good['port']
        errors += self.refused()
        for error in errors:
            self.assertIn(error.exc_type, ('InvalidArgument', 'InvalidConsole'))
            self.assertLess(len(error.value), 200)
        self.assertEqual(0, self.count('instances') + self.count('console_auth_token'))
        self.assertEqual({}, self.uses())
        shown = self.logged.output + ''.join(f'{error!r} {error} {error.traceback}' for error in errors)
        self.assertIn('WARNING authorize_console refused: Argument console_type', shown)
        self.assertNotIn('Traceback', self.logged.output)
        self.assertNotIn(token, shown.replace(f'x{token}', ''))

    def test_unusual_arguments_of_some_callers_are_accepted(self):
        for changes in (
            {'internal_access_path': ''},
            {'access_url': None},
            {'instance_uuid': self.instance.upper()},
            {'host': '2001:db8::1'},
            {'host': 'node-1.example.org'},
            {'access_url': f'ws://console.example.org:6083/?token={self.token}'},
            {'access_url': f'https://console.example.org/{self.token}'},
        ):
            self.old.call('authorize_console', **(self.good | changes))
            self.old.delete_tokens_for_instance(self.instance)
            wait_until(lambda: not self.count('console_auth_token'), what='the deletion')

    def test_a_refused_cast_is_logged(self):
        self.old.cast('authorize_console', **(self.good | {'port': 0}))
        wait_until(lambda: 'authorize_console refused' in self.logged.output, what='a line in the log')

    def test_unknown_methods_and_versions_are_refused(self):
        for call in (
            lambda: self.old.call('authorize_issued', token=self.token),
            lambda: self.old.call('validate', token=self.token),
            lambda: self.old.client.prepare(version='3.0').call({}, 'check_token', token=self.token),
            lambda: self.old.client.prepare(version='2.2').call({}, 'check_token', token=self.token),
        ):
            error = self.assertRaises(oslo_messaging.RemoteError, call)
            self.assertIn(error.exc_type, ('UnsupportedVersion', 'NoSuchMethod', 'RPCAccessPolicyBase'))
        self.assertNotIn(self.token, self.logged.output)

    def test_any_context_is_accepted_and_none_is_logged(self):
        """It only labels a call; it contains a user's credentials."""
        for context in ({}, {'user_id': ['x'], 'request_id': 7, 'project_id': {'a': 1}}, {'auth_token': 'x'}):
            self.assertIsNone(self.old.client.prepare(version='2.1').call(context, 'check_token', token='x'))
        self.old.authorize(self.instance, 5900)
        self.assertNotIn(old_callers.CREDENTIAL, self.logged.output)
        rows = [str(self.rows(f'SELECT * FROM {table}')) for table in models.metadata.tables]
        self.assertNotIn(old_callers.CREDENTIAL, ''.join(rows))

    def test_invariant_1_the_database_has_the_hash_only(self):
        path = {
            'access_url': f'{base.BASE_URL}?path=%3Ftoken%3D{self.token}&x=1',
            'internal_access_path': '/p',
        }
        self.old.call('authorize_console', **(self.good | path))
        self.old.check_token(self.token)
        everything = ''.join(str(self.rows(f'SELECT * FROM {table}')) for table in models.metadata.tables)
        self.assertIn(tokens.hashed(self.token), everything)
        self.assertNotIn(self.token, everything)
        self.assertNotIn(self.token, self.logged.output)
