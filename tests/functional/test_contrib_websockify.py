# SPDX-License-Identifier: Apache-2.0
"""A stock websockify with the token plugin, over RabbitMQ: who reaches the guest, and who does not."""

import contextlib
import os
import pathlib
import re
import socketserver
import subprocess
import sys
import threading
import time

import fixtures as testfixtures
import psutil
import websockets.exceptions
from testtools import content, content_type
from websockets.sync.client import connect

from consoled import exception, token
from consoled.testing import fixtures, service_process, services
from consoled.testing.fixtures import wait_until
from tests.functional import base

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLUGIN = 'consoled.contrib.websockify.ConsoledToken'
HOST = '127.0.0.1'


class Echo(testfixtures.Fixture):
    """A console that sends back what it receives, and counts its connections."""

    def _setUp(self):  # noqa: N802 - the name that fixtures calls
        self.connections = 0
        echo = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                echo.connections += 1
                while data := self.request.recv(4096):
                    self.request.sendall(data)

        server = socketserver.ThreadingTCPServer((HOST, 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)


class Websockify(testfixtures.Fixture):
    """The program as pip or a distribution installs it, with the plugin.

    :param bus: transport URL
    :param parameters: appended to the path in the token source
    :param options: options of the program
    """

    def __init__(self, bus, parameters='', *options):
        super().__init__()
        self._bus = bus
        self._parameters = parameters
        self._options = options

    def _setUp(self):  # noqa: N802 - the name that fixtures calls
        directory = pathlib.Path(self.useFixture(testfixtures.TempDir()).path)
        self.port = services.free_port()
        self.log_file = directory / 'log'
        config = directory / 'consoled.conf'
        config.write_text(
            f'[DEFAULT]\ntransport_url = {self._bus.replace("$", "$$")}\n'
            '[proxy]\nallowed_networks = 127.0.0.0/8\nallowed_ports = 1024-65535\n'
        )
        # CONSOLED_WEBSOCKIFY: another program than that of this environment
        program = os.environ.get('CONSOLED_WEBSOCKIFY') or pathlib.Path(sys.executable).parent / 'websockify'
        command = [program, '--token-plugin', PLUGIN, '--token-source', f'{config}{self._parameters}']
        with self.log_file.open('wb') as log:
            self._process = service_process.spawn(
                [*command, *self._options, f'{HOST}:{self.port}'],
                cwd=directory,
                env={**os.environ, 'PYTHONPATH': str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.addCleanup(self._stop)
        wait_until(
            lambda: self._process.poll() is not None or 'proxying from' in self.log(), what='websockify'
        )
        if self._process.poll() is not None:
            raise RuntimeError(f'websockify ended: {self.log()}')
        self.addDetail(
            'websockify', content.Content(content_type.UTF8_TEXT, lambda: [self.log_file.read_bytes()])
        )

    def _stop(self):
        children = self.children()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in psutil.wait_procs(children, 20)[1]:
            child.kill()

    def children(self):
        """Return its processes, one for each user."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def log(self):
        return self.log_file.read_text(errors='replace')

    def refusals(self):
        return [
            line for line in self.log().splitlines(keepends=True) if re.search(r'console refused.*\n', line)
        ]

    def connect(self, asked):
        """Return the websocket of a user.

        :raises EOFError: the user was refused: the connection was closed without a response
        """
        try:
            return connect(f'ws://{HOST}:{self.port}/websockify?token={asked}', open_timeout=30)
        except (websockets.exceptions.InvalidHandshake, ConnectionError) as exc:
            raise EOFError from exc


class WebsockifyTest(base.CellTestCase):
    engine = 'sqlite'

    def setUp(self):
        super().setUp()
        self.echo = self.useFixture(Echo())

    def grant(self, ttl=None, console_type='novnc', instance=None, **changes):
        grant = base.a_grant(instance or self.instance, self.echo.port, console_type, host=HOST, **changes)
        return self.api.authorize(self.context, grant, ttl).token

    def assert_refused_by(self, websockify, asked, reason):
        before = len(websockify.refusals())
        self.assertRaises(EOFError, websockify.connect, asked)
        (line,) = wait_until(lambda: websockify.refusals()[before:], what='the line in the log')
        self.assertIn(reason, line)

    def assert_open(self, websockify, asked):
        """Return the websocket of a user that the guest has answered."""
        user = websockify.connect(asked)
        self.addCleanup(user.close)
        user.send(b'hello')
        self.assertEqual(b'hello', user.recv(30))
        return user

    def expired(self):
        """Return a token that has expired."""
        granted = self.grant(ttl=1)

        def over():
            try:
                return self.api.validate(self.context, granted) is None
            except exception.InvalidToken:
                return True

        wait_until(over, what='the end of the token')
        return granted

    def revoked(self):
        granted = self.grant(instance=(instance := base.new_uuid()))
        self.assertEqual(1, self.api.revoke(self.context, 'test', instance_uuid=instance).tokens)
        return granted

    def view_only(self):
        return self.grant(instance=base.new_uuid(), options={'mode': 'view'})

    def test_a_good_token_can_be_used_more_than_once(self):
        websockify = self.useFixture(Websockify(self.bus))
        granted = self.grant()
        for user in range(2):
            self.assert_open(websockify, granted)
            self.assertEqual(user + 1, self.echo.connections)
        self.assertIn(f'console granted: novnc of instance {self.instance}, user user-1', websockify.log())

    def test_connections_to_the_bus_are_closed_while_a_user_is_connected(self):
        websockify = self.useFixture(Websockify(self.bus))
        self.assert_open(websockify, self.grant())
        (process,) = websockify.children()
        bus = services.shared(services.RabbitMQ).port
        self.assertEqual(
            [], [link for link in process.net_connections() if link.raddr and link.raddr.port == bus]
        )
        wait_until(lambda: process.num_threads() == 1, what='the end of the threads')

    def test_invariant_7_a_refused_user_never_reaches_the_guest(self):
        websockify = self.useFixture(Websockify(self.bus))
        for asked in (token.mint(), 'a', self.expired(), self.revoked()):
            self.assert_refused_by(websockify, asked, 'invalid_token')
        self.assert_refused_by(websockify, self.view_only(), 'option mode')
        serial = self.grant(instance=base.new_uuid(), console_type='serial')
        self.assert_refused_by(websockify, serial, 'max_sessions')
        self.assertEqual(0, self.echo.connections)
        self.assert_open(websockify, self.grant())
        self.assertEqual(1, self.echo.connections)  # and no late one

    def test_invariant_8_a_console_outside_the_allowed_networks_and_ports(self):
        websockify = self.useFixture(Websockify(self.bus))
        for port, reason in ((80, 'allowed_ports'), (8080, 'allowed_networks')):  # both at base.ADDRESS
            granted = self.authorize(port, console_type='novnc').token
            self.assert_refused_by(websockify, granted, reason)

    def test_without_a_manager_users_are_refused_in_time(self):
        bus = base.transport_url(self)
        cell = fixtures.InProcessCell(bus, base.database_url(self, 'sqlite'))
        cell.setUp()
        with contextlib.ExitStack() as stack:
            stack.callback(cell.cleanUp)
            grant = base.a_grant(self.instance, self.echo.port, 'novnc', host=HOST)
            granted = cell.api.authorize(self.context, grant).token
            websockify = self.useFixture(Websockify(bus, '?timeout=2'))
            self.assert_open(websockify, granted).close()
        nowhere = f'rabbit://u:p@{HOST}:{services.free_port()}/x'
        for asked in (websockify, self.useFixture(Websockify(nowhere, '?timeout=2'))):
            began = time.monotonic()
            self.assert_refused_by(asked, granted, 'manager_unreachable')
            self.assertLess(time.monotonic() - began, 15)
        self.assertEqual(1, self.echo.connections)

    def test_invariant_1_websockify_logs_no_token(self):
        own = self.useFixture(testfixtures.TempDir()).path + '/own.log'
        websockify = self.useFixture(Websockify(self.bus, '', '--verbose', '--log-file', own))
        good = self.grant()
        used = [good, self.expired(), self.revoked(), token.mint(), self.view_only()]
        user = self.assert_open(websockify, good)
        for asked in used[1:]:
            self.assert_refused_by(websockify, asked, 'console refused')
        with contextlib.suppress(EOFError):
            websockify.connect(f'{good} {good}')  # malformed HTTP, which is logged
        user.close()
        wait_until(lambda: not websockify.children(), what='the end of the processes')
        for log in (websockify.log(), pathlib.Path(own).read_text()):
            self.assertIn("Path: '/websockify?(query not logged)", log)  # has the token without the plugin
            self.assertIn('Bad request syntax', log)
            self.assertEqual(4, log.count('console refused'))
            for asked in used:
                self.assertNotIn(asked, log)
