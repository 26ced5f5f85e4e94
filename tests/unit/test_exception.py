# SPDX-License-Identifier: Apache-2.0
"""Domain errors: their codes, their messages, and how they travel."""

import inspect
import re
import sys

import testtools
from oslo_messaging._drivers import common as messaging_common

from consoled import exception

PLACEHOLDER = re.compile(r'%\((\w+)\)s')

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
    'ConsoleContested': ('console_contested', 409),
    'ConsoleInUse': ('console_in_use', 409),
    'TooManySessions': ('too_many_sessions', 429),
    'ProxyUnknown': ('proxy_unknown', 503),
    'ComputeUnreachable': ('compute_unreachable', 503),
    'ManagerUnreachable': ('manager_unreachable', 503),
    'ManagerBusy': ('manager_busy', 503),
    'DatabaseUnavailable': ('database_unavailable', 503),
    'SourceUnavailable': ('source_unavailable', 503),
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
            values = {name: name.upper() for name in PLACEHOLDER.findall(cls.msg_fmt)}
            try:
                raise cls(**values)
            except cls as error:
                wire = messaging_common.serialize_remote_exception(sys.exc_info())
                back = messaging_common.deserialize_remote_exception(wire, ['consoled.exception'])
                self.assertIsInstance(back, cls)
                self.assertEqual((error.code, error.kwargs), (back.code, back.kwargs))

    def test_messages_are_sentences(self):
        for cls in self.classes().values():
            message = PLACEHOLDER.sub('x', cls.msg_fmt)
            self.assertRegex(message, r'^[A-Z].*\.$')
            self.assertNotIn('%', message)

    def test_a_message_may_be_given(self):
        error = exception.ConsoleGone('Consoles of this type cannot be opened through a proxy.')
        self.assertEqual('Consoles of this type cannot be opened through a proxy.', str(error))
        self.assertEqual({}, error.kwargs)
