# SPDX-License-Identifier: Apache-2.0
"""The work queue: order, deduplication, delays, backoff."""

import threading
from unittest import mock

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.compute import workqueue
from consoled.compute.workqueue import ALL_INSTANCES, WorkQueue
from consoled.testing.fixtures import wait_until


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class WorkQueueTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.clock = Clock()
        self.queue = WorkQueue(self.clock)

    def test_a_key_that_is_added_often_is_queued_once(self):
        for _ in range(1000):
            self.queue.add('a')
        self.assertEqual(1, len(self.queue))
        self.assertEqual({'a': False}, self.queue.get_all())
        self.assertEqual(0, len(self.queue))

    def test_keys_are_returned_in_the_order_of_their_first_addition(self):
        for key in ('b', 'a', ALL_INSTANCES, 'c', 'b'):
            self.queue.add(key)
        self.assertEqual(['b', 'a', ALL_INSTANCES, 'c'], list(self.queue.get_all()))

    def test_add_after(self):
        self.queue.add_after('a', 10, resync=True)
        self.queue.add_after('b', 5)
        self.queue.add_after('b', 20)
        self.assertEqual({}, self.queue.get_instances_nowait())
        self.clock.now += 10
        self.assertEqual({'a': True}, self.queue.get_all())
        self.clock.now += 10
        self.assertEqual({'b': False}, self.queue.get_all())

    def test_a_change_is_never_a_resync(self):
        self.queue.add('a')
        self.queue.add_after('a', 0, resync=True)
        self.queue.add('b', resync=True)
        self.queue.add('b')
        self.queue.add('c', resync=True)
        self.queue.add('c', resync=True)
        self.assertEqual({'a': False, 'b': False, 'c': True}, self.queue.get_all())

    def test_get_instances_nowait_leaves_the_comparison_of_all(self):
        self.assertEqual({}, self.queue.get_instances_nowait())
        self.queue.add(ALL_INSTANCES)
        self.queue.add('a')
        self.assertEqual({'a': False}, self.queue.get_instances_nowait())
        self.assertEqual({ALL_INSTANCES: False}, self.queue.get_all())

    def test_closed(self):
        self.queue.add('a')
        self.queue.close()
        self.assertTrue(self.queue.closed)
        self.assertIsNone(self.queue.get_all())
        self.assertEqual({}, self.queue.get_instances_nowait())

    def test_get_all_waits(self):
        queue, batches = WorkQueue(), []

        def work():
            while (due := queue.get_all()) is not None:
                batches.append(due)

        thread = threading.Thread(target=work)
        thread.start()
        queue.add('a')
        wait_until(lambda: batches == [{'a': False}])
        queue.add_after('b', 0.05)
        wait_until(lambda: batches[1:] == [{'b': False}])
        with mock.patch.object(workqueue, '_FIRST_PAUSE', 0.05):
            queue.pause_with_backoff()
        queue.add('c')
        wait_until(lambda: batches[2:] == [{'c': False}])
        queue.close()
        thread.join()

    @given(st.lists(st.sampled_from('abc'), max_size=20))
    def test_no_key_is_lost_or_returned_twice(self, keys):
        queue = WorkQueue(self.clock)
        for key in keys:
            queue.add(key)
        self.assertEqual(sorted(set(keys)), sorted(queue.get_instances_nowait()))
        self.assertEqual({}, queue.get_instances_nowait())

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(['add', 'add_after', 'add_with_backoff', 'pause_with_backoff', 'get']),
                st.sampled_from(['a', 'b', ALL_INSTANCES]),
                st.booleans(),
                st.integers(0, 30),
            ),
            max_size=30,
        )
    )
    def test_every_added_key_is_returned_once_its_time_has_come(self, steps):
        clock = Clock()
        queue, added, returned = WorkQueue(clock), set(), set()
        for step, key, resync, seconds in steps:
            clock.now += seconds
            if step == 'add':
                queue.add(key, resync=resync)
            elif step == 'add_after':
                queue.add_after(key, seconds, resync=resync)
            elif step == 'add_with_backoff':
                queue.add_with_backoff(key)
            elif step == 'pause_with_backoff':
                queue.pause_with_backoff()
            else:
                returned |= queue.get_instances_nowait().keys()
            if step.startswith('add'):
                added.add(key)
        clock.now += 60
        if added:
            queue.add(ALL_INSTANCES)
            returned |= queue.get_all().keys()
        self.assertEqual(added | ({ALL_INSTANCES} if added else set()), returned)


class BackoffTest(testtools.TestCase):
    """Without jitter: ``random.uniform`` returns its upper bound."""

    def setUp(self):
        super().setUp()
        self.clock = Clock()
        self.queue = WorkQueue(self.clock)
        patch = mock.patch('consoled.backoff.random.uniform', lambda low, high: high)
        patch.start()
        self.addCleanup(patch.stop)

    def delay(self):
        """The seconds until the queue returns a key."""
        return self.queue._seconds_to_next(self.clock.now)

    def failures_in_a_row(self, key, count):
        for _ in range(count):
            self.queue.add_with_backoff(key)
            yield self.delay()
            self.clock.now += self.delay()
            self.queue.get_all()

    def test_failures_of_a_key_double_its_delay(self):
        self.assertEqual([0.5, 1, 2, 4, 8, 15, 15], list(self.failures_in_a_row('a', 7)))

    def test_each_key_has_its_own_delay(self):
        list(self.failures_in_a_row('a', 3))
        self.assertEqual([0.5], list(self.failures_in_a_row('b', 1)))
        self.assertEqual([4], list(self.failures_in_a_row('a', 1)))

    def test_a_key_that_was_processed_starts_again(self):
        list(self.failures_in_a_row('a', 3))
        self.queue.forget('a')
        self.queue.forget('unknown')
        self.assertEqual([0.5], list(self.failures_in_a_row('a', 1)))

    def test_a_pause_holds_all_keys(self):
        self.queue.pause_with_backoff()
        self.queue.add('a')
        self.assertEqual({}, self.queue.get_instances_nowait())
        self.assertEqual(0.5, self.delay())
        self.clock.now += 0.5
        self.assertEqual({'a': False}, self.queue.get_instances_nowait())

    def test_pauses_in_a_row_double(self):
        self.queue.add('a')
        pauses = []
        for _ in range(3):
            self.queue.pause_with_backoff()
            pauses.append(self.delay())
        self.queue.forget_pauses()
        self.queue.pause_with_backoff()
        self.assertEqual([0.5, 1, 2, 0.5], [*pauses, self.delay()])
