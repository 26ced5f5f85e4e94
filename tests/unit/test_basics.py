# SPDX-License-Identifier: Apache-2.0
"""Tokens, errors, context, options: the leaves everything else stands on."""

import hashlib
import inspect

import testtools
from hypothesis import given
from hypothesis import strategies as st
from oslo_config import cfg
from oslo_messaging._drivers import common as messaging_common

from consoled import conf as consoled_conf
from consoled import exception, token
from consoled.conf import opts
from consoled.context import RequestContext


class TokenTest(testtools.TestCase):
    def test_a_minted_token_is_long_and_url_safe(self):
        minted = {token.mint() for _ in range(100)}
        self.assertEqual(100, len(minted))
        for each in minted:
            self.assertEqual(43, len(each))
            self.assertTrue(token.well_formed(each))

    def test_the_hash_is_sha256(self):
        self.assertEqual(hashlib.sha256(b'a' * 43).hexdigest(), token.hashed('a' * 43))

    def test_a_uuid_of_an_older_source_is_well_formed(self):
        self.assertTrue(token.well_formed('0f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'))

    @given(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.lists(st.text())))
    def test_what_is_well_formed_can_be_hashed(self, value):
        if token.well_formed(value):
            self.assertEqual(64, len(token.hashed(value)))

    def test_what_is_not_well_formed(self):
        for value in ('', 'a' * 15, 'a' * 129, 'a' * 20 + '\n', 'ä' * 20, 'a b' * 10, b'a' * 43, None, 1):
            self.assertFalse(token.well_formed(value))


CODES = {
    'ConsoledException': ('internal_error', 500),
    'InternalError': ('internal_error', 500),
    'InvalidArgument': ('invalid_argument', 400),
    'InvalidToken': ('invalid_token', 401),
    'InvalidConsole': ('invalid_console', 400),
    'TTLTooLong': ('ttl_too_long', 400),
    'InstanceNotFound': ('instance_not_found', 404),
    'ConsoleGone': ('console_gone', 404),
    'ConsolePortsExhausted': ('console_ports_exhausted', 409),
    'ConsoleInUse': ('console_in_use', 409),
    'TooManySessions': ('too_many_sessions', 429),
    'ProxyUnknown': ('proxy_unknown', 503),
    'ComputeUnreachable': ('compute_unreachable', 503),
    'ManagerUnreachable': ('manager_unreachable', 503),
    'ManagerBusy': ('manager_busy', 503),
    'DatabaseUnavailable': ('database_unavailable', 503),
    'IncompatibleObject': ('incompatible_object', 400),
    'BadRequest': ('bad_request', 400),
    'MethodNotAllowed': ('method_not_allowed', 405),
    'ModeUnsupported': ('mode_unsupported', 400),
    'NotFound': ('not_found', 404),
    'OriginRefused': ('origin_refused', 403),
    'ProxyBusy': ('proxy_busy', 503),
    'ProxyStopping': ('proxy_stopping', 503),
    'RateLimited': ('rate_limited', 429),
    'RequestTimeout': ('request_timeout', 408),
    'RequestTooLarge': ('request_too_large', 431),
    'TargetFailed': ('target_failed', 502),
    'TargetForbidden': ('target_forbidden', 502),
    'TargetTimeout': ('target_timeout', 504),
    'UpgradeRequired': ('upgrade_required', 426),
    'ConsoleTypeUnavailable': ('console_type_unavailable', 404),
    'InstanceNotReady': ('instance_not_ready', 409),
    'HypervisorUnreachable': ('hypervisor_unreachable', 503),
}


class AnyValue(dict):
    """Has a value for every name a message asks for."""

    def __missing__(self, key):
        return f'<{key}>'


class ExceptionTest(testtools.TestCase):
    def classes(self):
        return {
            name: cls
            for name, cls in inspect.getmembers(exception, inspect.isclass)
            if issubclass(cls, exception.ConsoledException)
        }

    def test_codes_are_stable(self):
        """Callers branch on them: a change here breaks other people's code."""
        self.assertEqual(CODES, {name: (cls.code, cls.http_status) for name, cls in self.classes().items()})

    def test_what_may_be_tried_again_says_so_by_its_status(self):
        for cls in self.classes().values():
            if cls.http_status != 502:  # a console that can't be reached, or one that may not be
                self.assertEqual(cls.retryable, cls.http_status in (409, 429, 503, 504), cls)

    def test_each_travels_over_rpc_as_itself(self):
        for cls in self.classes().values():
            values = AnyValue()
            cls.msg_fmt % values
            names = {
                name
                for name in ('argument', 'reason', 'ttl', 'limit', 'scope')
                if f'%({name})s' in cls.msg_fmt
            }
            names |= {
                name for name in ('instance_uuid', 'console_type', 'since', 'proxy_id') if name in cls.msg_fmt
            }
            names |= {name for name in ('name', 'version', 'supported') if f'%({name})s' in cls.msg_fmt}
            try:
                raise cls(**{name: name.upper() for name in names})
            except cls as error:
                import sys

                wire = messaging_common.serialize_remote_exception(sys.exc_info())
                back = messaging_common.deserialize_remote_exception(wire, ['consoled.exception'])
                self.assertIsInstance(back, cls)
                self.assertEqual((error.code, error.kwargs), (back.code, back.kwargs))


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


class OptionsTest(testtools.TestCase):
    def test_registering_twice_is_harmless(self):
        conf = cfg.ConfigOpts()
        consoled_conf.register_opts(conf)
        consoled_conf.register_opts(conf)
        conf([], default_config_files=[], default_config_dirs=[])
        self.assertEqual(600, conf.consoleauth.token_ttl)
        self.assertEqual(1, conf.serial_console.max_sessions)
        self.assertEqual('consoled', conf.control_exchange)
        self.assertEqual(8, conf.executor_thread_pool_size)

    def test_every_option_is_explained(self):
        for group, options in opts.list_opts():
            for option in options:
                self.assertTrue(option.help, f'[{group}] {option.name} has no help')
