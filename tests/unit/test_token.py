# SPDX-License-Identifier: Apache-2.0
"""Console auth tokens: minting, hashing, recognizing."""

import hashlib

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import token


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
