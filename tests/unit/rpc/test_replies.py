# SPDX-License-Identifier: Apache-2.0
"""Replies of managers, from and to the wire."""

import contextlib

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import exception
from consoled.rpc.replies import Closing, HostChanges, LeaseGrant, LeaseRenewal, Revocation

GOOD = {
    LeaseGrant: {'lease': 60, 'now': '2026-01-01T00:00:00.000000+00:00'},
    LeaseRenewal: {'lease': 60, 'now': '2026-01-01T00:00:00.000000+00:00', 'cut': {'an-id': 'taken_over'}},
    Revocation: {'tokens': 2, 'sessions': 1},
    HostChanges: {'retired': 0, 'changed': 3},
}


class RepliesTest(testtools.TestCase):
    def test_each_comes_back_from_the_wire(self):
        for cls, wire in GOOD.items():
            reply = cls.from_wire(wire)
            self.assertIs(cls, type(reply))
            self.assertEqual(wire, {name: value for name, value in vars(reply).items() if value != ()})

    def test_sources_whose_tokens_a_revocation_cannot_match(self):
        counts = {'tokens': 2, 'sessions': 1}
        self.assertEqual((), Revocation.from_wire(counts).unmatched)  # of an older manager
        self.assertEqual(('nova',), Revocation.from_wire({**counts, 'unmatched': ['nova']}).unmatched)
        for wrong in ('nova', ['x' * 33], ['a'] * 17, [1], None):
            self.assertRaises(exception.InternalError, Revocation.from_wire, {**counts, 'unmatched': wrong})

    def test_unknown_keys_of_a_newer_manager_are_ignored(self):
        for cls, wire in GOOD.items():
            self.assertEqual(cls(**wire), cls.from_wire({**wire, 'colour': 'red'}))

    def test_a_malformed_reply_is_an_internal_error(self):
        for cls, wire in GOOD.items():
            for key in wire:
                without = {name: value for name, value in wire.items() if name != key}
                for reply in (without, {**wire, key: None}, {**wire, key: [1]}):
                    error = self.assertRaises(exception.InternalError, cls.from_wire, reply)
                    self.assertIn(key, str(error))

    def test_values_out_of_bounds_are_an_internal_error(self):
        long = 'x' * 10**6
        for cls, key, values in (
            (LeaseGrant, 'lease', (float('nan'), float('inf'), -1, 0, True, 10**9, '60')),
            (LeaseGrant, 'now', (long, '', 'now\n', '\x1b[2J')),
            (LeaseRenewal, 'cut', ({'an-id': long}, {long: 'idle'}, {'an-id': None}, {'an-id': 'x\ny'})),
            (Revocation, 'tokens', (-1, True, 1.5, 2**63, float('nan'))),
            (HostChanges, 'changed', (-1, True, 1.5, 2**63)),
        ):
            for value in values:
                error = self.assertRaises(exception.InternalError, cls.from_wire, {**GOOD[cls], key: value})
                self.assertEqual(f'The reply of the manager is malformed: {key}.', str(error))

    @given(reply=st.one_of(st.none(), st.text(), st.integers(), st.dictionaries(st.text(), st.integers())))
    def test_anything_is_read_or_refused(self, reply):
        for cls in GOOD:
            with contextlib.suppress(exception.InternalError):
                self.assertIsInstance(cls.from_wire(reply), cls)

    def test_host_changes_are_true_when_something_changed(self):
        self.assertFalse(HostChanges(retired=0, changed=0))
        self.assertTrue(HostChanges(retired=1, changed=0))
        self.assertTrue(HostChanges(retired=0, changed=1))

    def test_a_closing_has_the_arguments_of_close_session(self):
        self.assertEqual(
            {'session_id': 'an-id', 'reason': 'idle', 'bytes_in': 0, 'bytes_out': 7},
            Closing('an-id', 'idle', bytes_out=7).to_wire(),
        )
