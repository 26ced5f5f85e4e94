# SPDX-License-Identifier: Apache-2.0
"""What the managers are told of the guests: in order, the newest only, until they know it."""

import dataclasses
import threading
import time

import fixtures as fixtures_library
import testtools

from consoled import backoff, exception
from consoled.compute import reconciler
from consoled.compute.drivers import demo
from consoled.compute.metrics import Metrics
from consoled.rpc.replies import HostChanges
from consoled.testing import fixtures
from consoled.testing.fixtures import wait_until
from tests.functional import base

HOST = 'node-1'
ADDRESS = '192.0.2.20'


class Manager:
    """Writes down what it is told; ``failures`` are raised first, one a call."""

    def __init__(self):
        self.told = []
        self.failures = []
        self.open = threading.Event()  # answers come only while it is set
        self.open.set()
        self.before = lambda method: None

    def _hear(self, method, *what):
        self.open.wait()
        self.before(method)
        self.told.append((method, *what))
        if self.failures:
            failure = self.failures.pop(0)
            if failure is not None:
                raise failure

    def define_consoles(self, context, instance_uuid, compute_host, consoles, wait=False):
        assert wait
        assert compute_host == HOST
        self._hear('define', instance_uuid, [console.port for console in consoles.objects])

    def clean_console_auths_for_instance(self, context, instance_uuid, compute_host=None, wait=False):
        assert wait
        assert compute_host == HOST
        self._hear('clean', instance_uuid)

    def define_host(self, context, compute_host, instance_uuids, consoles, unknown=()):
        assert compute_host == HOST
        places = sorted((console.instance_uuid, console.port) for console in consoles.objects)
        self._hear('host', sorted(instance_uuids), places, sorted(unknown))
        return HostChanges(retired=0, changed=0)


class Driver(demo.DemoDriver):
    """Guests that can be broken: ``broken`` has what is raised, by UUID; None: by the list of them."""

    def __init__(self):
        super().__init__(HOST, ())
        self.broken = {}
        self.looks = []

    def list_instances(self):
        self._fail(None)
        return super().list_instances()

    def list_consoles(self, instance_uuid):
        self.looks.append(instance_uuid)
        self._fail(instance_uuid)
        return super().list_consoles(instance_uuid)

    def _fail(self, key):
        if key in self.broken:
            raise self.broken[key]


class SyncCase(testtools.TestCase):
    once_more = 1000.0
    options: dict = {}

    def setUp(self):
        super().setUp()
        for name, value in (('_FIRST_PAUSE', 0.01), ('_LONGEST_PAUSE', 0.05), ('_ONCE_MORE', self.once_more)):
            self.useFixture(fixtures_library.MonkeyPatch(f'{reconciler.__name__}.{name}', value))
        self.logged = self.useFixture(fixtures_library.FakeLogger())
        self.conf = self.useFixture(fixtures.Conf(host=HOST, **self.options)).conf
        self.manager, self.driver, self.metrics = Manager(), Driver(), Metrics('cell1')
        self.sync = reconciler.Reconciler(self.conf, self.driver, self.manager, self.metrics)
        self.driver.watch(self.sync.changed)
        self.addCleanup(self.sync.stop, 5)
        self.addCleanup(self.manager.open.set)

    def guest(self, *ports, host=ADDRESS, uuid=None):
        consoles = [demo.Console('serial', port, 'https://consoles.example/') for port in ports]
        return demo.Guest(uuid or base.new_uuid(), 'guest', host, tuple(consoles))

    def put(self, *ports, **how):
        guest = self.guest(*ports, **how)
        self.driver.put(guest)
        return guest

    def start(self):
        """Start, and forget what was told first."""
        self.sync.start()
        self.assertTrue(self.sync.wait_attempted(30))
        self.settle()
        self.manager.told.clear()

    def settle(self):
        """Wait until nothing is left to be told."""
        wait_until(lambda: not len(self.sync._queue), what='the queue')
        mark = base.new_uuid()  # what comes after it was told is told after it
        self.sync.changed(mark)
        wait_until(lambda: ('clean', mark) in self.manager.told, what='the mark')
        self.manager.told.remove(('clean', mark))

    def wait_told(self, *expected):
        wait_until(lambda: list(expected) == self.manager.told, what=f'{expected}, not {self.manager.told}')


