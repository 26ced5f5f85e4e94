# SPDX-License-Identifier: Apache-2.0
"""Close codes: each end reason has a code and a text, and the pages know each code."""

import ast
import pathlib
import re

import testtools
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy import close_codes
from consoled.proxy.close_codes import ENDINGS, EXPLANATIONS, CloseCode, Retry

unhurried = settings(deadline=None)

PROXY = pathlib.Path(close_codes.__file__).parent
PAGE_CODE = re.compile(r"^  (\d{4}): \['(\w+)', '([^']+)', (true|false)\],$", re.MULTILINE)
NEVER_SENT = {1005, 1006}  # codes that a browser reports for "no code" and "connection lost"

# Statuses before the upgrade, as in the table of errors of doc/design.md.
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
# Close codes after the upgrade, as in the same table.
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
    # defined by RFC 6455
    'user_left': 1000,
    'user_lost': 1001,
    'protocol_error': 1002,
    'message_too_big': 1009,
}


class CloseCodesTest(testtools.TestCase):
    def test_statuses_and_close_codes_are_those_of_the_design(self):
        self.assertEqual(CODES, {reason: close_codes.ending(reason).code for reason in CODES})
        self.assertEqual(STATUSES, {error: error.http_status for error in STATUSES})

    def test_each_end_reason_of_the_proxy_is_in_the_table(self):
        self.assertEqual(set(EndReason) - {EndReason.COMPUTE_HOST_GONE}, set(ENDINGS))
        self.assertEqual(set(ENDINGS), set(CODES) & set(EndReason))

    def test_the_proxy_ends_sessions_only_with_reasons_of_the_enumeration(self):
        wrong = []
        for path in sorted(PROXY.glob('*.py')):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in ('end', 'cut_all', 'cut_limited', 'cut_stored', 'abandon')
                    and any(isinstance(each, ast.Constant) for each in node.args)
                ):
                    wrong.append(f'{path.name}:{node.lineno}')
        self.assertEqual([], wrong)

    def test_each_ending_fits_into_a_close_frame(self):
        """A control frame has at most 125 bytes, two of them for the code (RFC 6455, section 5.5.1)."""
        for reason in [*EndReason, 'revoked']:
            ending = close_codes.ending(reason)
            frame = Close(ending.code, ending.text)
            self.assertEqual(frame, Close.parse(frame.serialize()))
            self.assertTrue(len(ending.text.encode()) <= 123)

    @unhurried
    @given(st.text(max_size=64).filter(lambda text: text not in set(ENDINGS)))
    def test_a_reason_given_by_an_operator_is_a_revocation_and_not_shown(self, reason):
        self.assertEqual(close_codes.ending('revoked'), close_codes.ending(reason))
        self.assertEqual('revoked', close_codes.metric_label(reason))

    def test_a_known_reason_is_its_own_label(self):
        for reason in ENDINGS:
            self.assertEqual(reason, close_codes.metric_label(reason))

    def test_the_number_of_labels_is_bounded(self):
        labels = {close_codes.metric_label(reason) for reason in [*CODES, *map(str, range(1000))]}
        self.assertEqual({*ENDINGS, 'revoked'}, labels)

    def test_the_page_knows_each_code_by_the_same_name_and_text(self):
        script = (PROXY / 'web' / 'page.js').read_text()
        known = {int(code): (name, text, again) for code, name, text, again in PAGE_CODE.findall(script)}
        self.assertEqual({*map(int, CloseCode), *NEVER_SENT}, set(known))
        for code, explanation in EXPLANATIONS.items():
            again = str(explanation.retry is not Retry.NEVER).lower()
            self.assertEqual((explanation.name, explanation.text, again), known[code])

    def test_each_code_is_explained(self):
        self.assertEqual(set(CloseCode), set(EXPLANATIONS))
