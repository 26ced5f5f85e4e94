# SPDX-License-Identifier: Apache-2.0
"""``consoled-demo`` as a process."""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
from unittest import mock

import fixtures
import psutil
import testtools

from consoled.context import RequestContext
from consoled.demo import main, walk
from consoled.testing import service_process
from consoled.testing.fixtures import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, '-m', 'consoled.cmd.demo']
TOKEN = re.compile(r'[A-Za-z0-9_-]{43}')
END_OF_WALK = 'keeps running'
TIMEOUT = 60  # seconds


class DemoCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        # our own, to check that nothing is left behind in it
        self.tmp = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        kept = ('PATH', 'HOME', 'LANG')
        self.env = {name: os.environ[name] for name in kept if name in os.environ}
        self.env |= {'PYTHONPATH': str(ROOT), 'TMPDIR': str(self.tmp)}

    def assert_nothing_left(self):
        self.assertEqual([], list(self.tmp.iterdir()))


class CheckTest(DemoCase):
    def check(self, *args):
        return subprocess.run(
            [*COMMAND, '--check', *args],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    def test_all_steps_pass(self):
        done = self.check()
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        steps = [line for line in done.stdout.splitlines() if line.startswith('ok ')]
        self.assertEqual(len(walk.STEPS), len(steps))
        self.assertNotIn('FAILED', done.stdout)
        self.assertNotIn('\033', done.stdout)
        self.assertIsNone(TOKEN.search(done.stdout))
        self.assert_nothing_left()

    def test_a_kept_database_is_used_again(self):
        directory = self.tmp / 'a b%20?#' / 'state'
        for _ in range(2):
            done = self.check('--state-dir', str(directory))
            self.assertEqual((0, ''), (done.returncode, done.stderr), done.stdout)
        self.assertEqual(['consoled-demo.sqlite'], [path.name for path in directory.iterdir()])
        with contextlib.closing(sqlite3.connect(directory / 'consoled-demo.sqlite')) as database:
            (kept,) = database.execute('SELECT count(*) FROM instances').fetchone()
        self.assertEqual(1, kept)

    def test_configuration_of_a_real_service_is_not_read(self):
        home = self.tmp / 'home'
        for name in ('consoled', 'consoled-demo'):
            (home / f'.{name}').mkdir(parents=True)
            (home / f'.{name}' / f'{name}.conf').write_text('[DEFAULT]\ntransport_url = rabbit://nowhere/\n')
        self.env |= {'HOME': str(home), 'OS_CONSOLEAUTH__MAX_TOKEN_TTL': 'nonsense'}
        done = self.check()
        self.assertEqual((0, ''), (done.returncode, done.stderr), done.stdout)

    def test_a_state_directory_that_is_a_file(self):
        occupied = self.tmp / 'file'
        occupied.touch()
        done = self.check('--state-dir', str(occupied))
        self.assertEqual(3, done.returncode)
        self.assertIn(str(occupied), done.stderr)
        self.assertNotIn('Traceback', done.stderr)

    def test_a_database_of_a_newer_release(self):
        self.check('--state-dir', str(self.tmp))
        with contextlib.closing(sqlite3.connect(self.tmp / 'consoled-demo.sqlite')) as database:
            database.execute("UPDATE consoled_alembic_version SET version_num = '9999'")
            database.commit()
        done = self.check('--state-dir', str(self.tmp))
        self.assertEqual(3, done.returncode)
        self.assertIn('cannot be used as the database', done.stderr)
        self.assertNotIn('Traceback', done.stderr)

    def test_the_reader_of_the_output_has_exited(self):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [*COMMAND, '--check'],
            cwd=ROOT,
            env=self.env,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
        )
        os.close(write)
        self.assertEqual((1, ''), (done.returncode, done.stderr))
        self.assert_nothing_left()


