# SPDX-License-Identifier: Apache-2.0
"""The wheel, installed outside of the checkout: its contents, its programs, and a schema upgrade."""

import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from importlib import metadata

import testtools

ROOT = pathlib.Path(__file__).resolve().parents[2]
# copied before the build, because setuptools leaves build/ and an egg-info beside its sources
SOURCES = ('alembic', 'consoled', 'LICENSE', 'README.md', 'pyproject.toml', 'setup.py')
PROGRAMS = sorted(tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['scripts'])
REQUIRED_SETUPTOOLS = 70  # builds wheels without the package wheel
TIMEOUT = 300  # seconds


def run(*command, cwd):
    """Run a program without the variables of this Python environment, and return its output.

    :raises AssertionError: when it fails
    """
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
    """Build the wheel from a copy of the checkout, and return its path."""
    source = directory / 'source'
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / name, source / name)
    # a recent enough setuptools in this environment saves a download
    new_enough = int(metadata.version('setuptools').split('.')[0]) >= REQUIRED_SETUPTOOLS
    isolation = ['--no-build-isolation'] if new_enough else []
    target = directory / 'wheel'
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', *isolation, '-w', target, source, cwd=directory)
    (wheel,) = target.iterdir()
    return wheel


def install(wheel, directory):
    """Install the wheel into a new environment that has this one's libraries but not its consoled."""
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
    # Not earlier: pip would take the consoled found there for an installed one. A directory in a .pth file
    # comes last on the path, and its own .pth files (the editable install) are not read.
    paths = {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}
    pathlib.Path(own, 'libraries.pth').write_text('\n'.join(sorted(paths)) + '\n')
    return environment


class WheelTest(testtools.TestCase):
    """The wheel is built and installed once for all tests, since that takes some seconds."""

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

    def test_contains_migrations_and_type_marker_and_no_other_top_level_package(self):
        with zipfile.ZipFile(self.wheel) as archive:
            names = set(archive.namelist())
        kept = {path.relative_to(ROOT) for path in (ROOT / 'alembic').rglob('*') if path.is_file()}
        expected = {f'consoled/db/{path}' for path in kept if '__pycache__' not in path.parts}
        self.assertIn('consoled/db/alembic/versions/0001_initial.py', expected)
        self.assertEqual(set(), expected - names)
        self.assertIn('consoled/py.typed', names)  # type checkers of other projects read the annotations
        tops = {name.split('/')[0] for name in names}
        self.assertEqual({'consoled', f'{self.wheel.name.rsplit("-", 3)[0]}.dist-info'}, tops)

    def test_programs_run_the_installed_package(self):
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