class GuestTest(SyncCase):
    def test_at_the_start_everything_is_compared(self):
        first, second = self.put(10000, 10001), self.put()
        self.sync.start()
        self.sync.wait_attempted(30)
        self.assertIn(
            (
                'host',
                sorted([first.uuid, second.uuid]),
                [(first.uuid, 10000), (first.uuid, 10001)],
                [],
            ),
            self.manager.told,
        )

    def test_a_change_is_told(self):
        self.start()
        guest = self.put(10000)
        self.wait_told(('define', guest.uuid, [10000]))
        self.driver.put(dataclasses.replace(guest, running=False))
        self.wait_told(('define', guest.uuid, [10000]), ('define', guest.uuid, []))
        self.driver.remove(guest.uuid)
        wait_until(lambda: self.manager.told[2:] == [('clean', guest.uuid)])

    def test_a_thousand_events_collapse(self):
        self.start()
        self.manager.open.clear()
        guest = self.put(10000)
        for port in range(10001, 11000):
            self.put(port, uuid=guest.uuid)
        self.manager.open.set()
        self.settle()
        self.assertEqual(('define', guest.uuid, [10999]), self.manager.told[-1])
        self.assertLessEqual(len(self.manager.told), 2)

    def test_states_of_a_guest_are_told_in_their_order(self):
        self.start()
        guest = self.put(10000)
        for port in range(10001, 10200):
            self.put(port, uuid=guest.uuid)
            if port % 20 == 0:
                time.sleep(0.005)
        self.settle()
        ports = [told[2] for told in self.manager.told]
        self.assertEqual(sorted(ports), ports)
        self.assertEqual([10199], ports[-1])

    def test_a_guest_that_stopped_is_told_of_before_a_comparison_goes_on(self):
        """It has one second, and a host may have hundreds of guests."""
        guests = [self.put(port) for port in range(10000, 10020)]
        self.start()
        stopped = dataclasses.replace(guests[-1], running=False)
        looked = []

        def stop_in_its_middle(instance_uuid):
            looked.append(instance_uuid)
            if len(looked) == 5:
                self.driver.put(stopped)
            return demo.DemoDriver.list_consoles(self.driver, instance_uuid)

        self.driver.list_consoles = stop_in_its_middle
        self.sync.changed(None)
        wait_until(lambda: len(self.manager.told) == 2)
        self.assertEqual(('define', stopped.uuid, []), self.manager.told[0])
        self.assertEqual(6, looked.index(stopped.uuid) + 1)
        self.assertEqual(1, looked.count(stopped.uuid))
        self.assertNotIn((stopped.uuid, 10019), self.manager.told[1][2])

    def test_a_guest_that_came_in_the_middle_of_a_comparison_is_part_of_it(self):
        self.put(10000)
        self.start()
        late = self.guest(10001)

        def come_late(instance_uuid):
            del self.driver.list_consoles
            self.driver.put(late)
            return self.driver.list_consoles(instance_uuid)

        self.driver.list_consoles = come_late
        self.sync.changed(None)
        wait_until(lambda: self.manager.told and self.manager.told[-1][0] == 'host')
        self.assertIn((late.uuid, 10001), self.manager.told[-1][2])


