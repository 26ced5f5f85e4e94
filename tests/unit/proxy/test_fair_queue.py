# SPDX-License-Identifier: Apache-2.0
"""Work that waits for its turn: clients take turns, and other tasks run in between."""

import asyncio

import fixtures
import testtools

from consoled.proxy import fair_queue
from consoled.proxy.fair_queue import FairQueue
from tests.unit.proxy import relay_base as relays


class FairQueueTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.done = []

    def add(self, queue, client, number):
        queue.add(client, lambda: self.done.append(f'{client}{number}'))

    def test_clients_take_turns_and_the_work_of_each_is_done_in_order(self):
        async def work():
            queue = FairQueue()
            for client, number in (('a', 4), ('b', 2), ('c', 1)):
                for each in range(number):
                    self.add(queue, client, each)
            await relays.settle()
            self.assertEqual(['a0', 'b0', 'c0', 'a1', 'b1', 'a2', 'a3'], self.done)
            self.assertEqual({}, queue._pending)

        relays.run(work)

    def test_other_tasks_run_after_each_slice(self):
        async def work():
            self.useFixture(fixtures.MockPatchObject(fair_queue, '_SLICE', 0))
            queue = FairQueue()
            for each in range(100):
                self.add(queue, 'a', each)
            for each in range(1, 50):
                await asyncio.sleep(0)
                self.assertLessEqual(len(self.done), each)

        relays.run(work)

    def test_work_that_fails_does_not_stop_the_rest(self):
        async def work():
            errors = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
            queue = FairQueue()
            queue.add('a', lambda: 1 / 0)
            self.add(queue, 'a', 1)
            await relays.settle()
            self.assertEqual((['a1'], 1), (self.done, len(errors)))

        asyncio.run(work())
