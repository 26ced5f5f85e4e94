# SPDX-License-Identifier: Apache-2.0
"""The reconciler: reports in order, the newest state only, until the managers know it."""

import dataclasses

from consoled import exception
from consoled.compute.drivers import demo
from consoled.testing.fixtures import wait_until
from tests.unit.compute.reconciler_base import ADDRESS, ReconcilerTestCase, build_guest


class ChangeTest(ReconcilerTestCase):
    def test_at_the_start_all_instances_are_compared(self):
        first, second = self.put(10000, 10001), self.put()
        self.reconciler.start()
        self.reconciler.wait_attempted(30)
        self.assertIn(
            (
                'host',
                sorted([first.uuid, second.uuid]),
                [(first.uuid, 10000), (first.uuid, 10001)],
                [],
            ),
            self.manager.reports,
        )

    def test_a_change_is_reported(self):
        self.start()
        guest = self.put(10000)
        self.wait_reports(('define', guest.uuid, [10000]))
        self.driver.put(dataclasses.replace(guest, running=False))
        self.wait_reports(('define', guest.uuid, [10000]), ('define', guest.uuid, []))
        self.driver.remove(guest.uuid)
        wait_until(lambda: self.manager.reports[2:] == [('clean', guest.uuid)])

    def test_a_thousand_events_collapse(self):
        self.start()
        self.manager.answers.clear()
        guest = self.put(10000)
        for port in range(10001, 11000):
            self.put(port, uuid=guest.uuid)
        self.manager.answers.set()
        self.settle()
        self.assertEqual(('define', guest.uuid, [10999]), self.manager.reports[-1])
        self.assertLessEqual(len(self.manager.reports), 2)

    def test_states_of_an_instance_are_reported_in_their_order(self):
        self.start()
        guest = self.put(10000)
        for port in range(10001, 10200):
            self.put(port, uuid=guest.uuid)
            if port % 20 == 0:
                wait_until(lambda port=port: self.manager.reports[-1:] == [('define', guest.uuid, [port])])
        self.settle()
        ports = [report[2] for report in self.manager.reports]
        self.assertEqual(sorted(ports), ports)
        self.assertEqual([10199], ports[-1])

    def test_a_change_during_a_comparison_goes_first(self):
        """An instance that stops has one second, and a host may have hundreds of instances."""
        guests = [self.put(port) for port in range(10000, 10020)]
        self.start()
        stopped = dataclasses.replace(guests[-1], running=False)
        inspected = []

        def stop_in_the_middle(instance_uuid):
            inspected.append(instance_uuid)
            if len(inspected) == 5:
                self.driver.put(stopped)
            return demo.DemoDriver.list_consoles(self.driver, instance_uuid)

        self.driver.list_consoles = stop_in_the_middle
        self.reconciler.enqueue(None)
        wait_until(lambda: len(self.manager.reports) == 2)
        self.assertEqual(('define', stopped.uuid, []), self.manager.reports[0])
        self.assertEqual(6, inspected.index(stopped.uuid) + 1)
        self.assertEqual(1, inspected.count(stopped.uuid))
        self.assertNotIn((stopped.uuid, 10019), self.manager.reports[1][2])

    def test_an_instance_that_arrives_during_a_comparison_is_part_of_it(self):
        self.put(10000)
        self.start()
        late = build_guest(10001)

        def arrive_late(instance_uuid):
            del self.driver.list_consoles
            self.driver.put(late)
            return self.driver.list_consoles(instance_uuid)

        self.driver.list_consoles = arrive_late
        self.reconciler.enqueue(None)
        wait_until(lambda: self.manager.reports and self.manager.reports[-1][0] == 'host')
        self.assertIn((late.uuid, 10001), self.manager.reports[-1][2])


