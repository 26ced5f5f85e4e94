# SPDX-License-Identifier: Apache-2.0
"""Options from files: what is read at the start and on a reload."""

import pathlib

import fixtures
import testtools
from oslo_config import cfg

from consoled.conf import files


class FilesCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'test.conf'
        self.conf = cfg.ConfigOpts()
        self.log = self.useFixture(fixtures.FakeLogger())

    def load(self, text):
        self.path.write_text(text)
        files.load(self.conf, ['--config-file', str(self.path)], prog='consoled')


class LoadTest(FilesCase):
    def test_every_group_is_registered(self):
        self.load('[manager]\nlease = 90\n[vnc]\nmax_sessions = 3\n')
        files.check(self.conf)
        self.assertEqual((90, 3), (self.conf.manager.lease, self.conf.vnc.max_sessions))

    def test_log_levels_of_noisy_libraries(self):
        self.load('')
        levels = dict(level.split('=') for level in self.conf.default_log_levels)
        self.assertEqual(('ERROR', 'WARN'), (levels['amqp'], levels['alembic']))
        self.assertIn('oslo.messaging', levels)

    def test_check_finds_a_value_that_was_not_read_yet(self):
        self.load('[manager]\nlease = soon\n')
        error = self.assertRaises(ValueError, files.check, self.conf)
        self.assertIn('lease', str(error))


class ReloadTest(FilesCase):
    def test_mutable_options_change(self):
        self.load('[workarounds]\nenable_consoleauth = false\n')
        self.path.write_text('[workarounds]\nenable_consoleauth = true\n')
        self.assertTrue(files.reload(self.conf))
        self.assertTrue(self.conf.workarounds.enable_consoleauth)

    def test_files_that_cannot_be_read_change_nothing(self):
        self.load('[workarounds]\nenable_consoleauth = true\n')
        for spoil in (
            lambda: self.path.write_text('[workarounds\n'),
            self.path.unlink,
        ):
            spoil()
            self.assertFalse(files.reload(self.conf))
            self.assertTrue(self.conf.workarounds.enable_consoleauth)
        self.assertEqual(2, self.log.output.count('Not reloaded'))
