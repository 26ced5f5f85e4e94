# SPDX-License-Identifier: Apache-2.0
"""The systemd units: well formed, and with little that a broken-into daemon could do."""

import pathlib
import re
import subprocess

import fixtures
import testtools

from consoled.testing import services

UNITS = sorted(pathlib.Path(__file__).resolve().parents[2].glob('etc/consoled/systemd/*.service'))
EXPOSURE = 3.0  # of 10


class UnitsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.program = services.find_program('systemd-analyze')
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def installed(self, unit):
        """The unit with a program that is there: ours may be installed anywhere."""
        copy = self.directory / unit.name
        copy.write_text(re.sub(r'/opt/consoled/bin/[\w-]+', '/bin/true', unit.read_text()))
        return copy

    def analyze(self, *arguments):
        return subprocess.run([self.program, *arguments], capture_output=True, text=True, timeout=60)

    def test_there_is_one_for_each_daemon(self):
        self.assertEqual(
            ['consoled-compute.service', 'consoled-proxy.service', 'consoled.service'],
            [unit.name for unit in UNITS],
        )

    def test_they_are_well_formed(self):
        for unit in UNITS:
            done = self.analyze('verify', '--man=no', self.installed(unit))
            self.assertEqual((0, ''), (done.returncode, done.stderr), unit.name)

    def test_their_exposure_is_low(self):
        for unit in UNITS:
            done = self.analyze('security', '--offline=yes', '--no-pager', self.installed(unit))
            found = re.search(r'Overall exposure level for \S+: ([\d.]+)', done.stdout)
            self.assertLessEqual(float(found[1]), EXPOSURE, unit.name)