class FailureTest(ReconcilerTestCase):
    def test_a_report_is_repeated_until_a_manager_has_answered(self):
        self.start()
        self.manager.failures = [
            exception.ManagerUnreachable(reason='x'),
            exception.ManagerBusy(),
            exception.DatabaseUnavailable(),
        ]
        guest = self.put(10000)
        self.wait_reports(*[('define', guest.uuid, [10000])] * 4)

    def test_a_repeated_report_has_the_newest_state(self):
        self.start()
        self.manager.failures = [exception.ManagerUnreachable(reason='x')]
        guest = build_guest(10000)
        self.manager.before = lambda method: (
            self.put(10001, uuid=guest.uuid) if not self.manager.reports else None
        )
        self.driver.put(guest)
        wait_until(lambda: self.manager.reports[-1:] == [('define', guest.uuid, [10001])])
        self.settle()
        self.assertNotIn(('define', guest.uuid, [10000]), self.manager.reports[1:])

    def test_without_managers_one_instance_is_tried_and_not_all(self):
        self.start()
        self.manager.answers.clear()
        guests = [self.put(port) for port in range(10000, 10010)]
        self.manager.failures = [exception.ManagerUnreachable(reason='x')]
        self.manager.answers.set()
        self.settle()
        self.assertEqual(11, len(self.manager.reports))
        self.assertEqual({guest.uuid for guest in guests}, {report[1] for report in self.manager.reports[1:]})

    def test_a_refused_report_is_not_repeated(self):
        self.start()
        self.manager.failures = [exception.InvalidConsole(reason='x')]
        guest = self.put(10000)
        self.settle()
        self.assertNotIn(guest.uuid, self.delayed())
        self.assertEqual([('define', guest.uuid, [10000])], self.manager.reports)
        self.assertIn('refuse', self.logged.output)

    def test_a_refused_comparison_is_repeated_after_an_interval(self):
        self.start()
        self.manager.failures = [exception.InvalidConsole(reason='x')]
        self.reconciler.enqueue(None)
        self.settle()
        self.assertIn(None, self.delayed())
        self.assertEqual([('host', [], [], [])], self.manager.reports)

    def test_a_fault_of_the_manager_may_pass(self):
        self.start()
        self.manager.failures = [exception.InternalError()] * 3
        guest = self.put(10000)
        self.wait_reports(*[('define', guest.uuid, [10000])] * 4)

    def test_a_comparison_is_repeated_until_a_manager_has_answered(self):
        guest = self.put(10000)
        self.manager.failures = [exception.ManagerUnreachable(reason='x')] * 3
        self.reconciler.start()
        expected = ('host', [guest.uuid], [(guest.uuid, 10000)], [])
        wait_until(lambda: self.manager.reports.count(expected) >= 2)

    def test_without_the_hypervisor_nothing_is_reported(self):
        guest = self.put(10000)
        self.start()
        self.driver.faults = dict.fromkeys([None, guest.uuid], exception.HypervisorUnreachable())
        self.reconciler.enqueue(None)
        self.reconciler.enqueue(guest.uuid)
        before = len(self.driver.inspected)
        wait_until(lambda: len(self.driver.inspected) > before + 2)  # it goes on trying
        self.assertEqual([], self.manager.reports)
        self.driver.faults = {}
        wait_until(lambda: {report[0] for report in self.manager.reports} == {'define', 'host'})

    def test_an_instance_that_cannot_be_inspected_does_not_delay_the_others(self):
        stuck, other = self.put(10000), self.put(10001)
        self.start()
        for error in (exception.HypervisorUnreachable(), RuntimeError('a fault of the driver')):
            self.manager.reports.clear()
            self.driver.faults = {stuck.uuid: error}
            self.reconciler.enqueue(None)
            self.wait_reports(('host', sorted([stuck.uuid, other.uuid]), [(other.uuid, 10001)], [stuck.uuid]))
        self.driver.faults = {}
        wait_until(lambda: ('define', stuck.uuid, [10000]) in self.manager.reports)

    def test_a_fault_of_the_driver_does_not_end_the_thread(self):
        self.start()
        self.driver.faults = {None: RuntimeError('a fault of the driver')}
        self.reconciler.enqueue(None)
        wait_until(lambda: 'a fault of the driver' in self.logged.output)
        guest = self.put(10000)
        self.wait_reports(('define', guest.uuid, [10000]))

    def test_an_instance_between_two_hosts_is_not_reported(self):
        moving, other = self.put(10000), self.put(10001)
        self.start()
        self.driver.faults = {
            moving.uuid: exception.InstanceNotReady(instance_uuid=moving.uuid, reason='it is being migrated')
        }
        self.reconciler.enqueue(moving.uuid)
        self.settle()
        self.assertEqual([], self.manager.reports)
        self.reconciler.enqueue(None)
        self.wait_reports(('host', sorted([moving.uuid, other.uuid]), [(other.uuid, 10001)], [moving.uuid]))

    def test_the_first_attempt_counts_even_if_it_fails(self):
        self.driver.faults = {None: exception.HypervisorUnreachable()}
        self.reconciler.start()
        self.assertTrue(self.reconciler.wait_attempted(30))


class ResyncTest(ReconcilerTestCase):
    resync_delay = 0.1

    def start(self):
        self.reconciler.start()
        self.wait_reports(*[('host', [], [], [])] * 2)
        self.manager.reports.clear()

    def reports_by(self, method):
        """Without the marks of ``settle``, which are repeated too."""
        return [report for report in self.manager.reports if report[0] == method]

    def test_a_report_is_repeated_once(self):
        self.start()
        guest = self.put(10000)
        self.wait_reports(*[('define', guest.uuid, [10000])] * 2)
        self.settle()
        self.assertNotIn(guest.uuid, self.delayed())
        self.assertEqual([('define', guest.uuid, [10000])] * 2, self.reports_by('define'))

    def test_a_comparison_whose_answer_was_lost_is_repeated(self):
        self.start()
        self.manager.failures = [exception.ManagerUnreachable(reason='no answer in time')]
        self.reconciler.enqueue(None)
        self.wait_reports(*[('host', [], [], [])] * 3)
        self.settle()
        self.assertIn(None, self.delayed())
        self.assertEqual([('host', [], [], [])] * 3, self.reports_by('host'))


