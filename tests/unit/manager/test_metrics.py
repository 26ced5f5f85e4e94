# SPDX-License-Identifier: Apache-2.0
"""Metrics of a manager: their names and labels are relied on by dashboards and alerts."""

import testtools

from consoled.manager.metrics import Metrics


class MetricsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.metrics = Metrics('cell7')

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, {'cell': 'cell7', **labels})

    def test_calls(self):
        self.metrics.called('validate', 'ok', 0.003)
        self.metrics.called('validate', 'ok', 20)
        labels = {'method': 'validate', 'code': 'ok'}
        self.assertEqual(2, self.value('consoled_rpc_seconds_count', **labels))
        self.assertEqual(1, self.value('consoled_rpc_seconds_bucket', le='0.005', **labels))
        self.assertEqual(1, self.value('consoled_rpc_seconds_bucket', le='10.0', **labels))

    def test_closed_sessions(self):
        self.metrics.closed(10, 20)
        self.metrics.closed(1, 2)
        self.assertEqual(2, self.value('consoled_sessions_closed_total'))
        self.assertEqual(11, self.value('consoled_session_bytes_total', direction='in'))
        self.assertEqual(22, self.value('consoled_session_bytes_total', direction='out'))

    def test_the_watch_of_sessions(self):
        self.metrics.watched('ok', 0.01)
        self.metrics.watch_cut('instance_gone', 3)
        self.assertEqual(1, self.value('consoled_watch_seconds_count', outcome='ok'))
        self.assertEqual(3, self.value('consoled_watch_cuts_total', reason='instance_gone'))

    def test_lookups(self):
        self.metrics.looked_up('memcached', 'found')
        self.assertEqual(1, self.value('consoled_legacy_lookups_total', source='memcached', outcome='found'))
