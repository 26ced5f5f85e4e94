# SPDX-License-Identifier: Apache-2.0
"""Two daemons that live and die together."""

import os
import pathlib
import signal
import subprocess
import sys

import fixtures
import testtools

from consoled.cmd import _pair
from consoled.testing.fixtures import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]

# stands for both daemons: says what it is given, and what signals it gets, in a file of its name
DAEMON = """
import os, pathlib, signal, sys
log = pathlib.Path(sys.argv[1], __spec__.name)
def write(text):
    with log.open('a') as file:
        file.write(text + chr(10))
def stop(number, frame):
    write('stopped')
    sys.exit(int(os.environ.get('STOPS_WITH', '0')))
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGHUP, lambda number, frame: write('reloaded'))
write(' '.join(['started', str(os.getpid()), os.environ.get('OS_MONITORING__PORT', '-'), *sys.argv[2:]]))
while True:
    signal.pause()
"""
RUN = (
    'import sys; from consoled.cmd._pair import run; sys.exit(run(sys.argv[1:], {port}, 1.0, ("one", "two")))'
)


class EnvironmentTest(testtools.TestCase):
    def test_each_daemon_has_its_own(self):
        environ = {'PATH': '/bin', 'NOTIFY_SOCKET': '/n', 'PROMETHEUS_MULTIPROC_DIR': '/p'}
        self.assertEqual(
            ({'PATH': '/bin'}, {'PATH': '/bin', 'NOTIFY_SOCKET': '/n', 'OS_MONITORING__PORT': '9091'}),
            _pair.environments(environ, 9090),
        )
        self.assertEqual(
            ({'PATH': '/bin'}, {'PATH': '/bin', 'NOTIFY_SOCKET': '/n'}), _pair.environments(environ, 0)
        )


class PairTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        for name in ('one', 'two'):
            (self.directory / f'{name}.py').write_text(DAEMON)

    def start(self, port=0, **environ):
        path = os.pathsep.join([str(self.directory), str(ROOT)])
        self.process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', RUN.format(port=port), str(self.directory), 'x'],
            env={**os.environ, 'PYTHONPATH': path, **environ},
        )
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.terminate)
        wait_until(lambda: all(self.lines(name) for name in ('one', 'two')), timeout=60)
        return [int(self.lines(name)[0].split()[1]) for name in ('one', 'two')]

    def lines(self, name):
        log = self.directory / name
        return log.read_text().splitlines() if log.exists() else []

    def test_both_get_the_arguments_and_a_port_for_metrics_each(self):
        self.start(port=9090)
        self.assertEqual(['-', 'x'], self.lines('one')[0].split()[2:])
        self.assertEqual(['9091', 'x'], self.lines('two')[0].split()[2:])

    def test_signals_are_passed_on(self):
        self.start()
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: all('reloaded' in self.lines(name) for name in ('one', 'two')), timeout=60)
        self.assertIsNone(self.process.poll())
        self.process.terminate()
        self.assertEqual(0, self.process.wait(60))
        self.assertEqual(['stopped', 'stopped'], [self.lines(name)[-1] for name in ('one', 'two')])

    def test_a_daemon_that_fails_to_stop_is_said(self):
        self.start(STOPS_WITH='3')
        self.process.terminate()
        self.assertEqual(3, self.process.wait(60))

    def test_one_that_is_killed_ends_the_other(self):
        for victim in (0, 1):
            pids = self.start()
            os.kill(pids[victim], signal.SIGKILL)
            self.assertEqual(128 + signal.SIGKILL, self.process.wait(60))
            self.assertEqual('stopped', self.lines(('two', 'one')[victim])[-1])
            for name in ('one', 'two'):
                (self.directory / name).unlink()

    def test_both_stop_if_this_program_is_killed(self):
        self.start()
        self.process.kill()
        wait_until(lambda: all(self.lines(name)[-1] == 'stopped' for name in ('one', 'two')), timeout=60)

    def test_one_that_ends_gives_the_exit_code(self):
        pids = self.start(STOPS_WITH='2')
        os.kill(pids[0], signal.SIGTERM)
        self.assertEqual(2, self.process.wait(60))
        self.assertEqual('stopped', self.lines('two')[-1])
