# SPDX-License-Identifier: Apache-2.0
"""The old service's RPC: a token is worth the same through the old RPC and the new one."""

import time

from consoled import objects
from consoled import token as tokens
from consoled.db import legacy
from consoled.rpc.replies import Revocation
from consoled.sources import Issued
from consoled.testing.fixtures import wait_until
from tests.functional import base
from tests.functional.old_callers import ConsoleauthCase

OLD_FIELDS = {
    'instance_uuid',
    'console_type',
    'host',
    'port',
    'internal_access_path',
    'access_url',
    'last_activity_at',
}


class _FromOldToNew:
    """Compute hosts are old."""

    def test_a_token_is_like_any_other(self):
        token = self.old.authorize(self.instance, '5900', path='/there')  # a string, as in a guest's XML
        grant = self.api.validate(self.context, token)
        self.assertEqual(
            (self.instance, 'novnc', '192.0.2.10', 5900, {'internal_access_path': '/there'}),
            (grant.instance_uuid, grant.console_type, grant.host, grant.port, grant.options),
        )
        self.assertEqual('https://console.example.org/vnc_lite.html', grant.access_url_base)
        self.assertEqual(('user-1', 'project-1'), (grant.user_id, grant.project_id))
        left = grant.expires.timestamp() - time.time()
        self.assertTrue(500 < left <= 601, left)
        session = self.proxy().open(token)
        self.assertEqual(('user-1', 5900), (session.user_id, session.console.port))
        self.assertEqual([], self.source.asked)

    def test_a_token_of_a_caller_of_version_2_0(self):
        token = self.older.authorize(self.instance, 5900)
        self.assertIsNone(self.api.validate(self.context, token).access_url_base)
        self.assertEqual(5900, self.proxy().open(token).console.port)
        self.assertIsNone(self.older.check_token(token)['access_url'])

    def test_limits_and_revocations_apply(self):
        token, other = (self.old.authorize(self.instance, 10000, 'serial') for _ in range(2))
        proxy = self.proxy()
        session = proxy.open(token)
        self.assert_refused('console_in_use', proxy.open, other)
        revoked = self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        self.assertEqual(Revocation(tokens=2, sessions=1), revoked)
        self.assertEqual((session.id, 'test'), self.cuts.get(timeout=30))
        for gone in (token, other):
            self.assert_refused('invalid_token', proxy.open, gone)
            self.assertIsNone(self.old.check_token(gone))

    def test_the_port_is_checked_if_there_is_an_agent(self):
        self.define_console()
        token = self.old.authorize(self.instance, 5900)
        self.assertEqual(5900, self.proxy().open(token).console.port)
        self.assertEqual(5900, self.old.check_token(token)['port'])
        self.compute.answer = lambda asked: False
        self.assert_refused('console_gone', self.proxy().open, token)
        self.assertIsNone(self.old.check_token(token))
        self.assertEqual(4, len(self.compute.asked))

    def test_an_agent_that_does_not_answer_does_not_make_a_token_invalid(self):
        self.define_console(compute_host='node-9')
        token = self.old.authorize(self.instance, 5900)
        self.set(manager__check_port_timeout=0.2)
        self.assert_remote_error('ComputeUnreachable', self.old.check_token, token)

    def test_the_definition_of_an_agent_stays(self):
        self.define_console(tls_port='5901')
        granted = self.authorize(5900, console_type='novnc', options={'tls_port': '5901'})
        proxy = self.proxy()
        session = proxy.open(granted.token)
        token = self.old.authorize(self.instance, 5900, path='/there')
        for of in (token, granted.token):
            grant = self.api.validate(self.context, of)
            self.assertEqual({'tls_port': '5901'}, grant.options)
            self.assertEqual((base.COMPUTE_HOST, base.BASE_URL), (grant.compute_host, grant.access_url_base))
        self.assertEqual({}, self.api.renew_lease(self.context, proxy.id).cut)
        self.assertEqual([session.id], [each.id for each in self.api.list_sessions(self.context).objects])

    def test_another_console_on_a_port_that_an_agent_has_defined(self):
        self.define_console()
        self.assert_remote_error('InvalidConsole', self.old.authorize, self.instance, 5900, 'spice-html5')
        self.assertEqual(0, self.count('console_auth_token'))
        self.assertEqual({}, self.uses())

    def test_another_port_of_an_instance_that_an_agent_has_defined(self):
        """The definition may be out of date: the agent decides when the console is opened."""
        self.define_console()
        self.compute.answer = lambda asked: asked['port'] == 5900
        token = self.old.authorize(self.instance, 5902)
        self.assert_refused('console_gone', self.proxy().open, token)

    def test_without_an_agent_the_last_token_describes_the_console(self):
        """The guest was restarted, and its two consoles have swapped their ports."""
        proxy = self.proxy()
        token = self.old.authorize(self.instance, 5900)
        session = proxy.open(token)
        other = self.old.authorize(self.instance, 5900, 'spice-html5')
        self.assertEqual((session.id, 'console_gone'), self.cuts.get(timeout=30))
        self.assertIsNone(self.old.check_token(token))
        self.assertEqual('spice-html5', self.old.check_token(other)['console_type'])

    def test_an_access_path_that_changes(self):
        """Some hypervisors use another one each time."""
        proxy = self.proxy()
        token = self.old.authorize(self.instance, 443, path='/first')
        proxy.open(token)
        other = self.older.authorize(self.instance, 443, path='/second')
        again = self.older.authorize(self.instance, 443)
        for each in (other, again):
            answer = self.old.check_token(each)
            self.assertEqual('/second', answer['internal_access_path'])
            self.assertIn('https://console.example.org/vnc_lite.html?', answer['access_url'])
        self.assertEqual({}, self.api.renew_lease(self.context, proxy.id).cut)

    def test_a_repeated_call(self):
        arguments = {
            'token': base.new_uuid(),
            'console_type': 'novnc',
            'host': base.ADDRESS,
            'port': 5900,
            'internal_access_path': None,
            'instance_uuid': self.instance,
            'access_url': None,
        }
        for _ in range(2):
            self.old.call('authorize_console', **arguments)
        self.assertEqual(1, self.count('console_auth_token'))

    def test_tokens_are_written_through_if_that_is_configured(self):
        self.old.authorize(self.instance, 5900)
        self.assertEqual({}, self.source.stored)
        self.set(workarounds__consoleauth_write_through=True)
        token = self.old.authorize(self.instance, 5900)
        self.assertEqual([token], list(self.source.stored))
        self.assertIn(token, self.source.stored[token].access_url)


