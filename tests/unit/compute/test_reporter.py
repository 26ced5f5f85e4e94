# SPDX-License-Identifier: Apache-2.0
"""Reports to the managers, and what counts as acknowledged."""

import threading

import testtools

from consoled import exception
from consoled.compute.drivers import demo
from consoled.compute.metrics import Metrics
from consoled.compute.reporter import Reporter
from consoled.rpc.replies import HostChanges
from consoled.testing import fixtures
from tests.unit.compute.reconciler_base import HOST, RecordingManager, build_guest


def consoles_of(guest):
    return demo.DemoDriver(HOST, [guest]).list_consoles(guest.uuid)


class ReporterTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.manager, self.metrics = RecordingManager(), Metrics('cell1')
        conf = self.useFixture(fixtures.Conf(host=HOST)).conf
        self.reporter = Reporter(conf, self.manager, self.metrics)
        self.guest = build_guest(10000, 10001)
        self.consoles = consoles_of(self.guest)

    def assert_acknowledged(self, consoles, expected=True):
        self.assertIs(expected, self.reporter.is_acknowledged(self.guest.uuid, consoles))
        self.assertIs(expected, self.reporter.wait_acknowledged(self.guest.uuid, consoles, 0))

    def count(self, method, code='ok'):
        labels = {'cell': 'cell1', 'method': method, 'code': code}
        return self.metrics.registry.get_sample_value('consoled_compute_told_total', labels)

    def test_consoles_are_acknowledged_once_they_are_reported(self):
        self.assert_acknowledged(self.consoles, False)
        self.reporter.report_consoles(self.guest.uuid, self.consoles)
        self.assertEqual([('define', self.guest.uuid, [10000, 10001])], self.manager.reports)
        self.assert_acknowledged(self.consoles)
        self.assert_acknowledged(self.consoles[::-1])
        self.assert_acknowledged(self.consoles[:1], False)

    def test_no_consoles_are_not_the_same_as_unknown_ones(self):
        self.assert_acknowledged([], False)
        self.reporter.report_consoles(self.guest.uuid, [])
        self.assert_acknowledged([])

    def test_another_page_or_option_is_another_console(self):
        self.reporter.report_consoles(self.guest.uuid, self.consoles)
        for changes in ({'access_url_base': 'https://elsewhere.example/'}, {'options': {'mode': 'view'}}):
            changed = self.consoles[0].obj_clone()
            for name, value in changes.items():
                setattr(changed, name, value)
            self.assert_acknowledged([changed, self.consoles[1]], False)

    def test_a_failed_report_is_not_acknowledged(self):
        self.manager.failures = [exception.ManagerBusy()]
        self.assertRaises(
            exception.ManagerBusy, self.reporter.report_consoles, self.guest.uuid, self.consoles
        )
        self.assert_acknowledged(self.consoles, False)
        self.assertEqual(1, self.count('define_consoles', 'manager_busy'))
        self.assertIsNone(self.count('define_consoles'))

    def test_an_instance_that_is_gone_is_forgotten_even_if_the_report_fails(self):
        self.reporter.report_consoles(self.guest.uuid, self.consoles)
        self.manager.failures = [exception.ManagerUnreachable(reason='x')]
        self.assertRaises(exception.ManagerUnreachable, self.reporter.report_gone, self.guest.uuid)
        self.assert_acknowledged(self.consoles, False)
        self.reporter.report_gone(self.guest.uuid)
        self.assertEqual([('clean', self.guest.uuid)] * 2, self.manager.reports[1:])
        self.assertEqual(1, self.count('clean_console_auths_for_instance'))

    def test_forget(self):
        self.reporter.report_consoles(self.guest.uuid, self.consoles)
        self.reporter.forget(self.guest.uuid)
        self.reporter.forget(self.guest.uuid)
        self.assert_acknowledged(self.consoles, False)

    def test_report_host(self):
        unknown, gone = build_guest(10002), build_guest(10003)
        for guest in (unknown, gone):
            self.reporter.report_consoles(guest.uuid, consoles_of(guest))
        self.manager.reports.clear()
        counts = self.reporter.report_host({self.guest.uuid: self.consoles, unknown.uuid: None})
        self.assertEqual(HostChanges(retired=0, changed=0), counts)
        self.assertEqual(
            [
                (
                    'host',
                    sorted([self.guest.uuid, unknown.uuid]),
                    [(self.guest.uuid, 10000), (self.guest.uuid, 10001)],
                    [unknown.uuid],
                )
            ],
            self.manager.reports,
        )
        self.assert_acknowledged(self.consoles)
        self.assertTrue(self.reporter.is_acknowledged(unknown.uuid, consoles_of(unknown)))
        self.assertFalse(self.reporter.is_acknowledged(gone.uuid, consoles_of(gone)))

    def test_a_failed_report_of_the_host_changes_nothing(self):
        self.reporter.report_consoles(self.guest.uuid, self.consoles)
        self.manager.failures = [exception.ManagerBusy()]
        self.assertRaises(exception.ManagerBusy, self.reporter.report_host, {})
        self.assert_acknowledged(self.consoles)

    def test_another_thread_waits_for_the_acknowledgement(self):
        waited = []
        thread = threading.Thread(
            target=lambda: waited.append(self.reporter.wait_acknowledged(self.guest.uuid, self.consoles, 30))
        )
        thread.start()
        self.reporter.report_consoles(self.guest.uuid, self.consoles[:1])
        self.reporter.report_consoles(self.guest.uuid, self.consoles)
        thread.join(30)
        self.assertEqual([True], waited)
