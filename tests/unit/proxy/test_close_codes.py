# SPDX-License-Identifier: Apache-2.0
"""How users are told why a session ended: each reason has its code and words."""

import ast
import pathlib

import testtools
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy import close_codes

unhurried = settings(deadline=None)

OURS = {
    value
    for name, value in vars(close_codes).items()
    if name.isupper() and not name.startswith('_') and isinstance(value, str)
}
MANAGERS = {
    EndReason.TAKEN_OVER,
    EndReason.INSTANCE_GONE,
    EndReason.CONSOLE_MOVED,
    EndReason.CONSOLE_GONE,
    EndReason.LEASE_LOST,
}

# DESIGN section 5, the table of errors: the statuses before the upgrade ...
STATUSES = {
    exception.InvalidToken: 401,
    exception.OriginRefused: 403,
    exception.ConsoleGone: 404,
    exception.InstanceNotFound: 404,
    exception.ConsoleInUse: 409,
    exception.TooManySessions: 429,
    exception.RateLimited: 429,
    exception.TargetFailed: 502,
    exception.TargetForbidden: 502,
    exception.TargetTimeout: 504,
    exception.ManagerUnreachable: 503,
    exception.ProxyUnknown: 503,
}
# ... and the close codes after it
CODES = {
    'console_gone': 4404,
    'console_moved': 4404,
    'instance_gone': 4404,
    'taken_over': 4409,
    'guest_closed': 1011,
    'guest_stalled': 1011,
    'open_failed': 1011,
    'lease_lost': 1013,
    'time_over': 4408,
    'idle': 4408,
    'revoked': 4403,
    'an operator made this up': 4403,
    'drained': 1012,
    # those of RFC 6455
    'user_left': 1000,
    'user_lost': 1001,
    'protocol_error': 1002,
    'message_too_big': 1009,
}


class ClosingTest(testtools.TestCase):
    def test_reasons_are_told_as_the_design_has_it(self):
        self.assertEqual(CODES, {reason: close_codes.closing_of(reason).code for reason in CODES})
        self.assertEqual(STATUSES, {error: error.http_status for error in STATUSES})

    def test_each_reason_of_the_proxy_and_of_the_manager_is_in_the_table(self):
        self.assertEqual(set(), OURS - set(CODES))
        self.assertEqual(set(), MANAGERS - set(CODES))
        for reason in OURS | MANAGERS:
            self.assertNotEqual(close_codes.closing_of('revoked'), close_codes.closing_of(reason), reason)

    def test_reasons_of_the_proxy_are_named_by_the_table(self):
        """Nobody ends anything with a text of their own."""
        wrong = []
        for path in sorted(pathlib.Path(close_codes.__file__).parent.glob('*.py')):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in ('end', 'cut_all')
                    and any(isinstance(each, ast.Constant) for each in node.args)
                ):
                    wrong.append(f'{path.name}:{node.lineno}')
        self.assertEqual([], wrong)

    @unhurried
    @given(st.one_of(st.text(max_size=64), st.sampled_from(sorted(OURS | MANAGERS))))
    def test_each_can_be_sent(self, reason):
        """A control frame has 125 bytes, two of them for the code (RFC 6455, section 5.5.1)."""
        how = close_codes.closing_of(reason)
        self.assertEqual(Close(how.code, how.text), Close.parse(Close(how.code, how.text).serialize()))
        self.assertTrue(len(how.text.encode()) <= 123)

    @unhurried
    @given(st.text(max_size=64))
    def test_a_reason_that_somebody_made_up_is_a_revocation_and_is_not_repeated(self, reason):
        if reason in OURS | MANAGERS:
            return
        self.assertEqual(close_codes.closing_of('revoked'), close_codes.closing_of(reason))
        self.assertEqual('revoked', close_codes.label_of(reason))

    def test_a_known_reason_is_its_own_label(self):
        for reason in OURS | MANAGERS:
            self.assertEqual(reason, close_codes.label_of(reason))

    def test_labels_are_few(self):
        labels = {close_codes.label_of(reason) for reason in [*CODES, *map(str, range(1000))]}
        self.assertEqual((OURS | MANAGERS | {'revoked'}), labels)
