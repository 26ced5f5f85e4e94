# SPDX-License-Identifier: Apache-2.0
"""The steps that daemons share: options, and the directory for metrics."""

import os
import pathlib
import subprocess
import sys

import fixtures
import testtools
from oslo_config import cfg

from consoled.cmd import _daemon

VARIABLE = 'PROMETHEUS_MULTIPROC_DIR'

# the directory is removed by the process that created it, not by a fork of it
PREPARE = """
import os, sys
from consoled.cmd import _daemon
_daemon.prepare_metrics()
directory = os.environ['PROMETHEUS_MULTIPROC_DIR']
if os.fork() == 0:
    sys.exit(0)
os.wait()
print(directory, os.path.isdir(directory))
"""


class PrepareMetricsTest(testtools.TestCase):
    def test_the_directory_lives_as_long_as_its_creator(self):
        directory = self.useFixture(fixtures.TempDir()).path
        env = {name: value for name, value in os.environ.items() if name != VARIABLE} | {'TMPDIR': directory}
        done = subprocess.run(
            [sys.executable, '-c', PREPARE], env=env, capture_output=True, text=True, timeout=60
        )
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        created, existed = done.stdout.split()
        self.assertEqual(directory, str(pathlib.Path(created).parent))
        self.assertEqual('True', existed)
        self.assertEqual([], os.listdir(directory))

    def test_a_given_directory_is_left_alone(self):
        self.useFixture(fixtures.EnvironmentVariable(VARIABLE, '/given'))
        _daemon.prepare_metrics()
        self.assertEqual('/given', os.environ[VARIABLE])


class ConfigureTest(testtools.TestCase):
    def configure(self, text):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'test.conf'
        path.write_text(text)
        return _daemon.configure(['--config-file', str(path)], prog='consoled', conf=cfg.ConfigOpts())

    def test_a_missing_file_ends_the_program_with_its_name(self):
        error = self.assertRaises(
            SystemExit,
            _daemon.configure,
            ['--config-file', '/nonexistent'],
            prog='consoled',
            conf=cfg.ConfigOpts(),
        )
        self.assertIn('/nonexistent', str(error.code))

    def test_an_invalid_value_ends_the_program_before_it_is_used(self):
        error = self.assertRaises(SystemExit, self.configure, '[manager]\nlease = soon\n')
        self.assertTrue(str(error.code).startswith('consoled: '), error.code)
        self.assertIn('lease', str(error.code))
