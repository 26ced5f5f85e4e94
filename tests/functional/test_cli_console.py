# SPDX-License-Identifier: Apache-2.0
"""``consolectl console`` as a process, in a terminal too, against a cell with agent, proxy and guests."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import termios
import time
from urllib import parse

import fixtures as fixtures_library
from testtools.content import text_content
from websockets.sync import client

from consoled import objects
from consoled.compute.drivers import demo
from consoled.compute.endpoint import ComputeConsoleEndpoint
from consoled.db import models
from consoled.rpc import server as rpc_server
from consoled.rpc import versions
from consoled.testing import daemons
from consoled.testing.fixtures import wait_until
from consoled.testing.guests.host import GuestHost
from consoled.testing.guests.serial_guest import SerialGuest
from consoled.testing.guests.tcp_guests import EchoGuest, StreamGuest
from tests.functional import base
from tests.unit.consolectl.terminals import InTerminal

PATIENCE = 20.0  # seconds; only used up by a failure
ESCAPE = b'\x1d'
PROMPT = b'router>\x1b[0m '

# an HTTP proxy of the environment could not reach this host
ENVIRONMENT = {**os.environ, 'no_proxy': '*', 'PYTHONWARNINGS': 'ignore'}


class Manager:
    """Client of the managers for the compute agent; ``tokens`` records what they issued."""

    def __init__(self, api):
        self._api = api
        self.tokens = []

    def authorize(self, context, grant):
        granted = self._api.authorize(context, grant)
        self.tokens.append(granted.token)
        return granted


class ConsoleCase(base.CellTestCase):
    """A cell with a proxy and a compute agent, whose guests have serial consoles."""

    engine = 'sqlite'
    emptied = (models.instances,)  # the proxy process is shared

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.guests = GuestHost()
        cls.guests.start()
        cls.addClassCleanup(cls.guests.stop)
        cls.daemon = cls.fixture(daemons.ProxyProcess(cls.bus, {'proxy': {'close_timeout': 1}}))
        cls.router = SerialGuest(name='router', pause=0.01)
        ends = {
            'router': [cls.router],
            'double': [SerialGuest(name='router') for _ in range(2)],
            'echo': [EchoGuest()],
            'flood': [StreamGuest(total=2**32)],
        }
        cls.uuids = {name: base.new_uuid() for name in ends}
        cls.serve({name: [cls.guests.add(guest).port for guest in ports] for name, ports in ends.items()})
        cls.config_file = pathlib.Path(cls.fixture(fixtures_library.TempDir()).path) / 'consoled.conf'
        cls.config_file.write_text(f'[DEFAULT]\ntransport_url = {cls.bus}\n')
        cls.daemon.wait_ready()

    @classmethod
    def fixture(cls, fixture):
        """``useFixture`` for the class."""
        fixture.setUp()
        cls.addClassCleanup(fixture.cleanUp)
        return fixture

    @classmethod
    def serve(cls, ports):
        """Start the compute agent."""
        url = f'http://127.0.0.1:{cls.daemon.port}/serial.html'
        described = [
            dataclasses.replace(
                demo.ROUTER,
                uuid=cls.uuids[name],
                consoles=tuple(demo.Console('serial', port, url) for port in found),
                host='127.0.0.1',
            )
            for name, found in ports.items()
        ]
        cls.driver = demo.DemoDriver(base.COMPUTE_HOST, described)
        cls.manager = Manager(cls.api)
        agent = ComputeConsoleEndpoint(cls.driver, cls.manager)
        server = rpc_server.get_server(cls.cell.transport, versions.COMPUTE_TOPIC, base.COMPUTE_HOST, [agent])
        server.start()
        cls.addClassCleanup(rpc_server.drain, server)

    def setUp(self):
        wait_until(lambda: self.count('console_session') == 0, what='the end of earlier sessions')
        super().setUp()
        self.instance = self.uuids['router']

    def define_all(self):
        """Define all consoles, as the agent of a real host does."""
        for uuid in self.uuids.values():
            consoles = objects.ConsoleConnectionList(objects=self.driver.list_consoles(uuid))
            self.api.define_consoles(self.context, uuid, base.COMPUTE_HOST, consoles)
        wait_until(lambda: self.count('console_connection') == 5, what='the definition')

    # consolectl

    def command(self, *argv):
        return [
            *(sys.executable, '-m', 'consoled.cmd.consolectl'),
            *('--config-file', str(self.config_file), *argv),
        ]

    def ctl(self, *argv, stdin=b''):
        return subprocess.run(
            self.command(*argv), input=stdin, capture_output=True, timeout=PATIENCE, env=ENVIRONMENT
        )

    def shown(self, *argv):
        """Run a command that succeeds, and return its JSON output."""
        done = self.ctl(*argv, '-f', 'json')
        self.assertEqual((0, b''), (done.returncode, done.stderr))
        return json.loads(done.stdout)

    def assert_ended(self, done, code, error):
        """Assert the exit code, and that the only output is one line on standard error with this error."""
        self.assertEqual((code, b''), (done.returncode, done.stdout), done.stderr)
        self.assertRegex(done.stderr.decode(), rf'\A[a-z-]+: {error}: [^\n]+\n\Z')

    def in_terminal(self, *argv):
        user = self.useFixture(InTerminal(self.command(*argv), ENVIRONMENT))
        self.addOnException(lambda _: self.addDetail('screen', text_content(repr(user.screen[-4000:]))))
        return user

    def attach(self, name='router', *argv, host=True):
        """Attach in a terminal, and wait until the console is open."""
        where = ('--host', base.COMPUTE_HOST) if host else ()
        user = self.in_terminal('console', 'attach', self.uuids[name], *where, *argv)
        user.expect(b'Connected to the serial console of ' + self.uuids[name].encode())
        return user

    def assert_detached(self, user, code, **how):
        """Assert that the program ends with this exit code, and has restored the terminal."""
        self.assertEqual(code, user.exit_code(**how))
        self.assertEqual(user.modes, termios.tcgetattr(user.slave))


class ConsoleTest(ConsoleCase):
    def token(self, *argv):
        """Open a console, and return its token as the query of a URL."""
        done = self.ctl('console', 'open', *argv, '--type', 'serial', '-f', 'value', '-c', 'access_url')
        self.assertEqual((0, b''), (done.returncode, done.stderr))
        return parse.urlsplit(done.stdout.decode().strip()).query

    def websocket(self, token):
        return client.connect(f'ws://127.0.0.1:{self.daemon.port}/?{token}', proxy=None)

    def attach_command(self, name='router'):
        return self.command('console', 'attach', self.uuids[name], '--host', base.COMPUTE_HOST)

    # open, list

    def test_open_shows_a_url_with_a_valid_token(self):
        done = self.shown(
            *('console', 'open', self.instance, '--type', 'serial', '--host', base.COMPUTE_HOST),
            *('--user-id', 'alice', '--project-id', 'demo'),
        )
        self.assertEqual(['access_url', 'expires', 'console_type', 'compute_host'], list(done))
        self.assertRegex(done['expires'], r'\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z')
        url = parse.urlsplit(done['access_url'])
        self.assertEqual(('http', self.daemon.port, '/serial.html'), (url.scheme, url.port, url.path))
        [token] = parse.parse_qs(url.query)['token']
        grant = self.api.validate(self.context, token)
        self.assertEqual(
            (self.instance, 'alice', 'demo'), (grant.instance_uuid, grant.user_id, grant.project_id)
        )

    def test_the_compute_host_is_found_by_free_consoles_and_sessions(self):
        self.define_all()
        double = self.uuids['double']
        with self.websocket(self.token(double)):
            rows = self.shown('console', 'list', double)
            self.assertEqual([False, True], sorted(row['connected'] for row in rows))
        # by its session, while its only console is connected
        with self.websocket(self.token(self.instance)):
            [row] = self.shown('console', 'list', self.instance)
        self.assertEqual(['console_type', 'host', 'port', 'connected', 'compute_host'], list(row))
        self.assertEqual(
            ['serial', '127.0.0.1', self.router.port, True, base.COMPUTE_HOST], list(row.values())
        )

    def test_unknown_guests_and_missing_consoles(self):
        unknown = base.new_uuid()
        for command in ('open', 'attach'):
            done = self.ctl('console', command, unknown)
            self.assert_ended(done, 1, 'instance_not_found')
            self.assertIn(b'--host', done.stderr)
        done = self.ctl('console', 'list', unknown, '--host', base.COMPUTE_HOST)
        self.assert_ended(done, 1, 'instance_not_found')
        done = self.ctl('console', 'open', self.instance, '--type', 'novnc', '--host', base.COMPUTE_HOST)
        self.assertEqual((1, b''), (done.returncode, done.stdout), done.stderr)

    def test_a_compute_host_that_does_not_answer(self):
        started = time.monotonic()
        done = self.ctl('--timeout', '1', 'console', 'attach', self.instance, '--host', 'nowhere')
        self.assert_ended(done, 3, 'compute_unreachable')
        self.assertLess(time.monotonic() - started, 10)

    # attach

    def test_a_session_with_interrupt_keys_and_resizing(self):
        user = self.attach()
        user.expect(b'stty rows 24 cols 80')
        user.expect(PROMPT)
        self.assertTrue(user.is_raw)
        user.type(b'show version\r')
        user.expect(b'show version\r\n')
        user.resize(40, 120)
        user.expect(b'simulated router')
        user.expect(PROMPT)
        user.type(b'ping 192.0.2.1\r')
        user.expect(b'64 bytes')
        user.resize(30, 100)
        user.type(b'\x03\x1a')  # ^C and ^Z are sent to the guest
        user.expect(PROMPT)
        user.type(b'last words' + ESCAPE)
        self.assert_detached(user, 0)
        wait_until(lambda: self.router.received.endswith(b'\x03\x1alast words'), what='the last words')
        wait_until(lambda: self.count('console_session') == 0, what='the end of the session')

    def test_a_revoked_session_and_no_trace_of_its_token(self):
        log = self.config_file.with_name('log')
        argv = ('console', 'attach', self.instance, '--host', base.COMPUTE_HOST, '--user-id', 'mallory')
        user = self.in_terminal('--debug', '-vv', '--log-file', str(log), *argv)
        user.expect(PROMPT)
        token = self.manager.tokens[-1]
        for name in ('cmdline', 'environ', 'comm'):
            text = pathlib.Path(f'/proc/{user.process.pid}/{name}').read_bytes()
            self.assertNotIn(token.encode(), text)
        self.api.revoke(self.context, 'test', user_id='mallory')
        user.expect(b'\r\nTraceback')  # because of --debug
        user.expect(b'\r\nconsolectl: revoked: Your access to this console was revoked.')
        self.assert_detached(user, 1)
        self.assertNotIn(token.encode(), user.screen)
        self.assertNotIn(token, log.read_text())
        self.assertGreater(len(log.read_text()), 1000)

    def test_a_second_user_is_refused(self):
        user = self.attach()
        user.expect(PROMPT)
        done = self.ctl('console', 'attach', self.instance, '--host', base.COMPUTE_HOST)
        self.assert_ended(done, 1, 'console_in_use')
        self.assertIn(b'in use since', done.stderr)
        user.type(ESCAPE)
        self.assert_detached(user, 0)

    def test_two_users_of_two_ports(self):
        self.define_all()
        users = [self.attach('double', '--escape', escape, host=False) for escape in ('^A', 'none')]
        done = self.ctl('console', 'attach', self.uuids['double'])
        self.assert_ended(done, 1, 'console_ports_exhausted')
        users[0].type(b'\x01')
        self.assert_detached(users[0], 0)
        users[1].type(b'echo \x01\x1d\r')
        users[1].expect(b'unknown command')
        users[1].process.send_signal(signal.SIGTERM)
        self.assert_detached(users[1], 128 + signal.SIGTERM)

    def test_stop_continue_and_quit(self):
        user = self.attach()
        user.expect(PROMPT)
        user.process.send_signal(signal.SIGSTOP)
        termios.tcsetattr(user.slave, termios.TCSANOW, user.modes)  # as a shell does
        user.process.send_signal(signal.SIGCONT)
        wait_until(lambda: user.is_raw, what='raw mode')
        user.process.send_signal(signal.SIGQUIT)
        self.assert_detached(user, 128 + signal.SIGQUIT)

    def test_the_terminal_hangs_up(self):
        user = self.attach()
        user.expect(PROMPT)
        user.hang_up()
        self.assertEqual(128 + signal.SIGHUP, user.process.wait(PATIENCE))
        wait_until(lambda: self.count('console_session') == 0, what='the end of the session')

    def restart_proxy(self):
        """Leave the proxy to the other tests as they need it, whatever became of this one."""
        self.daemon.stop()
        self.daemon.start()
        self.daemon.wait_ready()

    def test_the_proxy_is_restarted(self):
        user = self.attach()
        user.expect(PROMPT)
        self.addCleanup(self.restart_proxy)
        self.daemon.stop()
        user.expect(b'\r\nconsolectl: proxy_restart: The console proxy is restarting.\r\n')
        user.expect(b'Press Enter to reconnect, Ctrl-] to detach.')
        self.assertTrue(user.is_raw)
        user.type(b'nonsense\r')
        user.expect(b'consolectl: proxy_unreachable: ')
        user.expect(b'Press Enter')
        self.daemon.start()
        self.daemon.wait_ready()
        before = self.manager.tokens[-1]
        user.type(b'\r')
        user.expect(b'Connected to the serial console')
        user.expect(PROMPT)
        self.assertNotEqual(before, self.manager.tokens[-1])
        user.type(b'help\r')
        user.expect(b'list the commands')
        self.daemon.kill()
        user.expect(b'\r\nconsolectl: connection_lost: ')
        user.expect(b'Press Enter')
        user.type(ESCAPE)
        self.assert_detached(user, 3)

    # volume

    def test_a_large_paste_loses_nothing(self):
        user = self.attach('echo')
        user.expect(b'stty rows')
        user.expect(b'\r\n')
        begin = user.seen
        sent = b''.join(b'%07d\r' % number for number in range(131072))
        user.type(sent)
        user.expect(sent[-8:])
        self.assertEqual(sent, user.screen[begin : user.seen])
        user.type(ESCAPE)
        self.assert_detached(user, 0)

    def test_the_escape_key_during_a_flood(self):
        for reading in (True, False):
            user = self.attach('flood')
            wait_until(lambda: self.count('console_session') == 1, what='the session')
            started = time.monotonic()
            os.write(user.master, ESCAPE)
            self.assert_detached(user, 0, reading=reading)
            self.assertLess(time.monotonic() - started, 5)
            wait_until(lambda: self.count('console_session') == 0, what='the end of the session')

    # without a terminal

    def test_piped_input_and_then_silence(self):
        done = subprocess.run(
            self.attach_command(),
            input=b'show version\r',
            capture_output=True,
            timeout=PATIENCE,
            env={**ENVIRONMENT, 'CONSOLED_CONCURRENCY': 'eventlet'},  # ignored by this command
        )
        self.assertEqual((0, b''), (done.returncode, done.stderr))
        self.assertIn(b'simulated router', done.stdout)
        self.assertTrue(done.stdout.endswith(PROMPT), done.stdout)

    def test_the_reader_of_the_output_exits(self):
        reading, writing = os.pipe()
        with subprocess.Popen(
            self.attach_command('flood'),
            stdin=subprocess.PIPE,
            stdout=writing,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        ) as process:
            os.close(writing)
            os.read(reading, 1000)
            os.close(reading)
            self.assertEqual(141, process.wait(PATIENCE))
            self.assertEqual(b'', process.stderr.read())