class FailureTest(SyncCase):
    def test_it_is_told_until_it_is_known(self):
        self.start()
        self.manager.failures = [
            exception.ManagerUnreachable(reason='x'),
            exception.ManagerBusy(),
            exception.DatabaseUnavailable(),
        ]
        guest = self.put(10000)
        self.wait_told(*[('define', guest.uuid, [10000])] * 4)

    def test_what_is_told_again_is_the_newest_state(self):
        self.start()
        self.manager.failures = [exception.ManagerUnreachable(reason='x')]
        guest = self.guest(10000)
        self.manager.before = lambda method: (
            self.driver.put(self.guest(10001, uuid=guest.uuid)) if not self.manager.told else None
        )
        self.driver.put(guest)
        wait_until(lambda: self.manager.told[-1:] == [('define', guest.uuid, [10001])])
        self.settle()
        self.assertNotIn(('define', guest.uuid, [10000]), self.manager.told[1:])

    def test_without_managers_one_guest_is_tried_and_not_all(self):
        self.start()
        self.manager.open.clear()
        guests = [self.put(port) for port in range(10000, 10010)]
        self.manager.failures = [exception.ManagerUnreachable(reason='x')]
        self.manager.open.set()
        self.settle()
        self.assertEqual(11, len(self.manager.told))
        self.assertEqual({guest.uuid for guest in guests}, {told[1] for told in self.manager.told[1:]})

    def test_what_is_refused_is_not_told_again_and_again(self):
        self.start()
        self.manager.failures = [exception.InvalidConsole(reason='x')]
        guest = self.put(10000)
        self.settle()
        time.sleep(0.2)
        self.assertEqual([('define', guest.uuid, [10000])], self.manager.told)
        self.assertIn('refuse', self.logged.output)

    def test_a_fault_of_the_manager_may_pass(self):
        self.start()
        self.manager.failures = [exception.InternalError()] * 3
        guest = self.put(10000)
        self.wait_told(*[('define', guest.uuid, [10000])] * 4)

    def test_a_comparison_is_told_until_it_is_known(self):
        guest = self.put(10000)
        self.manager.failures = [exception.ManagerUnreachable(reason='x')] * 3
        self.sync.start()
        said = ('host', [guest.uuid], [(guest.uuid, 10000)], [])
        wait_until(lambda: self.manager.told.count(said) >= 2)

    def test_from_a_hypervisor_that_is_away_nothing_is_concluded(self):
        guest = self.put(10000)
        self.start()
        self.driver.broken = dict.fromkeys([None, guest.uuid], exception.HypervisorUnreachable())
        self.sync.changed(None)
        self.sync.changed(guest.uuid)
        looks = len(self.driver.looks)
        wait_until(lambda: len(self.driver.looks) > looks + 2)  # it goes on trying
        self.assertEqual([], self.manager.told)
        self.driver.broken = {}
        wait_until(lambda: {told[0] for told in self.manager.told} == {'define', 'host'})

    def test_a_guest_that_can_not_be_looked_at_does_not_keep_the_others_waiting(self):
        stuck, other = self.put(10000), self.put(10001)
        self.start()
        for error in (exception.HypervisorUnreachable(), RuntimeError('a fault of the driver')):
            self.manager.told.clear()
            self.driver.broken = {stuck.uuid: error}
            self.sync.changed(None)
            self.wait_told(('host', sorted([stuck.uuid, other.uuid]), [(other.uuid, 10001)], [stuck.uuid]))
        self.driver.broken = {}
        wait_until(lambda: ('define', stuck.uuid, [10000]) in self.manager.told)

    def test_a_fault_of_the_driver_does_not_end_the_thread(self):
        self.start()
        self.driver.broken = {None: RuntimeError('a fault of the driver')}
        self.sync.changed(None)
        wait_until(lambda: 'a fault of the driver' in self.logged.output)
        guest = self.put(10000)
        self.wait_told(('define', guest.uuid, [10000]))

    def test_of_a_guest_between_two_hosts_nothing_is_said(self):
        moving, other = self.put(10000), self.put(10001)
        self.start()
        self.driver.broken = {
            moving.uuid: exception.InstanceNotReady(instance_uuid=moving.uuid, reason='it is on its way')
        }
        self.sync.changed(moving.uuid)
        self.settle()
        self.assertEqual([], self.manager.told)
        self.sync.changed(None)
        self.wait_told(('host', sorted([moving.uuid, other.uuid]), [(other.uuid, 10001)], [moving.uuid]))

    def test_the_first_attempt_counts_whatever_comes_of_it(self):
        self.driver.broken = {None: exception.HypervisorUnreachable()}
        self.sync.start()
        self.assertTrue(self.sync.wait_attempted(30))


class OnceMoreTest(SyncCase):
    once_more = 0.1

    def start(self):
        self.sync.start()
        self.wait_told(*[('host', [], [], [])] * 2)
        self.manager.told.clear()

    def test_what_was_told_is_told_once_more_and_no_more(self):
        self.start()
        guest = self.put(10000)
        self.wait_told(*[('define', guest.uuid, [10000])] * 2)
        time.sleep(0.5)
        self.wait_told(*[('define', guest.uuid, [10000])] * 2)

    def test_a_comparison_whose_answer_was_lost_is_repeated(self):
        self.start()
        self.manager.failures = [exception.ManagerUnreachable(reason='no answer in time')]
        self.sync.changed(None)
        self.wait_told(*[('host', [], [], [])] * 3)
        time.sleep(0.5)
        self.wait_told(*[('host', [], [], [])] * 3)


class PeriodTest(SyncCase):
    options = {'compute__sync_interval': 1}

    def test_all_is_compared_again_and_again(self):
        self.start()
        wait_until(lambda: self.manager.told.count(('host', [], [], [])) == 2)


class SpreadTest(SyncCase):
    once_more = 0.1
    options = {'compute__sync_interval': 600}

    def setUp(self):
        super().setUp()
        self.pauses = []
        self.useFixture(fixtures_library.MonkeyPatch(f'{backoff.__name__}.random.uniform', self.draw))

    def draw(self, low, high):
        self.pauses.append((low, high))
        return low

    def test_hosts_that_start_together_do_not_go_on_together(self):
        """Once more soon, then anywhere in an interval, and then an interval after the other."""
        self.sync.start()
        self.wait_told(*[('host', [], [], [])] * 3)
        wait_until(lambda: self.pauses == [(0.9, 1.1), (0, 1), (0.9, 1.1)])
        self.pauses.clear()
        self.sync.changed(None)  # as when the hypervisor or the managers are back
        wait_until(lambda: self.pauses == [(0.9, 1.1), (0, 1), (0.9, 1.1)])


