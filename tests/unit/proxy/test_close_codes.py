# SPDX-License-Identifier: Apache-2.0
"""How users are told why a session ended: each reason has its code and words, and pages know each code."""

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
LIBRARY = {1005, 1006}  # codes that no peer sends: the browser's own for "none" and "lost"

# doc/design.md, the table of errors: the statuses before the upgrade ...
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


class CloseCodesTest(testtools.TestCase):
    def test_reasons_are_told_as_the_design_has_it(self):
        self.assertEqual(CODES, {reason: close_codes.ending(reason).code for reason in CODES})
        self.assertEqual(STATUSES, {error: error.http_status for error in STATUSES})

    def test_every_reason_but_an_operators_is_in_the_table(self):
        self.assertEqual(set(EndReason) - {EndReason.COMPUTE_HOST_GONE}, set(ENDINGS))
        self.assertEqual(set(ENDINGS), set(CODES) & set(EndReason))

    def test_nobody_ends_anything_with_a_text_of_their_own(self):
        wrong = []
        for path in sorted(PROXY.glob('*.py')):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in ('end', 'cut_all', 'cut_limited', 'abandon')
                    and any(isinstance(each, ast.Constant) for each in node.args)
                ):
                    wrong.append(f'{path.name}:{node.lineno}')
        self.assertEqual([], wrong)

    def test_each_can_be_sent(self):
        """A control frame has 125 bytes, two of them for the code (RFC 6455, section 5.5.1)."""
        for reason in [*EndReason, 'revoked']:
            ending = close_codes.ending(reason)
            frame = Close(ending.code, ending.text)
            self.assertEqual(frame, Close.parse(frame.serialize()))
            self.assertTrue(len(ending.text.encode()) <= 123)

    @unhurried
    @given(st.text(max_size=64).filter(lambda text: text not in set(ENDINGS)))
    def test_a_reason_that_an_operator_gave_is_a_revocation_and_is_not_repeated(self, reason):
        self.assertEqual(close_codes.ending('revoked'), close_codes.ending(reason))
        self.assertEqual('revoked', close_codes.metric_label(reason))

    def test_a_known_reason_is_its_own_label(self):
        for reason in ENDINGS:
            self.assertEqual(reason, close_codes.metric_label(reason))

    def test_labels_are_few(self):
        labels = {close_codes.metric_label(reason) for reason in [*CODES, *map(str, range(1000))]}
        self.assertEqual({*ENDINGS, 'revoked'}, labels)

    def test_the_page_knows_each_code_by_the_same_name_and_words(self):
        script = (PROXY / 'web' / 'page.js').read_text()
        known = {int(code): (name, text, again) for code, name, text, again in PAGE_CODE.findall(script)}
        self.assertEqual({*map(int, CloseCode), *LIBRARY}, set(known))
        for code, explanation in EXPLANATIONS.items():
            again = str(explanation.retry is not Retry.NEVER).lower()
            self.assertEqual((explanation.name, explanation.text, again), known[code])

    def test_every_code_is_explained(self):
        self.assertEqual(set(CloseCode), set(EXPLANATIONS))
