# SPDX-License-Identifier: Apache-2.0
"""A whole Nova of a release: API, Placement, conductor, scheduler, and nova-compute with libvirt."""

import contextlib
import json
import pathlib
import signal
import struct
import subprocess
import unittest
import urllib.error
import urllib.parse
import urllib.request

import fixtures
import sqlalchemy as sa

from consoled.testing import services
from consoled.testing.fixtures import wait_until
from consoled.testing.service_process import spawn
from tests.e2e import libvirt as lv
from tests.e2e.base import NOVNC
from tests.nova import base
from tests.nova.cloud_side import IMAGE

GREETING = 'this is a guest of Nova> '
OLDEST = 33  # release; tools/test-nova.sh prepares no older one
_PATIENCE = 180  # seconds until a service of Nova has started on a busy machine

# A boot sector that greets whoever presses Enter, and shows what is typed, on the screen and on the first
# serial port.
_PROGRAM = bytes.fromhex(
    '31c0 8ed8 fc fb'  # xor ax, ax; mov ds, ax; cld; sti
    'be4b7c'  # greet: mov si, greeting
    'ac 84c0 7405'  # next: lodsb; test al, al; jz wait
    'e82400 ebf6'  # call show; jmp next
    'f4 bafd03 ec a801 7406'  # wait: hlt; mov dx, 3fdh; in al, dx; test al, 1; jz keyboard
    'baf803 ec eb0a'  # mov dx, 3f8h; in al, dx; jmp typed
    'b401 cd16 74eb'  # keyboard: mov ah, 1; int 16h (is there a key?); jz wait
    '30e4 cd16'  # xor ah, ah; int 16h (read it)
    '3c0d 74d6'  # typed: cmp al, 13; je greet
    'e80200 ebde'  # call show; jmp wait
    '50 bafd03 ec a820 74fb'  # show: push ax; mov dx, 3fdh; ready: in al, dx; test al, 20h; jz ready
    '58 baf803 ee'  # pop ax; mov dx, 3f8h; out dx, al
    'b40e bb0700 cd10 c3'  # mov ah, 0eh; mov bx, 7; int 10h (write a character); ret
)
_DISK_SIZE = 1024 * 1024

_CONF = """
[DEFAULT]
transport_url = {bus}
host = {host}
my_ip = 127.0.0.1
state_path = {directory}
debug = true
log_options = false
compute_driver = libvirt.LibvirtDriver
instances_path = {directory}/instances
reserved_host_memory_mb = 0
reserved_host_disk_mb = 0
web = {web}
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 2
[oslo_messaging_notifications]
driver = noop
[oslo_concurrency]
lock_path = {directory}/locks
[placement]
auth_type = admin_token
endpoint = {url}/placement
endpoint_override = {url}/placement
token = admin
[neutron]
auth_type = admin_token
endpoint = {url}/network
endpoint_override = {url}/network
token = admin
[glance]
api_servers = {url}/image
[libvirt]
virt_type = qemu
cpu_mode = none
connection_uri = {libvirt}
images_type = raw
[vnc]
enabled = true
server_listen = 127.0.0.1
server_proxyclient_address = 127.0.0.1
novncproxy_host = 127.0.0.1
novncproxy_port = {novnc}
novncproxy_base_url = http://127.0.0.1:{novnc}/vnc_lite.html
[serial_console]
enabled = true
serialproxy_host = 127.0.0.1
serialproxy_port = {serial}
base_url = ws://127.0.0.1:{serial}/
proxyclient_address = 127.0.0.1
port_range = {ports}
[nova_sys_admin]
helper_command = {helper} --config-file {directory}/compute.conf
"""
_DATABASES = """
[database]
connection = {cell1}
[api_database]
connection = {api}
"""
_PLACEMENT_CONF = """
[DEFAULT]
log_file = {directory}/placement.log
[api]
auth_strategy = noauth2
[placement_database]
connection = {placement}
sync_on_startup = true
"""
_AUTHTOKEN = 'paste.filter_factory = keystonemiddleware.auth_token:filter_factory'


