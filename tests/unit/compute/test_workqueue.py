# SPDX-License-Identifier: Apache-2.0
"""What has to be looked at, and when."""

import threading

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.compute.port_conflicts import PortConflicts
from consoled.compute.workqueue import WorkQueue
from consoled.testing.fixtures import wait_until
from tests.functional import base


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class AgendaTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.clock = Clock()
        self.queue = WorkQueue(self.clock)

    def test_a_guest_that_changed_often_is_named_once(self):
        for _ in range(1000):
            self.queue.add('a')
        self.assertEqual(1, len(self.queue))
        self.assertEqual({'a': False}, self.queue.take())
        self.assertEqual(0, len(self.queue))

    def test_guests_are_taken_by_their_first_change(self):
        for key in ('b', 'a', None, 'c', 'b'):
            self.queue.add(key)
        self.assertEqual(['b', 'a', None, 'c'], list(self.queue.take()))

    def test_later(self):
        self.queue.later('a', 10, repeated=True)
        self.queue.later('b', 5)
        self.queue.later('b', 20)
        self.assertEqual({}, self.queue.take_guests())
        self.clock.now += 10
        self.assertEqual({'a': True}, self.queue.take())
        self.clock.now += 10
        self.assertEqual({'b': False}, self.queue.take())

    def test_what_has_changed_is_not_merely_repeated(self):
        self.queue.add('a')
        self.queue.later('a', 0, repeated=True)
        self.queue.add('b', repeated=True)
        self.queue.add('b')
        self.queue.add('c', repeated=True)
        self.queue.add('c', repeated=True)
        self.assertEqual({'a': False, 'b': False, 'c': True}, self.queue.take())

    def test_guests_alone_without_waiting(self):
        self.assertEqual({}, self.queue.take_guests())
        self.queue.add(None)
        self.queue.add('a')
        self.assertEqual({'a': False}, self.queue.take_guests())
        self.assertEqual({None: False}, self.queue.take())

    def test_a_pause(self):
        self.queue.add('a')
        self.queue.pause(5)
        self.assertEqual({}, self.queue.take_guests())
        self.clock.now += 5
        self.assertEqual({'a': False}, self.queue.take_guests())

    def test_closed(self):
        self.queue.add('a')
        self.queue.close()
        self.assertTrue(self.queue.closed)
        self.assertIsNone(self.queue.take())
        self.assertEqual({}, self.queue.take_guests())

    def test_waiting(self):
        queue, taken = WorkQueue(), []

        def work():
            while (due := queue.take()) is not None:
                taken.append(due)

        thread = threading.Thread(target=work)
        thread.start()
        queue.add('a')
        wait_until(lambda: taken == [{'a': False}])
        queue.later('b', 0.05)
        wait_until(lambda: taken[1:] == [{'b': False}])
        queue.pause(0.05)
        queue.add('c')
        wait_until(lambda: taken[2:] == [{'c': False}])
        queue.close()
        thread.join()

    @given(st.lists(st.sampled_from('abc'), max_size=20))
    def test_nothing_is_lost_and_nothing_is_there_twice(self, keys):
        queue = WorkQueue(self.clock)
        for key in keys:
            queue.add(key)
        self.assertEqual(sorted(set(keys)), sorted(queue.take_guests()))
        self.assertEqual({}, queue.take_guests())


class PlacesTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.places = PortConflicts()
        self.a, self.b, self.c = (base.new_uuid() for _ in range(3))

    def put(self, guest, *ports):
        return self.places.put(guest, [base.a_console(guest, port) for port in ports])

    def others(self, guest, port):
        return self.places.others(guest, base.ADDRESS, port)

    def test_who_else_has_a_place(self):
        self.put(self.a, 10000, 10001)
        self.put(self.b, 10001, 10002)
        self.assertEqual(set(), self.others(self.a, 10000))
        self.assertEqual({self.b}, self.others(self.a, 10001))
        self.assertEqual({self.a}, self.others(self.b, 10001))
        self.assertEqual(set(), self.places.others(self.a, '192.0.2.99', 10001))

    def test_those_it_matters_to_are_named(self):
        self.assertEqual(set(), self.put(self.a, 10000))
        self.assertEqual({self.a}, self.put(self.b, 10000))
        self.assertEqual(set(), self.put(self.b, 10000))
        self.assertEqual(set(), self.put(self.c, 10001))
        self.assertEqual({self.a}, self.put(self.b))
        self.assertEqual(set(), self.others(self.a, 10000))

    def test_those_that_have_gone_are_forgotten(self):
        self.put(self.a, 10000)
        self.put(self.b, 10000)
        self.places.keep([self.a])
        self.assertEqual(set(), self.others(self.a, 10000))
        self.assertEqual({self.a}, self.others(self.b, 10000))
