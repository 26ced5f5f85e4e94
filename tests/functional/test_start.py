# SPDX-License-Identifier: Apache-2.0
"""Daemons as processes: started wrongly, and beside a broker or a database that does not let them in."""

import pathlib
import re
import signal
import socket
import subprocess
import sys
from urllib import parse

import fixtures
import psutil
import testtools

from consoled.testing import daemons
from consoled.testing.fixtures import wait_until
from tests.functional import base

SECRET = 'WRONG-SECRET'
MODULES = ('consoled.cmd.manager', 'consoled.cmd.compute', 'consoled.cmd.proxy')
REFUSES = 'The message broker refuses the user, the password'


def with_password(url, password):
    """Return the URL with another password."""
    parts = parse.urlsplit(url)
    user, _, address = parts.netloc.rpartition('@')
    return parse.urlunsplit(parts._replace(netloc=f'{user.partition(":")[0]}:{password}@{address}'))


class StartCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.bus = base.transport_url(self)

    def start(self, module, *, bus, database='sqlite:///{directory}/db', **groups):
        """Start a daemon without waiting for it; return its process and the file of its log."""
        directory = self.useFixture(fixtures.TempDir()).path
        options = {
            'DEFAULT': {'host': 'h1', 'transport_url': bus},
            'database': {'connection': database.format(directory=directory)},
            'compute': {'driver': 'demo'},
            'proxy': {'host': '127.0.0.1', 'port': 0},
            **groups,
        }
        daemon = daemons.DaemonProcess(module, options)
        daemon.directory = pathlib.Path(directory)
        daemon.config_file, daemon.log_file = daemon.directory / 'test.conf', daemon.directory / 'log'
        daemon.write_config()
        with daemon.log_file.open('wb') as log:
            process = daemons.spawn(
                [sys.executable, '-m', module, '--config-file', str(daemon.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.addCleanup(self.end, process)
        return process, daemon

    def wait_for(self, daemon, text, name='the daemon'):
        wait_until(lambda: text in daemon.log(), timeout=60, what=f'{text!r} in the log of {name}')

    def end(self, process):
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        psutil.wait_procs(children, timeout=60)


class RefusedTest(StartCase):
    def test_a_refused_password_of_the_broker(self):
        """832 lines and 11 tracebacks in 18 s, before."""
        started = {module: self.start(module, bus=with_password(self.bus, SECRET)) for module in MODULES}
        for module, (process, daemon) in started.items():
            # the second attempt, 2 s after the first at the latest, is no line of its own
            for text in (REFUSES, 'more such lines were left out'):
                self.wait_for(daemon, text, module)
            self.assertIsNone(process.poll())
            log = daemon.log()
            self.assertNotIn('Traceback', log)
            self.assertNotIn(SECRET, log)
            self.assertIn(f'[DEFAULT] transport_url ({daemon.config_file})', log)
            self.assertLess(log.count('\n'), 15, log)

    def test_a_refused_password_of_the_database(self):
        url = with_password(base.database_url(self, 'mariadb'), SECRET)
        process, daemon = self.start('consoled.cmd.manager', bus=self.bus, database=url)
        self.wait_for(daemon, 'Ready: consoled ')
        self.wait_for(daemon, 'The database refuses the user')
        self.assertIsNone(process.poll())
        log = daemon.log()
        self.assertIn(f'[database] connection ({daemon.config_file})', log)
        self.assertNotIn('Traceback', log)
        self.assertNotIn(SECRET, log)
        self.assertLess(log.count('\n'), 15, log)


class StartTest(StartCase):
    def assert_refused(self, code, process, daemon, text):
        self.assertEqual(code, process.wait(60), daemon.log())
        lines = daemon.log().splitlines()
        self.assertIn(text, lines[-1])
        self.assertEqual(1, len([line for line in lines if not re.search(' (INFO|WARNING) ', line)]), lines)

    def test_what_cannot_succeed_ends_with_one_line(self):
        with socket.create_server(('127.0.0.1', 0)) as other:
            port = other.getsockname()[1]
            started = [
                (2, *self.start(module, bus=f'rabbit://u:{SECRET}#1@h/'), '[DEFAULT] transport_url')
                for module in MODULES
            ]
            started += [
                (3, *self.start(module, bus=self.bus, monitoring={'port': port}), '[monitoring] port')
                for module in MODULES
            ]
            for code, process, daemon, text in started:
                self.assert_refused(code, process, daemon, f'{text} ({daemon.config_file})')
                self.assertNotIn(SECRET, daemon.log())

    def test_a_ready_daemon_says_what_it_is(self):
        _, daemon = self.start('consoled.cmd.proxy', bus=self.bus, cell={'name': 'c1'}, prixy={'prot': 1})
        self.wait_for(daemon, 'Ready: ')
        address = r'127\.0\.0\.1:[0-9]+'
        said = rf'Ready: consoled-proxy \S+ host=h1 cell=c1 users={address} bus={address} files=/'
        self.assertRegex(daemon.log(), said)
        self.assertIn('[prixy] in ', daemon.log())
