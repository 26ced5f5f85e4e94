# SPDX-License-Identifier: Apache-2.0
"""The metrics of an agent: their names and labels are read by operators' dashboards."""

import time

import testtools

from consoled.compute.metrics import Metrics


class MetricsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.metrics = Metrics('cell1')

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, {'cell': 'cell1', **labels})

    def test_calls(self):
        self.metrics.observe_call('get_console', 'ok', 0.003)
        self.metrics.observe_call('get_console', 'ok', 20)
        labels = {'method': 'get_console', 'code': 'ok'}
        self.assertEqual(2, self.value('consoled_compute_rpc_seconds_count', **labels))
        self.assertEqual(20.003, self.value('consoled_compute_rpc_seconds_sum', **labels))
        self.assertEqual(1, self.value('consoled_compute_rpc_seconds_bucket', le='10.0', **labels))

    def test_reports(self):
        self.metrics.count_report('define_host', 'manager_busy')
        self.assertEqual(
            1, self.value('consoled_compute_told_total', method='define_host', code='manager_busy')
        )

    def test_instances(self):
        self.metrics.set_waiting(3)
        self.metrics.set_compared(7)
        self.assertEqual(3, self.value('consoled_compute_waiting'))
        self.assertEqual(7, self.value('consoled_compute_guests'))
        self.assertLess(time.time() - self.value('consoled_compute_synced_timestamp_seconds'), 60)

    def test_each_agent_has_its_own_registry(self):
        Metrics('cell1').set_waiting(1)
        self.assertIsNone(self.value('consoled_compute_waiting'))
