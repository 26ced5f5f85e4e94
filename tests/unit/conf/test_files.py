# SPDX-License-Identifier: Apache-2.0
"""Options from files: what is read at the start and on a reload."""

import pathlib
from unittest import mock

import fixtures
import testtools
from oslo_config import cfg
from oslo_log import log

from consoled import version
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
        error = self.assertRaises(cfg.Error, files.check, self.conf)
        self.assertEqual(f'[manager] lease ({self.path}) must be an integer', str(error))

    def test_what_is_wrong_is_said_without_what_may_be_secret(self):
        for text, said in (
            ('[manager]\nworkers = 0', '[manager] workers'),
            ('[manager]\nworkers =', '[manager] workers'),
            ('[proxy]\nping_timeout = ', '[proxy] ping_timeout'),
            ('[DEFAULT]\nexecutor_thread_pool_size =', '[DEFAULT] executor_thread_pool_size'),
            ('[proxy]\nping_timeout = soon', '[proxy] ping_timeout'),
            ('[vnc]\nbase_url = http://u:canary#1@h/', '[vnc] base_url'),
            ('[vnc]\nbase_url = canary', '[vnc] base_url'),
            ('[vnc]\ntakeover = canary://u:canary@h', '[vnc] takeover'),
            ('[DEFAULT]\ntransport_url = rabbit://u:$canary@h/', '[DEFAULT] transport_url'),
            ('[database]\nconnection = mysql://u:${canary}@h/', '[database] connection'),
            ('[oslo_messaging_rabbit]\nrabbit_retry_interval = canary', '[oslo_messaging_rabbit]'),
        ):
            self.conf = cfg.ConfigOpts()
            self.load(text)
            error = self.assertRaises(cfg.Error, files.check, self.conf)
            self.assertTrue(str(error).startswith(said), error)
            self.assertIn(str(self.path), str(error))
            self.assertNotIn('canary', str(error))

    def test_a_file_that_cannot_be_used_is_named_without_its_contents(self):
        directory = self.path.parent
        for text, said in (
            (' transport_url = rabbit://u:canary@h/\n', 'line 1'),
            ('[DEFAULT]\ncanary\n', 'line 2'),
            ('[canary\n', 'line 1'),
            ('[DEFAULT]\ndebug = canary\n', 'debug'),
            ('[DEFAULT]\nx = \udce4canary\n', f'{self.path} is not text in UTF-8'),
        ):
            self.path.write_text(text, errors='surrogateescape')
            error = self.assertRaises(
                cfg.Error, files.load, cfg.ConfigOpts(), ['--config-file', str(self.path)], prog='consoled'
            )
            self.assertIn(said, str(error))
            self.assertNotIn('canary', str(error))
        for argv in (['--config-file', '/nowhere.conf'], ['--config-dir', '/nowhere']):
            error = self.assertRaises(cfg.Error, files.load, cfg.ConfigOpts(), argv, prog='consoled')
            self.assertIn('does not exist', str(error))
            self.assertIn(argv[1], str(error))
        error = self.assertRaises(
            cfg.Error, files.load, cfg.ConfigOpts(), ['--config-file', str(directory)], prog='consoled'
        )
        self.assertIn(f'{directory} cannot be read', str(error))

    def test_what_may_not_be_read_is_not_taken_for_missing(self):
        directory = self.path.parent
        self.path.write_text('')
        denied = mock.patch('os.access', lambda path, mode: path != str(directory))
        with denied, mock.patch.object(files, '_DIRECTORY', str(directory)):
            for argv in ([], ['--config-dir', str(directory)]):
                error = self.assertRaises(cfg.Error, files.load, cfg.ConfigOpts(), argv, prog='consoled')
                self.assertRegex(str(error), f'{directory} cannot be read by user ')
            files.load(cfg.ConfigOpts(), ['--config-file', str(self.path)], prog='consoled')

    def test_what_a_ready_program_says(self):
        self.load('[DEFAULT]\nhost = h1\n[cell]\nname = c1\n')
        said = files.identity(self.conf, bus='b:5672', database='')
        self.assertEqual(f'consoled {version.VERSION} host=h1 cell=c1 bus=b:5672 files={self.path}', said)


class ReloadTest(FilesCase):
    def test_a_launcher_does_not_see_what_is_wrong_with_the_files(self):
        self.load('[workarounds]\nenable_consoleauth = false\n')
        conf = files.Reloading(self.conf)
        self.path.write_text(' transport_url = rabbit://u:canary@h/\n')
        conf.mutate_config_files()
        self.assertIn(f'Not reloaded: {self.path} cannot be parsed: line 1', self.log.output)
        self.assertNotIn('canary', self.log.output)
        self.path.write_text('[workarounds]\nenable_consoleauth = true\n')
        conf.mutate_config_files()
        self.assertTrue(conf.workarounds.enable_consoleauth)

    def test_mutable_options_change(self):
        self.load('[workarounds]\nenable_consoleauth = false\n')
        self.path.write_text('[workarounds]\nenable_consoleauth = true\n')
        self.assertTrue(files.reload(self.conf))
        self.assertTrue(self.conf.workarounds.enable_consoleauth)

    def test_an_invalid_value_changes_nothing(self):
        """Otherwise each read of the option would fail from now on."""
        self.load('[vnc]\nmax_sessions = 2\n[workarounds]\nenable_consoleauth = true\n')
        self.path.write_text('[vnc]\nmax_sessions = canary\n[workarounds]\nenable_consoleauth = false\n')
        self.assertFalse(files.reload(self.conf))
        self.assertEqual((2, True), (self.conf.vnc.max_sessions, self.conf.workarounds.enable_consoleauth))
        self.assertIn(f'Not reloaded: [vnc] max_sessions ({self.path}) must be an integer', self.log.output)
        self.path.write_text('[vnc]\nmax_sessions = 3\n')
        self.assertTrue(files.reload(self.conf))
        self.assertEqual(3, self.conf.vnc.max_sessions)

    def test_a_log_configuration_that_cannot_be_used(self):
        self.load('')
        self.path.write_text('[DEFAULT]\nlog_config_append = /nowhere/log.conf\n')
        error = log.LogConfigError('/nowhere/log.conf', 'canary')
        called = []
        with (
            mock.patch.object(self.conf, 'mutate_config_files', side_effect=error),
            mock.patch.object(files, 'after_reload', [lambda: called.append(1)]),
        ):
            self.assertTrue(files.reload(self.conf))
        self.assertEqual([1], called)
        self.assertIn('[DEFAULT] log_config_append: /nowhere/log.conf cannot be used', self.log.output)

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
