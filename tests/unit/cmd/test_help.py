# SPDX-License-Identifier: Apache-2.0
"""``--help`` of every program that is installed: it says what is read, and needs nothing that works."""

import pathlib
import subprocess
import sys
import tomllib

import fixtures
import testtools

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAMS = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['scripts']
TIMEOUT = 180  # seconds: eight programs start at a time

# what pip installs as the program
START = 'import sys; from {module} import {function}; sys.argv[0] = {name!r}; sys.exit({function}())'
# nothing listens there, and nothing is to ask
CONFIG = """
[DEFAULT]
transport_url = rabbit://nobody:wrong@127.0.0.1:1/nowhere

[database]
connection = mysql+pymysql://nobody:wrong@127.0.0.1:1/nowhere

[compute]
driver = missing
"""
SIGNALS = ('SIGTERM', 'SIGHUP')
SAYS = {
    'consoled': ('consoled.conf', 'consoled.conf.sample', *SIGNALS, '[database] connection', 'transport_url'),
    'consoled-proxy': ('consoled.conf and consoled-proxy.conf', *SIGNALS, '[proxy]', 'transport_url'),
    'consoled-compute': ('consoled.conf and consoled-compute.conf', *SIGNALS, 'libvirt_uri', 'transport_url'),
    'consoled-manage': ('consoled.conf and consoled-manage.conf', '[database] connection'),
    'consoled-status': ('consoled.conf and consoled-status.conf', '[database] connection'),
    'consolectl': ('consoled.conf and consolectl.conf', 'transport_url'),
    'consoled-nova': ('consoled.conf', *SIGNALS, '[database] connection', '[nova] config_file'),
    'consoled-demo': ('reads no configuration file', 'SIGTERM'),
}


def start(name, home):
    """Run a program with --help, away from the configuration of this machine's user."""
    module, function = PROGRAMS[name].split(':')
    return subprocess.Popen(
        [sys.executable, '-c', START.format(module=module, function=function, name=name), '--help'],
        cwd=ROOT,
        env={'HOME': str(home), 'COLUMNS': '100'},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class ProgramsHelpTest(testtools.TestCase):
    def test_every_program_says_what_it_reads_and_how_it_ends(self):
        self.assertEqual(sorted(SAYS), sorted(PROGRAMS))
        home = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (home / '.consoled').mkdir()
        (home / '.consoled/consoled.conf').write_text(CONFIG)
        started = {name: start(name, home) for name in PROGRAMS}  # at a time: most of it is imports
        for process in started.values():
            self.addCleanup(process.communicate)
            self.addCleanup(process.kill)
        for name, process in started.items():
            out, err = process.communicate(timeout=TIMEOUT)
            self.assertEqual((0, ''), (process.returncode, err), name)
            text = ' '.join(out.split())
            self.assertIn(f'usage: {name} [', text)
            for words in (*SAYS[name], 'Exit codes: 0 '):
                self.assertIn(words, text, name)
