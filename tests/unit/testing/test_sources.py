# SPDX-License-Identifier: Apache-2.0
"""The in-memory token source."""

import time

import testtools

from consoled import objects
from consoled import token as tokens
from consoled.sources import Issued
from consoled.testing.sources import MemoryTokenSource


class MemoryTokenSourceTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.source = MemoryTokenSource()

    def issue(self, token, instance_uuid='guest-1'):
        self.source.issued[token] = Issued(
            instance_uuid, 'serial', '192.0.2.10', 10000, None, None, time.time()
        )

    def test_lookup_finds_what_was_issued_and_records_every_request(self):
        self.issue('first')
        self.assertEqual('guest-1', self.source.lookup('first').instance_uuid)
        self.assertIsNone(self.source.lookup('second'))
        self.assertEqual(['first', 'second'], self.source.asked)

    def test_store_records_the_token(self):
        grant = objects.ConsoleAuthToken(token='first')
        self.source.store(grant)
        self.assertEqual({'first': grant}, self.source.stored)

    def test_forget_deletes_the_instances_tokens(self):
        for token, instance_uuid in (('a', 'guest-1'), ('b', 'guest-1'), ('c', 'guest-2')):
            self.issue(token, instance_uuid)
        self.source.forget('guest-1', {tokens.hashed('a'), tokens.hashed('c')})
        self.assertEqual({'b', 'c'}, set(self.source.issued))
        self.source.forget('guest-1')
        self.assertEqual({'c'}, set(self.source.issued))

    def test_an_unavailable_source_finds_stores_and_deletes_nothing(self):
        self.issue('first')
        self.source.available = False
        self.assertIsNone(self.source.lookup('first'))
        self.source.store(objects.ConsoleAuthToken(token='second'))
        self.source.forget('guest-1')
        self.assertEqual((['first'], {}), (list(self.source.issued), self.source.stored))
