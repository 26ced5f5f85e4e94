# SPDX-License-Identifier: Apache-2.0
"""``consoled-nova`` with two lines of its own and a nova.conf: it stands where Nova's proxies stood."""

import contextlib
import http.client
import pathlib
import signal
import socket
import subprocess
import sys

import fixtures
import testtools

from consoled.testing import daemons
from consoled.testing.fixtures import wait_until
from consoled.testing.services import free_port
from tests.functional import base

PATIENCE = 30  # seconds
DAEMONS = ('consoled', 'consoled-proxy')
UNKNOWN = '01234567-89ab-cdef-0123-456789abcdef'

NOVA = """
[DEFAULT]
my_ip = 127.0.0.1
transport_url = {bus}
log_dir = /var/log/nova
compute_driver = libvirt.LibvirtDriver
record = /var/lib/nova/record
[database]
connection = mysql+pymysql://nova:canary-of-nova@127.0.0.1:1/nova
[vnc]
novncproxy_host = $my_ip
novncproxy_port = {novnc}
server_proxyclient_address = $my_ip
[spice]
enabled = true
html5proxy_host = 127.0.0.1
html5proxy_port = {spice}
[serial_console]
enabled = true
serialproxy_host = ::1
serialproxy_port = {serial}
[console]
allowed_origins = dashboard.example.org
"""


class NovaProcess(daemons.DaemonProcess):
    """``consoled-nova``, in front of a Nova whose database is away.

    :ivar ports: of the three proxies, by name
    """

    def __init__(self, bus, database):
        self.ports = {name: free_port() for name in ('novnc', 'spice', 'serial')}
        self.bus = bus
        super().__init__('consoled.cmd.nova', {'database': {'connection': database}, 'nova': {}})

    def write_config(self):
        self.nova = self.directory / 'nova.conf'
        self.nova.write_text(NOVA.format(bus=self.bus, **self.ports))
        self.options['nova'] = {'config_file': self.nova}
        super().write_config()

    def _prepare(self):
        daemons.ManagerProcess(self.bus, self.options['database']['connection'])._prepare()


class NovaModeTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.daemon = self.useFixture(
            NovaProcess(base.transport_url(self), base.database_url(self, 'mariadb'))
        )

    def get(self, host, port, path='/nothing', **headers):
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request('GET', path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def open(self, host, port):
        """Ask for a console with a token that Nova's database, which is away, may know."""
        status, body = self.get(
            host,
            port,
            f'/?token={UNKNOWN}',
            **{
                'Connection': 'Upgrade',
                'Upgrade': 'websocket',
                'Sec-WebSocket-Version': '13',
                'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==',
                'Accept': 'application/json',
            },
        )
        return status

    def test_the_three_ports_are_served(self):
        ports = self.daemon.ports
        for host, port in (
            ('127.0.0.1', ports['novnc']),
            ('127.0.0.1', ports['spice']),
            ('::1', ports['serial']),
        ):
            self.assertEqual(404, self.get(host, port)[0])
            # the manager was asked, and has asked Nova
            wait_until(lambda host=host, port=port: self.open(host, port) == 503, timeout=PATIENCE)

    def test_what_is_taken_and_what_is_not_is_logged_without_secrets(self):
        log = self.daemon.log()
        self.assertIn(f'Options taken from {self.daemon.nova}: [DEFAULT] transport_url, ', log)
        self.assertIn(f'[DEFAULT] record in {self.daemon.nova} has no effect', log)
        self.assertNotIn('canary-of-nova', log)

    def test_signals_reach_both(self):
        children = self.daemon.child_pids()
        self.assertEqual(2, len(children))
        wait_until(lambda: all(f'Ready: {name} ' in self.daemon.log() for name in DAEMONS), timeout=PATIENCE)
        self.daemon.nova.write_text('nonsense')
        self.daemon.signal(signal.SIGHUP)
        wait_until(lambda: self.daemon.log().count('Not reloaded') >= 2, timeout=PATIENCE)
        self.daemon.write_config()
        self.assertEqual(0, self.daemon.stop())
        for pid in children:
            self.assertFalse(pathlib.Path(f'/proc/{pid}').exists())
        self.assertRaises(OSError, socket.create_connection, ('127.0.0.1', self.daemon.ports['novnc']))


BUS = '[DEFAULT]\ntransport_url = rabbit://nova@h/nova\n'
CELL = '[database]\nconnection = mysql+pymysql://nova@h/nova\n'


class RefusedTest(testtools.TestCase):
    def run_program(self, text, theirs=None):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'consoled.conf'
        path.write_text(text.format(path.parent))
        if theirs is not None:
            path.with_name('nova.conf').write_text(theirs)
        done = subprocess.run(
            [sys.executable, '-m', 'consoled.cmd.nova', '--config-file', path],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stderr, path.parent

    def test_what_is_wrong_is_one_line(self):
        code, line, _ = self.run_program('[database]\nconnection = mysql+pymysql://c@h/c\n')
        self.assertEqual((2, 1), (code, line.count('\n')), line)
        self.assertIn('consoled-nova: configuration_error: [nova] config_file is not set.', line)
        for theirs, named in (
            (f'{BUS}[vnc]\nenabled = true', '[nova] connection is not set, and neither is [database] conn'),
            (f'{BUS}{CELL}', '[database] connection is not set'),
        ):
            code, line, _ = self.run_program('[nova]\nconfig_file = {}/nova.conf\n', theirs)
            self.assertEqual((2, 1), (code, line.count('\n')), line)
            self.assertIn(f'consoled-nova: configuration_error: {named}', line)
        own = '[database]\nconnection = mysql+pymysql://c@h/c\n[nova]\nconfig_file = {}/nova.conf\n'
        code, line, _ = self.run_program(f'{own}[monitoring]\nport = 65535\n', f'{BUS}{CELL}')
        self.assertEqual((2, 1), (code, line.count('\n')), line)
        self.assertIn('consoled-nova: configuration_error: [monitoring] port (', line)
        code, line, where = self.run_program('[nova]\nconfig_file = {}/nova.conf\n')
        self.assertEqual((2, 1), (code, line.count('\n')), line)
        self.assertIn(f'{where}/nova.conf does not exist.', line)
