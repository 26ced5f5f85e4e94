# SPDX-License-Identifier: Apache-2.0
"""The systemd units are well-formed and sandboxed, and tmpfiles.d sets the permissions of the files."""

import os
import pathlib
import re
import stat
import subprocess

import fixtures
import testtools

from consoled.testing import services

FILES = pathlib.Path(__file__).resolve().parents[2] / 'etc/consoled'
UNITS = sorted(FILES.glob('systemd/*.service'))
MAX_EXPOSURE = 3.0  # of 10, as rated by systemd-analyze security


class UnitsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.program = services.find_program('systemd-analyze')
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def installed(self, unit):
        """Return a copy of the unit with a program that exists, since ours is not installed there."""
        copy = self.directory / unit.name
        copy.write_text(re.sub(r'/opt/consoled/bin/[\w-]+', '/bin/true', unit.read_text()))
        return copy

    def analyze(self, *arguments):
        return subprocess.run([self.program, *arguments], capture_output=True, text=True, timeout=60)

    def test_there_is_one_for_each_daemon(self):
        self.assertEqual(
            [
                'consoled-compute.service',
                'consoled-nova.service',
                'consoled-proxy.service',
                'consoled.service',
            ],
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
            self.assertLessEqual(float(found[1]), MAX_EXPOSURE, unit.name)


class TmpfilesTest(testtools.TestCase):
    def test_only_the_daemons_can_read_the_configuration(self):
        if os.geteuid():
            self.skipTest('only root can give files to others')
        program = services.find_program('systemd-tmpfiles')
        root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        for name, text in (
            ('passwd', 'root:x:0:0::/:/bin/sh\nconsoled:x:4711:4711::/:/bin/false\n'),
            ('group', 'root:x:0:\nconsoled:x:4711:\n'),
            ('tmpfiles.d/consoled.conf', (FILES / 'tmpfiles.d/consoled.conf').read_text()),
            ('consoled/consoled.conf', ''),
            ('consoled/tls/key.pem', ''),
        ):
            path = root / 'etc' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (root / 'etc/consoled/tls/key.pem').chmod(0o600)
        subprocess.run([program, '--create', f'--root={root}', 'consoled.conf'], check=True, timeout=60)
        for name, mode in (
            ('consoled', 0o750),
            ('consoled/consoled.conf', 0o640),
            ('consoled/tls', 0o750),
            ('consoled/tls/key.pem', 0o640),
        ):
            found = (root / 'etc' / name).stat()
            self.assertEqual((0, 4711, mode), (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)), name)