class _FromNewToOld:
    """Proxies are old."""

    def test_the_answer_is_that_of_the_old_service(self):
        before = time.time() - 1
        granted = self.authorize(5900, console_type='novnc', options={'internal_access_path': '/there'})
        answer = self.old.check_token(granted.token)
        self.assertEqual(OLD_FIELDS, set(answer))
        self.assertEqual(
            (self.instance, 'novnc', base.ADDRESS, 5900, '/there', granted.access_url),
            tuple(
                answer[name]
                for name in (
                    'instance_uuid',
                    'console_type',
                    'host',
                    'port',
                    'internal_access_path',
                    'access_url',
                )
            ),
        )
        self.assertIsInstance(answer['last_activity_at'], float)
        self.assertTrue(before < answer['last_activity_at'] < time.time() + 1)
        self.assertEqual(answer['host'], self.older.check_token(granted.token)['host'])

    def test_consoles_of_each_type(self):
        """Some types have a proxy that is another program, which asks too."""
        for port, console_type in enumerate(objects.ConsoleType.ALL, 5900):
            for token in (
                self.authorize(port, console_type=console_type).token,
                self.old.authorize(self.instance, port, console_type),
            ):
                self.assertEqual(console_type, self.old.check_token(token)['console_type'])

    def test_a_token_that_only_memcached_knows(self):
        token = base.new_uuid()
        self.source.issued[token] = Issued(
            self.instance, 'novnc', base.ADDRESS, 5900, None, base.BASE_URL, time.time() - 100
        )
        for _ in range(2):
            self.assertEqual(5900, self.old.check_token(token)['port'])
        self.assertEqual([token], self.source.asked)

    def test_values_that_cannot_be_tokens(self):
        for token in (tokens.mint(), base.new_uuid(), '', 'short', 'a' * 5000, 'ä' * 40, None, 7, ['x'], {}):
            self.assertIsNone(self.old.check_token(token), token)
        self.assertEqual({}, self.uses())

    def test_a_token_that_is_spent(self):
        self.set(consoleauth__single_use=True)
        token = self.authorize(5900, console_type='novnc').token
        self.assertEqual(5900, self.old.check_token(token)['port'])
        self.proxy().open(token)
        self.assertIsNone(self.old.check_token(token))

    def test_a_token_that_has_expired(self):
        token = self.authorize(5900, ttl=1, console_type='novnc').token
        wait_until(lambda: self.old.check_token(token) is None, what='its end')


