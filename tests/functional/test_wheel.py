# SPDX-License-Identifier: Apache-2.0
"""What an operator gets: the wheel, installed away from the checkout, upgrades a database."""

import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from importlib import metadata

import testtools

ROOT = pathlib.Path(__file__).resolve().parents[2]
# copied to be built elsewhere: setuptools leaves build/ and an egg-info beside what it builds
SOURCES = ('alembic', 'consoled', 'LICENSE', 'README.md', 'pyproject.toml', 'setup.py')
PROGRAMS = ('consolectl', 'consoled', 'consoled-demo', 'consoled-manage', 'consoled-status')
REQUIRED_SETUPTOOLS = 70  # from here on it builds wheels by itself
TIMEOUT = 300  # seconds


def run(*command, cwd):
    """Run a program with no more of this process's environment than it needs; return its output."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(('PYTHON', 'VIRTUAL_ENV'))
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f'{command} exited with {done.returncode}:\n{done.stdout}')
    return done.stdout


def build(directory):
    """Build the wheel of a copy of the checkout; return its path."""
    source = directory / 'source'
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / name, source / name)
    # with the setuptools of the tests' environment nothing has to be downloaded
    new_enough = int(metadata.version('setuptools').split('.')[0]) >= REQUIRED_SETUPTOOLS
    isolation = ['--no-build-isolation'] if new_enough else []
    target = directory / 'wheel'
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', *isolation, '-w', target, source, cwd=directory)
    (wheel,) = target.iterdir()
    return wheel


def install(wheel, directory):
    """Install the wheel into an environment that has this one's libraries, but not its consoled."""
    environment = directory / 'installed'
    run(sys.executable, '-m', 'venv', '--without-pip', environment, cwd=directory)
    python = environment / 'bin/python'
    run(
        sys.executable,
        '-m',
        'pip',
        '--python',
        python,
        'install',
        '--no-deps',
        '--no-index',
        wheel,
        cwd=directory,
    )
    own = run(python, '-c', "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=directory).strip()
    # Only now, or pip would take the consoled that it finds there for an installed one. A directory named
    # in a .pth file comes last on the path, and its own .pth files (the editable install) are not read.
    paths = {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}
    pathlib.Path(own, 'libraries.pth').write_text('\n'.join(sorted(paths)) + '\n')
    return environment


class WheelTest(testtools.TestCase):
    """Built and installed once: it takes some seconds."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = tempfile.TemporaryDirectory(prefix='consoled-wheel-')
        cls.addClassCleanup(directory.cleanup)
        cls.directory = pathlib.Path(directory.name)
        cls.wheel = build(cls.directory)
        cls.environment = install(cls.wheel, cls.directory)

    def run_program(self, name, *arguments):
        return run(self.environment / 'bin' / name, *arguments, cwd=self.directory)

    def test_has_the_migrations_and_nothing_beside_the_package(self):
        with zipfile.ZipFile(self.wheel) as archive:
            names = set(archive.namelist())
        kept = {path.relative_to(ROOT) for path in (ROOT / 'alembic').rglob('*') if path.is_file()}
        expected = {f'consoled/db/{path}' for path in kept if '__pycache__' not in path.parts}
        self.assertIn('consoled/db/alembic/versions/0001_initial.py', expected)
        self.assertEqual(set(), expected - names)
        tops = {name.split('/')[0] for name in names}
        self.assertEqual({'consoled', f'{self.wheel.name.rsplit("-", 3)[0]}.dist-info'}, tops)

    def test_is_what_runs(self):
        where = self.run_program('python', '-c', 'import consoled; print(consoled.__file__)').strip()
        self.assertTrue(where.startswith(str(self.environment)), where)

    def test_programs_start(self):
        for name in PROGRAMS:
            self.assertIn('usage', self.run_program(name, '--help').lower(), name)

    def test_upgrades_a_database(self):
        database = self.directory / 'cell.sqlite'
        config = self.directory / 'consoled.conf'
        config.write_text(f'[database]\nconnection = sqlite:///{database}\n')
        manage = ('consoled-manage', '--config-file', config, 'db')
        self.run_program(*manage, 'upgrade')
        self.run_program(*manage, 'upgrade')
        head = max(path.name for path in (ROOT / 'alembic/versions').glob('[0-9]*.py')).split('_')[0]
        self.assertIn(head, self.run_program(*manage, 'version'))
        self.run_program(*manage, 'check')
        connection = sqlite3.connect(database)
        self.addCleanup(connection.close)
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        self.assertIn('console_session', tables)
        self.assertIn('consoled_alembic_version', tables)
