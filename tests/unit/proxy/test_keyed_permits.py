# SPDX-License-Identifier: Apache-2.0
"""Permits by key: in order, apart from those of other keys, and forgotten when nobody needs them."""

import asyncio

import testtools

from consoled.proxy.keyed_permits import KeyedPermits
from tests.unit.proxy import relay_base as relays


class KeyedPermitsTest(testtools.TestCase):
    def test_each_key_has_its_own_permits(self):
        async def work():
            permits = KeyedPermits(1)
            await permits.acquire('a')
            waiting = asyncio.create_task(permits.acquire('a'))
            await permits.acquire('b')
            await relays.settle()
            self.assertFalse(waiting.done())
            permits.release('a')
            await waiting

        relays.run(work)

    def test_permits_are_given_in_order(self):
        async def work():
            permits, served = KeyedPermits(2), []

            async def user(number):
                await permits.acquire('a')
                served.append(number)
                await relays.settle()
                permits.release('a')

            await asyncio.gather(*map(user, range(10)))
            self.assertEqual(list(range(10)), served)

        relays.run(work)

    def test_a_key_is_forgotten_when_nobody_holds_or_wants_a_permit(self):
        async def work():
            permits = KeyedPermits(1)
            await permits.acquire('a')
            waiting = [asyncio.create_task(permits.acquire('a')) for _ in range(3)]
            await relays.settle()
            for task in waiting[:2]:
                task.cancel()
            await asyncio.gather(*waiting[:2], return_exceptions=True)
            permits.release('a')
            await waiting[2]
            self.assertEqual(1, len(permits))
            permits.release('a')
            self.assertEqual(0, len(permits))

        relays.run(work)