class EnsureTest(SyncCase):
    def test_what_is_known_is_not_waited_for(self):
        guest = self.put(10000)
        self.start()
        self.manager.open.clear()
        self.sync.ensure(guest.uuid, self.driver.list_consoles(guest.uuid), 30)
        self.manager.open.set()
        self.settle()
        self.assertEqual([], self.manager.told)

    def test_what_is_not_known_is_told_first(self):
        self.start()
        self.driver.close()  # its event was lost
        guest = self.put(10000)
        self.sync.ensure(guest.uuid, self.driver.list_consoles(guest.uuid), 30)
        self.assertEqual([('define', guest.uuid, [10000])], self.manager.told)

    def test_what_they_have_forgotten_is_told_anew(self):
        guest = self.put(10000)
        self.start()
        self.sync.ensure(guest.uuid, self.driver.list_consoles(guest.uuid), 30, anew=True)
        self.assertEqual([('define', guest.uuid, [10000])], self.manager.told)

    def test_it_is_not_waited_for_without_end(self):
        self.start()
        self.manager.open.clear()
        guest = self.put(10000)
        self.sync.ensure(guest.uuid, self.driver.list_consoles(guest.uuid), 0.05)
        self.assertEqual([], self.manager.told)

    def test_a_guest_that_is_gone_is_not_known(self):
        guest = self.put(10000)
        self.start()
        consoles = self.driver.list_consoles(guest.uuid)
        self.driver.remove(guest.uuid)
        self.settle()
        self.assertFalse(self.sync._reporter.knows(guest.uuid, consoles))


class ContestedTest(SyncCase):
    """Two guests with one place: its token would lead to either of them."""

    def test_neither_gets_it(self):
        first = self.put(10000, 10001)
        self.start()
        second = self.put(10001, 10002)
        self.settle()
        last = {uuid: ports for _, uuid, ports in self.manager.told}
        self.assertEqual({first.uuid: [10000], second.uuid: [10002]}, last)
        self.assertTrue(self.sync.contested(first.uuid, ADDRESS, 10001))
        self.assertTrue(self.sync.contested(second.uuid, ADDRESS, 10001))
        self.assertFalse(self.sync.contested(first.uuid, ADDRESS, 10000))
        self.assertIn('have the same place', self.logged.output)

    def test_once_the_other_has_gone_it_has_it(self):
        first, second = self.put(10000), self.put(10000)
        self.start()
        self.driver.remove(second.uuid)
        self.settle()
        self.assertEqual(('define', first.uuid, [10000]), self.manager.told[-1])
        self.assertFalse(self.sync.contested(first.uuid, ADDRESS, 10000))

    def test_at_the_start_too(self):
        first, second = self.put(10000), self.put(10000)
        self.sync.start()
        self.sync.wait_attempted(30)
        self.assertEqual(
            ('host', sorted([first.uuid, second.uuid]), [], []),
            next(told for told in self.manager.told if told[0] == 'host'),
        )

    def test_a_place_that_the_other_has_left_is_not_contested(self):
        """The port of a guest that stopped is used by the next one before the event is handled."""
        first = self.put(10000)
        self.start()
        self.manager.open.clear()
        self.driver.put(dataclasses.replace(first, running=False))
        second = self.put(10000)
        self.assertFalse(self.sync.contested(second.uuid, ADDRESS, 10000))
        self.manager.open.set()
        self.settle()
        last = {uuid: ports for _, uuid, ports in self.manager.told}
        self.assertEqual({first.uuid: [], second.uuid: [10000]}, last)


class MetricsTest(SyncCase):
    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, {'cell': 'cell1', **labels})

    def test_what_is_counted(self):
        self.put(10000)
        self.start()
        self.assertEqual(1, self.value('consoled_compute_guests'))
        self.assertLess(time.time() - self.value('consoled_compute_synced_timestamp_seconds'), 60)
        told = self.value('consoled_compute_told_total', method='define_consoles', code='ok')
        self.manager.failures = [exception.ManagerBusy()]
        self.put(10001)
        self.settle()
        self.assertEqual(
            told + 1, self.value('consoled_compute_told_total', method='define_consoles', code='ok')
        )
        self.assertEqual(
            1, self.value('consoled_compute_told_total', method='define_consoles', code='manager_busy')
        )
        self.assertEqual(0, self.value('consoled_compute_waiting'))


class StopTest(SyncCase):
    def test_one_that_was_never_started_can_be_stopped(self):
        self.sync.stop(0)

    def test_nothing_is_told_afterwards(self):
        self.start()
        self.sync.stop(30)
        self.put(10000)
        self.assertFalse(self.sync._thread.is_alive())
        self.assertEqual([], self.manager.told)