class RunTest(DemoCase):
    def start(self, *args):
        directory = self.useFixture(fixtures.TempDir()).path
        self.out, self.err = pathlib.Path(directory, 'out'), pathlib.Path(directory, 'err')
        with self.out.open('w') as out, self.err.open('w') as err:
            process = service_process.spawn([*COMMAND, *args], cwd=ROOT, env=self.env, stdout=out, stderr=err)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def wait_for(self, text):
        wait_until(lambda: text in self.out.read_text(), timeout=TIMEOUT, what=text)

    def assert_stops_cleanly(self, process, signum):
        process.send_signal(signum)
        self.assertEqual(0, process.wait(TIMEOUT))
        self.assertEqual('', self.err.read_text())
        self.assert_nothing_left()

    def test_it_runs_idle_until_sigterm(self):
        process = self.start()
        self.wait_for(END_OF_WALK)
        before = sum(psutil.Process(process.pid).cpu_times())
        with testtools.ExpectedException(subprocess.TimeoutExpired):
            process.wait(1)
        used = sum(psutil.Process(process.pid).cpu_times()) - before
        self.assertTrue(used < 0.15, f'idle, it took {used:.2f} s of CPU in 1 s')
        (directory,) = self.tmp.iterdir()
        self.assertIn(str(directory), self.out.read_text())
        self.assert_stops_cleanly(process, signal.SIGTERM)
        self.assert_explains_the_walk()

    def assert_explains_the_walk(self):
        output = self.out.read_text()
        self.assertIsNone(TOKEN.search(output))
        self.assertNotIn('\033', output)
        (shown,) = [line for line in output.splitlines() if 'token%3D' in line]
        self.assertRegex(shown, r'token%3D[A-Za-z0-9_-]{4}\*\*\* ')
        for expected in (
            'free ports: 4 -> 3',
            'HTTP 409',
            '2 tokens and 1 session',
            'closed with 4403',
            'ok -> invalid_token',
        ):
            self.assertIn(expected, output)

    def test_it_runs_until_sigint(self):
        process = self.start()
        self.wait_for(END_OF_WALK)
        self.assert_stops_cleanly(process, signal.SIGINT)

    def test_a_signal_during_the_walk(self):
        process = self.start()
        self.wait_for('4. ')
        self.assert_stops_cleanly(process, signal.SIGINT)
        self.assertNotIn(END_OF_WALK, self.out.read_text())


class FailureTest(DemoCase):
    def run_with(self, steps, *args):
        self.useFixture(fixtures.MonkeyPatch('tempfile.tempdir', str(self.tmp)))
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(walk, 'STEPS', steps),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            return main.main(args), out.getvalue(), err.getvalue()

    def assert_fails(self, steps, *args):
        code, out, err = self.run_with(steps, *args)
        self.assertEqual(1, code)
        self.assertEqual('consoled-demo: step 2 failed: Broken\n', err)
        self.assertIn('FAILED', out)
        self.assertIsNone(TOKEN.search(out))
        self.assertNotIn(walk.STEPS[2].title, out)
        self.assert_nothing_left()
        return out

    def test_another_outcome_than_expected(self):
        first, second, *others = walk.STEPS
        broken = dataclasses.replace(
            second, title='Broken', expected={**second.expected, 'host': '192.0.2.1'}
        )
        for args in (['--check'], []):
            out = self.assert_fails((first, broken, *others), *args)
            self.assertIn("'host': '192.0.2.1'", out)

    def test_a_step_that_is_refused(self):
        def ask_for_more(cell):
            return cell.manager.validate(RequestContext(), 'no-such-token-anywhere')

        first, second, *others = walk.STEPS
        broken = dataclasses.replace(second, title='Broken', run=ask_for_more)
        out = self.assert_fails((first, broken, *others), '--check')
        self.assertIn('invalid_token', out)

    def test_signal_handlers_are_restored(self):
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        self.assertEqual(0, self.run_with(walk.STEPS[:1], '--check')[0])
        self.assertEqual(before, [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
