# SPDX-License-Identifier: Apache-2.0
"""The interface of token sources, and the one in memory that tests use in place of any other."""

import inspect

import testtools

from consoled import objects, sources
from consoled import token as tokens
from consoled.legacy.memcached import MemcachedTokens, NoTokens
from consoled.testing.sources import MemoryTokenSource

INSTANCE = '0f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'
OTHER = '1f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'


def issued(instance_uuid=INSTANCE):
    return sources.Issued(instance_uuid, 'novnc', '192.0.2.10', 5900, None, None, 1.0)


class InterfaceTest(testtools.TestCase):
    def test_all_sources_have_the_same_signatures(self):
        for name in ('lookup', 'store', 'forget'):
            expected = inspect.signature(getattr(sources.TokenSource, name))
            for cls in (MemoryTokenSource, MemcachedTokens, NoTokens):
                self.assertEqual(expected, inspect.signature(getattr(cls, name)), f'{cls} {name}')

    def test_names_fit_the_column_that_counts_uses(self):
        for name in (MemoryTokenSource().name, MemcachedTokens.name, NoTokens.name):
            self.assertTrue(1 <= len(name) <= 32, name)


class MemoryTokensTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.source = MemoryTokenSource()
        self.mine, self.second, self.others = tokens.mint(), tokens.mint(), tokens.mint()
        self.source.issued = {self.mine: issued(), self.second: issued(), self.others: issued(OTHER)}

    def test_lookup(self):
        self.assertEqual(issued(), self.source.lookup(self.mine))
        self.assertIsNone(self.source.lookup('unknown'))
        self.assertEqual([self.mine, 'unknown'], self.source.asked)

    def test_forget_some_and_all_tokens_of_an_instance(self):
        self.source.forget(INSTANCE, {tokens.hashed(self.mine), tokens.hashed(self.others)})
        self.assertEqual({self.second, self.others}, set(self.source.issued))
        self.source.forget(INSTANCE)
        self.assertEqual({self.others}, set(self.source.issued))

    def test_a_source_that_cannot_be_reached_has_nothing_and_keeps_nothing(self):
        self.source.available = False
        grant = objects.ConsoleAuthToken(token='x' * 43)
        self.source.store(grant)
        self.source.forget(INSTANCE)
        self.assertIsNone(self.source.lookup(self.mine))
        self.assertEqual({}, self.source.stored)
        self.assertEqual(3, len(self.source.issued))
        self.source.available = True
        self.source.store(grant)
        self.assertEqual({'x' * 43: grant}, self.source.stored)
