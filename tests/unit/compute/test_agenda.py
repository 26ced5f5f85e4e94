# SPDX-License-Identifier: Apache-2.0
"""What has to be looked at, and when."""

import threading

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.compute.agenda import Agenda
from consoled.compute.places import Places
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
        self.agenda = Agenda(self.clock)

    def test_a_guest_that_changed_often_is_named_once(self):
        for _ in range(1000):
            self.agenda.add('a')
        self.assertEqual(1, len(self.agenda))
        self.assertEqual({'a': False}, self.agenda.take())
        self.assertEqual(0, len(self.agenda))

    def test_guests_are_taken_by_their_first_change(self):
        for key in ('b', 'a', None, 'c', 'b'):
            self.agenda.add(key)
        self.assertEqual(['b', 'a', None, 'c'], list(self.agenda.take()))

    def test_later(self):
        self.agenda.later('a', 10, repeated=True)
        self.agenda.later('b', 5)
        self.agenda.later('b', 20)
        self.assertEqual({}, self.agenda.take_guests())
        self.clock.now += 10
        self.assertEqual({'a': True}, self.agenda.take())
        self.clock.now += 10
        self.assertEqual({'b': False}, self.agenda.take())

    def test_what_has_changed_is_not_merely_repeated(self):
        self.agenda.add('a')
        self.agenda.later('a', 0, repeated=True)
        self.agenda.add('b', repeated=True)
        self.agenda.add('b')
        self.agenda.add('c', repeated=True)
        self.agenda.add('c', repeated=True)
        self.assertEqual({'a': False, 'b': False, 'c': True}, self.agenda.take())

    def test_guests_alone_without_waiting(self):
        self.assertEqual({}, self.agenda.take_guests())
        self.agenda.add(None)
        self.agenda.add('a')
        self.assertEqual({'a': False}, self.agenda.take_guests())
        self.assertEqual({None: False}, self.agenda.take())

    def test_a_pause(self):
        self.agenda.add('a')
        self.agenda.pause(5)
        self.assertEqual({}, self.agenda.take_guests())
        self.clock.now += 5
        self.assertEqual({'a': False}, self.agenda.take_guests())

    def test_closed(self):
        self.agenda.add('a')
        self.agenda.close()
        self.assertTrue(self.agenda.closed)
        self.assertIsNone(self.agenda.take())
        self.assertEqual({}, self.agenda.take_guests())

    def test_waiting(self):
        agenda, taken = Agenda(), []

        def work():
            while (due := agenda.take()) is not None:
                taken.append(due)

        thread = threading.Thread(target=work)
        thread.start()
        agenda.add('a')
        wait_until(lambda: taken == [{'a': False}])
        agenda.later('b', 0.05)
        wait_until(lambda: taken[1:] == [{'b': False}])
        agenda.pause(0.05)
        agenda.add('c')
        wait_until(lambda: taken[2:] == [{'c': False}])
        agenda.close()
        thread.join()

    @given(st.lists(st.sampled_from('abc'), max_size=20))
    def test_nothing_is_lost_and_nothing_is_there_twice(self, keys):
        agenda = Agenda(self.clock)
        for key in keys:
            agenda.add(key)
        self.assertEqual(sorted(set(keys)), sorted(agenda.take_guests()))
        self.assertEqual({}, agenda.take_guests())


class PlacesTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.places = Places()
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
