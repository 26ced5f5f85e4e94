# SPDX-License-Identifier: Apache-2.0
"""Calls in a thread for an event loop: results, errors, order, and calls that hang."""

import asyncio
import threading

import testtools

from consoled.consolectl.task_thread import TaskThread

PATIENCE = 20.0  # seconds; only used up by a failure


class TaskThreadTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.thread = TaskThread()
        self.release = threading.Event()
        self.addCleanup(self.thread.stop, PATIENCE)
        self.addCleanup(self.release.set)

    def test_results_and_errors(self):
        async def use():
            self.assertEqual(3, await self.thread.run(lambda a, b: a + b, 1, 2))
            with testtools.ExpectedException(ZeroDivisionError):
                await self.thread.run(lambda: 1 / 0)
            self.assertEqual('again', await self.thread.run(lambda: 'again'))

        asyncio.run(use())
        self.assertFalse(self.thread.busy)

    def test_the_loop_runs_on_and_the_thread_is_busy_meanwhile(self):
        async def use():
            running = asyncio.create_task(self.thread.run(self.release.wait, PATIENCE))
            await asyncio.sleep(0)
            self.assertTrue(self.thread.busy)
            self.release.set()
            self.assertTrue(await running)
            self.assertFalse(self.thread.busy)

        asyncio.run(use())

    def test_a_cancelled_call_is_left_behind(self):
        started = threading.Event()

        def hang():
            started.set()
            self.release.wait(PATIENCE)

        async def use():
            running = asyncio.create_task(self.thread.run(hang))
            await asyncio.to_thread(started.wait, PATIENCE)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.assertTrue(self.thread.busy)

        asyncio.run(use())
        self.assertFalse(self.thread.stop(0.01))
        self.release.set()  # its result finds a closed loop, which does no harm
        self.assertTrue(self.thread.stop(PATIENCE))