def skip_old_releases():
    """Skip the test if the release of Nova is one that ``Cloud`` cannot run."""
    if base.MAJOR < OLDEST:
        raise unittest.SkipTest(f'a whole Nova is run from release {OLDEST} on, not {base.VERSION}')


def disk():
    """Return the disk of a guest that greets. It has a partition, because Nova refuses a disk without."""
    program = (_PROGRAM + b'\r\n' + GREETING.encode() + b'\0').ljust(446, b'\0')
    sectors = _DISK_SIZE // 512
    partitions = struct.pack('<B3sB3sII48x', 0x80, b'\0\2\0', 0x83, b'\0\0\0', 1, sectors - 1)
    return (program + partitions + b'\x55\xaa').ljust(_DISK_SIZE, b'\0')


class Libvirtd(lv.Libvirtd):
    """A libvirtd that Nova may use: it reads and writes."""

    @property
    def uri(self):
        return f'qemu+unix:///system?socket={self.directory}/libvirt-sock'


class Cloud(fixtures.Fixture):
    """Nova's services in processes of their own, with their databases, bus and hypervisor, on loopback.

    The proxies in nova.conf are those of a stock Nova, on ports of 127.0.0.1.

    :param novnc: port of nova-novncproxy
    :param serial: port of nova-serialproxy
    :ivar bus: URL of its message bus
    :ivar reader: URL of its cell's database for an account that may only read what consoled reads
    :ivar tokens: that its API has handed out to ``console``
    :ivar directory: has the configuration and the logs of its services
    """

    def __init__(self, novnc, serial):
        super().__init__()
        self._ports = {'novnc': novnc, 'serial': serial}
        self.tokens = []

    def _setUp(self):  # noqa: N802 - named by the fixtures library
        self._bin = pathlib.Path(base.nova_python()).parent
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.libvirtd = self.useFixture(Libvirtd())
        self.bus = services.shared(services.RabbitMQ).new_vhost()
        mariadb = services.shared(services.MariaDB)
        databases = ('api', 'cell0', 'cell1', 'placement')
        self._databases = {name: base.plain(mariadb.new_database()) for name in databases}
        self._running = {}
        port = services.free_port()
        self.url = f'http://127.0.0.1:{port}'
        self._write_files()
        self._start('api', 'python', '-W', 'ignore', self._side(), self.directory, port)
        self._wait(self._answers, "Nova's API")
        self.reader = base.make_reader(self._databases['cell1'])
        for name in ('conductor', 'scheduler', 'compute'):
            conf = 'compute.conf' if name == 'compute' else 'nova.conf'
            self._start(name, f'nova-{name}', '--config-file', self.directory / conf)
        self._wait(self._can_build, 'a compute host')

    @staticmethod
    def _side():
        return pathlib.Path(__file__).with_name('cloud_side.py')

    def _write_files(self):
        first = services.free_port()
        values = {
            **self._ports,
            **self._databases,
            'bus': self.bus,
            'host': base.COMPUTE_HOST,
            'directory': self.directory,
            'url': self.url,
            'web': NOVNC,
            'libvirt': self.libvirtd.uri,
            'ports': f'{first}:{first + 20}',
            'helper': self._bin / 'privsep-helper',
        }
        paste = (self._bin.parent / 'etc' / 'nova' / 'api-paste.ini').read_text()
        files = {
            'nova.conf': (_CONF + _DATABASES).format(**values),
            'compute.conf': _CONF.format(**values),
            'placement.conf': _PLACEMENT_CONF.format(**values),
            'api-paste.ini': paste.replace(_AUTHTOKEN, 'paste.filter_factory = __main__:token_factory'),
            'connections.json': json.dumps({**self._databases, 'bus': self.bus}),
        }
        for name, text in files.items():
            (self.directory / name).write_text(text)
        (self.directory / 'disk').write_bytes(disk())
        for name in ('instances', 'locks'):
            (self.directory / name).mkdir()

    def _start(self, name, program, *arguments):
        with open(self.log_file(name), 'wb') as log:
            process = spawn(
                [self._bin / program, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=base.nova_environment(),
            )
        self._running[name] = process
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def _wait(self, condition, what):
        def is_true():
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise services.ServiceError(f'{name}: {self.log_file(name).read_text()[-4000:]}')
            return condition()

        return wait_until(is_true, timeout=_PATIENCE, what=what)

    def log_file(self, name):
        return self.directory / f'nova-{name}.log'

    def logs(self):
        """Return what Nova's services have logged, by name."""
        return {path.name: path.read_text(errors='replace') for path in self.directory.glob('*.log')}

    # the API

    def request(self, method, path, body=None, version='2.93'):
        """Send a request to Nova's API, and return what it answers.

        :raises urllib.error.HTTPError: when it refuses
        """
        request = urllib.request.Request(
            f'{self.url}/compute/v2.1{path}',
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={'Content-Type': 'application/json', 'OpenStack-API-Version': f'compute {version}'},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def _answers(self):
        try:
            return self.request('GET', '/os-services')
        except OSError:
            return None

    def _can_build(self):
        """Return whether nova-compute is up, has reported its resources, and is known to be in the cell."""
        try:
            return self.request('GET', '/os-hypervisors')['hypervisors'] and self._discovered()
        except urllib.error.HTTPError:
            return False

    def _discovered(self):
        engine = sa.create_engine(self._databases['api'], poolclass=sa.NullPool)
        with engine.connect() as conn:
            return conn.exec_driver_sql('SELECT COUNT(*) FROM host_mappings').scalar()

    def flavor(self):
        """Return the ID of the only flavor."""
        return self.request('GET', '/flavors')['flavors'][0]['id']

    def build(self):
        """Build a server that has a screen and a serial port, and return its UUID when it is active."""
        made = self.request(
            'POST',
            '/servers',
            {
                'server': {
                    'name': 'guest',
                    'imageRef': IMAGE,
                    'flavorRef': self.flavor(),
                    'networks': 'none',
                }
            },
        )
        uuid = made['server']['id']

        def is_active():
            server = self.request('GET', f'/servers/{uuid}')['server']
            if server['status'] == 'ERROR':
                raise services.ServiceError(server.get('fault'))
            return server['status'] == 'ACTIVE'

        self._wait(is_active, 'an active server')
        return uuid

    def console(self, uuid, console_type='novnc', protocol='vnc'):
        """Return the access URL of a console of a server, as Nova's API hands it out."""
        body = {'remote_console': {'protocol': protocol, 'type': console_type}}
        url = self.request('POST', f'/servers/{uuid}/remote-consoles', body)['remote_console']['url']
        self.tokens.append(urllib.parse.unquote(url).rpartition('token=')[2])
        return url

    def delete(self, uuid):
        """Delete a server; return when Nova's API has accepted it."""
        self.request('DELETE', f'/servers/{uuid}')

    @contextlib.contextmanager
    def compute_down(self):
        """Let nova-compute answer nothing, and Nova know it."""
        [service] = self.request('GET', '/os-services?binary=nova-compute')['services']
        path = f'/os-services/{service["id"]}'
        process = self._running['compute']
        process.send_signal(signal.SIGSTOP)
        try:
            self.request('PUT', path, {'forced_down': True})
            yield
        finally:
            process.send_signal(signal.SIGCONT)
            self.request('PUT', path, {'forced_down': False})

    @contextlib.contextmanager
    def novncproxy(self):
        """Run Nova's own proxy of screens."""
        conf = self.directory / 'nova.conf'
        process = self._start('novncproxy', 'nova-novncproxy', '--config-file', conf)
        try:
            self._wait(lambda: 'proxying from' in self.log_file('novncproxy').read_text(), 'nova-novncproxy')
            yield
        finally:
            del self._running['novncproxy']
            process.terminate()
            process.wait()
