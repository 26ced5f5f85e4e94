# SPDX-License-Identifier: Apache-2.0
"""The demo's bus: its consumers wait, are woken by a message, and time out."""

import logging
import threading
import time

import testtools
from kombu.transport import TRANSPORT_ALIASES

from consoled.demo import bus

PATIENCE = 20.0  # seconds; only used up by a failure


class StubBus(bus.Bus):
    """A bus whose deliveries are counted instead of made."""

    def __init__(self):
        self.waiting = []
        self.cycle = self

    def get(self, callback, timeout=None):
        if not self.waiting:
            raise bus.queue.Empty
        return self.waiting.pop()


class WaitTest(testtools.TestCase):
    def test_a_message_that_is_already_there(self):
        stub = StubBus()
        stub.waiting.append('message')
        stub.drain_events(None, timeout=0)
        self.assertEqual([], stub.waiting)

    def test_no_message_in_time(self):
        self.assertRaises(TimeoutError, StubBus().drain_events, None, timeout=0.01)

    def test_a_message_ends_the_wait(self):
        stub = StubBus()

        def put():
            stub.waiting.append('message')
            bus.Bus.notify()

        timer = threading.Timer(0.05, put)
        timer.start()
        self.addCleanup(timer.join)
        started = time.monotonic()
        stub.drain_events(None, timeout=PATIENCE)
        self.assertLess(time.monotonic() - started, PATIENCE / 2)
        self.assertEqual([], stub.waiting)


class InUseTest(testtools.TestCase):
    def test_the_alias_and_the_filter(self):
        before = TRANSPORT_ALIASES['memory']
        self.addCleanup(TRANSPORT_ALIASES.__setitem__, 'memory', before)
        logger = logging.getLogger('kombu.connection')
        with bus.in_use():
            self.assertEqual('consoled.demo.bus:Bus', TRANSPORT_ALIASES['memory'])
            for message, kept in (('No hostname was supplied. Reverting', False), ('Something else', True)):
                record = logger.makeRecord('x', logging.WARNING, '', 0, message, (), None)
                self.assertEqual(kept, bool(logger.filter(record)))
        self.assertEqual([], logger.filters)
