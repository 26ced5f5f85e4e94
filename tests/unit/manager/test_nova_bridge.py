# SPDX-License-Identifier: Apache-2.0
"""Nova is a source of tokens if ``[nova] connection`` is set, and is not loaded else."""

import subprocess
import sys
from unittest import mock

import testtools

from consoled.manager import nova_bridge
from consoled.manager.metrics import Metrics
from consoled.testing import fixtures

URL = 'mysql+pymysql://nova:canary@127.0.0.1:1/nova'


class NovaBridgeTest(testtools.TestCase):
    def conf(self, **options):
        return self.useFixture(fixtures.Conf(transport_url='fake:', **options)).conf

    def test_nothing_without_a_connection(self):
        conf = self.conf(nova__transport_url='nonsense')
        nova_bridge.check_conf(conf)
        self.assertEqual([], nova_bridge.sources_from_conf(conf, None, None))
        self.assertIsNone(nova_bridge.watch_from_conf(conf, None, None, None))

    def test_a_file_of_nova_without_a_database_is_warned_of(self):
        self.assertEqual([], nova_bridge.check_conf(self.conf()))
        [said] = nova_bridge.check_conf(self.conf(nova__config_file=['/etc/nova/nova.conf']))
        self.assertIn('[nova] connection is not set', said)

    def test_a_source_with_one(self):
        from consoled.rpc.transport import get_transport

        conf = self.conf(nova__connection=URL)
        nova_bridge.check_conf(conf)
        seen = []
        transport = get_transport(conf)
        self.addCleanup(transport.cleanup)
        [source] = nova_bridge.sources_from_conf(conf, transport, lambda *outcome: seen.append(outcome))
        source._observe('unknown')
        self.assertEqual([('nova', 'unknown')], seen)

    def test_a_watch_with_one(self):
        cutter, metrics = mock.Mock(), Metrics('cell1')
        conf = self.conf(nova__connection=URL, nova__watch_interval=7)
        watch = nova_bridge.watch_from_conf(conf, None, cutter, metrics)
        self.assertEqual(7, watch.interval)
        watch._cut(['id'], 'instance_gone')
        cutter.cut.assert_called_once_with(mock.ANY, ['id'], 'instance_gone')
        labels = {'cell': 'cell1', 'reason': 'instance_gone'}
        self.assertEqual(1, metrics.registry.get_sample_value('consoled_watch_cuts_total', labels))

    def test_what_cannot_be_used_is_refused_at_the_start(self):
        for options, named in (
            ({'nova__connection': 'canary'}, '[nova] connection'),
            ({'nova__connection': URL, 'nova__transport_url': 'canary'}, '[nova] transport_url'),
        ):
            error = self.assertRaises(ValueError, nova_bridge.check_conf, self.conf(**options))
            self.assertIn(named, str(error))
            self.assertNotIn('canary', str(error))

    def test_the_database_of_nova_is_not_ours_too(self):
        for ours, refused in (
            ('mysql://other:canary@127.0.0.1:1/nova?charset=utf8', True),
            ('mysql+pymysql://nova:canary@127.0.0.1:1/consoled', False),
            ('mysql+pymysql://nova:canary@127.0.0.1:2/nova', False),
        ):
            conf = self.conf(nova__connection=URL, database__connection=ours)
            if refused:
                error = self.assertRaises(ValueError, nova_bridge.check_conf, conf)
                self.assertIn('[nova] connection and [database] connection name one database', str(error))
                self.assertNotIn('canary', str(error))
            else:
                nova_bridge.check_conf(conf)

    def test_it_is_loaded_only_then(self):
        code = 'import consoled.manager.service, sys; sys.exit("consoled.nova" in sys.modules)'
        self.assertEqual(0, subprocess.run([sys.executable, '-c', code], check=False).returncode)