class _Revocation:
    def test_invariant_5_tokens_and_sessions_of_both_kinds_are_revoked(self):
        proxy = self.proxy()
        old, new = self.old.authorize(self.instance, 5900), self.authorize(5901, console_type='novnc').token
        kept = self.old.authorize(base.new_uuid(), 5902)
        known = base.new_uuid()
        self.source.issued[known] = Issued(
            self.instance, 'novnc', base.ADDRESS, 5900, None, None, time.time() - 1
        )
        sessions = {proxy.open(token).id for token in (old, new)}
        proxy.open(kept)
        self.old.delete_tokens_for_instance(self.instance)
        cut = dict(self.cuts.get(timeout=30) for _ in sessions)
        self.assertEqual(dict.fromkeys(sessions, 'console_gone'), cut)
        for token in (old, new, known):
            self.assertIsNone(self.old.check_token(token))
        self.assertEqual({}, self.source.issued)
        self.assertEqual(5902, self.old.check_token(kept)['port'])
        self.assertTrue(self.cuts.empty())

    def test_a_token_after_a_revocation_is_valid(self):
        self.old.authorize(self.instance, 5900)
        self.old.delete_tokens_for_instance(self.instance)
        wait_until(lambda: not self.count('console_auth_token'), what='the deletion')
        self.assertEqual(5900, self.old.check_token(self.old.authorize(self.instance, 5900))['port'])

    def test_revoking_an_unknown_instance(self):
        self.older.delete_tokens_for_instance(self.instance)
        wait_until(lambda: self.uses() == {'consoleauth': 1}, what='the deletion')
        self.assertEqual(0, self.count('instances'))


class _Counting:
    def test_each_use_is_counted(self):
        token = self.old.authorize(self.instance, 5900)
        self.assertEqual({'consoleauth': 1}, self.uses())
        self.old.check_token(token)
        self.assertEqual({'consoleauth': 2}, self.uses())
        self.api.validate(self.context, token)
        self.assertEqual({'consoleauth': 3}, self.uses())
        self.proxy().open(token)
        self.assertEqual({'consoleauth': 4}, self.uses())
        new = self.authorize(5901, console_type='novnc').token
        self.api.validate(self.context, new)
        self.assertEqual({'consoleauth': 4}, self.uses())
        self.old.check_token(new)
        self.assertEqual({'consoleauth': 5}, self.uses())
        (use,) = legacy.usage(self.cell.db)
        self.assertLess(abs(use.last_used_at.timestamp() - time.time()), 60)
        self.assertIsNotNone(legacy.last_expiry(self.cell.db))

    def test_calls_are_in_the_metrics(self):
        self.old.check_token(base.new_uuid())
        self.assert_remote_error('InvalidArgument', self.old.authorize, 'nobody', 5900)
        found = {
            (sample.labels['method'], sample.labels['code'])
            for metric in self.cell.endpoint._metrics.registry.collect()
            for sample in metric.samples
            if sample.name == 'consoled_rpc_seconds_count'
        }
        self.assertIn(('consoleauth.check_token', 'ok'), found)
        self.assertIn(('consoleauth.authorize_console', 'invalid_argument'), found)


class ConsoleauthTest(_FromOldToNew, _FromNewToOld, _Revocation, _Counting, ConsoleauthCase):
    """All of them with one manager."""