class PeriodTest(ReconcilerTestCase):
    options = {'compute__sync_interval': 1}

    def test_all_instances_are_compared_periodically(self):
        self.start()
        wait_until(lambda: self.manager.reports.count(('host', [], [], [])) == 2)


class EnsureReportedTest(ReconcilerTestCase):
    def ensure_reported(self, guest, timeout=30, **how):
        consoles = self.driver.list_consoles(guest.uuid)
        self.reconciler.ensure_reported(guest.uuid, consoles, timeout, **how)

    def test_what_is_acknowledged_is_not_reported_again(self):
        guest = self.put(10000)
        self.start()
        self.manager.answers.clear()
        self.ensure_reported(guest)
        self.manager.answers.set()
        self.settle()
        self.assertEqual([], self.manager.reports)

    def test_what_is_not_acknowledged_is_reported_first(self):
        self.start()
        self.driver.close()  # loses the event
        guest = self.put(10000)
        self.ensure_reported(guest)
        self.assertEqual([('define', guest.uuid, [10000])], self.manager.reports)

    def test_force_reports_what_is_acknowledged(self):
        guest = self.put(10000)
        self.start()
        self.ensure_reported(guest, force=True)
        self.assertEqual([('define', guest.uuid, [10000])], self.manager.reports)

    def test_the_wait_has_a_limit(self):
        self.start()
        self.manager.answers.clear()
        self.ensure_reported(self.put(10000), timeout=0.05)
        self.assertEqual([], self.manager.reports)

    def test_an_instance_that_is_gone_is_not_acknowledged(self):
        guest = self.put(10000)
        self.start()
        consoles = self.driver.list_consoles(guest.uuid)
        self.assertTrue(self.reporter.is_acknowledged(guest.uuid, consoles))
        self.driver.remove(guest.uuid)
        self.settle()
        self.assertFalse(self.reporter.is_acknowledged(guest.uuid, consoles))


class SharedAddressTest(ReconcilerTestCase):
    """Two instances with one address: a token for it would lead to either of them."""

    def is_shared(self, guest, port):
        return self.port_conflicts.is_shared(guest.uuid, ADDRESS, port)

    def test_a_shared_address_is_reported_for_neither_instance(self):
        first = self.put(10000, 10001)
        self.start()
        second = self.put(10001, 10002)
        self.settle()
        self.assertEqual({first.uuid: [10000], second.uuid: [10002]}, self.last_ports())
        self.assertTrue(self.is_shared(first, 10001))
        self.assertTrue(self.is_shared(second, 10001))
        self.assertFalse(self.is_shared(first, 10000))
        self.assertIn('have the same console address', self.logged.output)

    def test_once_the_other_has_gone_the_first_has_it(self):
        first, second = self.put(10000), self.put(10000)
        self.start()
        self.driver.remove(second.uuid)
        self.settle()
        self.assertEqual(('define', first.uuid, [10000]), self.manager.reports[-1])
        self.assertFalse(self.is_shared(first, 10000))

    def test_a_shared_address_is_detected_at_the_start(self):
        first, second = self.put(10000), self.put(10000)
        self.reconciler.start()
        self.reconciler.wait_attempted(30)
        self.assertEqual(
            ('host', sorted([first.uuid, second.uuid]), [], []),
            next(report for report in self.manager.reports if report[0] == 'host'),
        )

    def test_an_address_that_the_other_has_left_is_not_shared(self):
        """The port of an instance that stopped is used by the next one before the event is handled."""
        first = self.put(10000)
        self.start()
        self.manager.answers.clear()
        self.driver.put(dataclasses.replace(first, running=False))
        second = self.put(10000)
        self.assertFalse(self.is_shared(second, 10000))
        self.manager.answers.set()
        self.settle()
        self.assertEqual({first.uuid: [], second.uuid: [10000]}, self.last_ports())


class MetricsTest(ReconcilerTestCase):
    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, {'cell': 'cell1', **labels})

    def defined(self, code):
        return self.value('consoled_compute_told_total', method='define_consoles', code=code)

    def test_reports_and_instances_are_counted(self):
        self.put(10000)
        self.start()
        self.assertEqual(1, self.value('consoled_compute_guests'))
        before = self.defined('ok')
        self.manager.failures = [exception.ManagerBusy()]
        self.put(10001)
        self.settle()
        self.assertEqual(before + 1, self.defined('ok'))
        self.assertEqual(1, self.defined('manager_busy'))
        self.assertEqual(0, self.value('consoled_compute_waiting'))


class StopTest(ReconcilerTestCase):
    def test_a_reconciler_that_was_never_started_can_be_stopped(self):
        self.reconciler.stop(0)

    def test_nothing_is_reported_after_stop(self):
        self.start()
        self.assertTrue(self.reconciler.alive)
        self.reconciler.stop(30)
        self.put(10000)
        self.assertFalse(self.reconciler.alive)
        self.assertEqual([], self.manager.reports)
