# SPDX-License-Identifier: Apache-2.0
"""Metrics count the sessions that were open, and no others."""

import prometheus_client
import testtools

from consoled.objects import EndReason
from consoled.proxy.metrics import Metrics
from tests.unit.proxy import session_base


class Channel:
    """Fake of a channel that has ended."""

    bytes_in, bytes_out = 2, 5

    def __init__(self, reason):
        self.reason = reason


class MetricsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.counts = prometheus_client.CollectorRegistry()
        self.metrics = Metrics('cell', self.counts)
        self.process = session_base.Process()

    def value(self, name, **labels):
        return self.counts.get_sample_value(f'consoled_proxy_{name}', {'cell': 'cell', **labels})

    def run_session(self, reason):
        session, channel = self.process.granted('serial'), Channel(reason)
        session.connected(channel)
        self.metrics.opened(session)
        self.assertEqual(1, self.value('sessions', type='serial'))
        session.channel_released(channel)
        self.metrics.ended(session)

    def test_a_session_that_was_open_is_counted_with_its_bytes(self):
        self.run_session(EndReason.IDLE)
        self.assertEqual(1, self.value('opened_total', type='serial'))
        self.assertEqual(0, self.value('sessions', type='serial'))
        self.assertEqual(1, self.value('closed_total', reason='idle'))
        self.assertEqual(2, self.value('bytes_total', direction='in'))
        self.assertEqual(5, self.value('bytes_total', direction='out'))

    def test_reasons_given_by_operators_share_one_label(self):
        for reason in ('left_the_project', 'maintenance'):
            self.run_session(reason)
        self.assertEqual(2, self.value('closed_total', reason='revoked'))
        self.assertIsNone(self.value('closed_total', reason='maintenance'))

    def test_a_session_that_never_opened_is_not_counted(self):
        session = self.process.granted('serial')
        session.abandon(EndReason.OPEN_FAILED)
        self.metrics.ended(session)
        self.assertIsNone(self.value('sessions', type='serial'))
        self.assertIsNone(self.value('closed_total', reason='open_failed'))
