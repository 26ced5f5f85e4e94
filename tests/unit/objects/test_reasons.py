# SPDX-License-Identifier: Apache-2.0
"""The reasons for the end of a session: their values are part of the contract."""

import testtools

from consoled.objects import EndReason, fields

# What the database, peers, metrics and logs have. A value may be added, and none may ever change.
VALUES = {
    'TAKEN_OVER': 'taken_over',
    'INSTANCE_GONE': 'instance_gone',
    'CONSOLE_MOVED': 'console_moved',
    'CONSOLE_GONE': 'console_gone',
    'LEASE_LOST': 'lease_lost',
    'USER_LEFT': 'user_left',
    'USER_LOST': 'user_lost',
    'GUEST_CLOSED': 'guest_closed',
    'GUEST_STALLED': 'guest_stalled',
    'TIME_OVER': 'time_over',
    'IDLE': 'idle',
    'DRAINED': 'drained',
    'PROTOCOL_ERROR': 'protocol_error',
    'MESSAGE_TOO_BIG': 'message_too_big',
    'OPEN_FAILED': 'open_failed',
    'COMPUTE_HOST_GONE': 'compute_host_gone',
}


class EndReasonTest(testtools.TestCase):
    def test_no_value_has_changed(self):
        self.assertEqual(VALUES, {reason.name: reason.value for reason in EndReason})

    def test_each_is_text_that_fits_its_field_and_its_column(self):
        for reason in EndReason:
            self.assertEqual(reason.value, str(reason))
            self.assertEqual(reason.value, f'{reason}')
            self.assertEqual(reason, fields.ShortName().check(reason))
