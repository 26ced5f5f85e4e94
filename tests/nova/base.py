# SPDX-License-Identifier: Apache-2.0
"""An unmodified Nova beside consoled: its database, its compute service, and tokens made by its code."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import unittest

import fixtures
import sqlalchemy as sa
import testtools
from testtools.content import text_content

from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from consoled.testing import services
from consoled.testing.fixtures import Conf, FakeProxy
from consoled.testing.service_process import spawn

VERSION = os.environ.get('CONSOLED_TEST_NOVA', '34.0.0')
MAJOR = int(VERSION.partition('.')[0])
ROOT = pathlib.Path(__file__).parents[2]
ADDRESS = '192.0.2.10'  # server_proxyclient_address of the compute host (RFC 5737)
COMPUTE_HOST = 'cmp1'
RPC_RESPONSE_TIMEOUT = 10  # seconds that Nova's proxies wait for nova-compute; its default is 60
CHECK_TIMEOUT = 5  # seconds that managers wait for it; their default is shorter than a busy machine may need
# one worker: each remembers by itself which compute hosts were silent
MANAGER = {'check_port_timeout': CHECK_TIMEOUT, 'workers': 1}
NOVNC = 'http://console.example.org/vnc_lite.html'
TABLES = ('console_auth_tokens', 'instances')  # those that consoled reads

_CONF = """
[DEFAULT]
transport_url = {bus}
host = {host}
my_ip = 127.0.0.1
state_path = {directory}
log_file = {directory}/nova.log
debug = true
rpc_response_timeout = {timeout}
[database]
connection = {database}
[api_database]
connection = {api_database}
[oslo_messaging_notifications]
driver = noop
[oslo_messaging_rabbit]
{rabbit}
"""
_GUEST = """
<domain><devices>
  <graphics type='vnc' port='{vnc}' listen='{address}'/>
  <serial type='tcp'><source mode='bind' host='{address}' service='{serial}'/></serial>
</devices></domain>
"""


def nova_environment(patched=MAJOR < 33):
    """Return the environment of programs that use Nova's code.

    :param patched: whether eventlet patches them, as their release expects
    """
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    if patched:
        return {**environment, 'NOVA_PATCH': '1'}  # read by nova_side.py
    return {**environment, 'OS_NOVA_DISABLE_EVENTLET_PATCHING': 'true'}


def nova_python():
    """Return the interpreter that has Nova. Raises what ``python_of`` raises."""
    return python_of(f'.venv-nova-{VERSION}', f'tools/setup-nova.sh {VERSION}')


def python_of(environment, tool):
    """Return the interpreter of a virtual environment, which a tool makes.

    :raises SkipTest: that has not run; ``MissingService`` where it should have
    """
    found = ROOT / environment / 'bin' / 'python'
    if found.exists():
        return str(found)
    required = os.environ.get('CONSOLED_REQUIRE_SERVICES') == '1'
    raise (services.MissingService if required else unittest.SkipTest)(f'run {tool}')


def plain(url):
    """Return a URL as it is in nova.conf, without time limits."""
    return sa.make_url(url).set(query={'charset': 'utf8'}).render_as_string(hide_password=False)


def execute(url, *statements):
    """Run SQL in a database, as its owner."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level='AUTOCOMMIT')
    with engine.connect() as conn:
        for statement in statements:
            conn.exec_driver_sql(statement)


def make_reader(url):
    """Make an account that may only read what consoled reads, and return the URL of the database for it."""
    owner = sa.make_url(url)
    reader = owner.set(username=f'reader_{owner.database[-8:]}', password='canary-of-reader')
    execute(url, f"CREATE USER {reader.username}@'%%' IDENTIFIED BY '{reader.password}'")
    execute(url, *(f"GRANT SELECT ON {table} TO {reader.username}@'%%'" for table in TABLES))
    return reader.render_as_string(hide_password=False)


class NovaProcess(fixtures.Fixture):
    """A process that runs Nova's code (``nova_side.py``).

    :param arguments: its arguments
    """

    def __init__(self, *arguments):
        super().__init__()
        self._arguments = arguments

    def _setUp(self):  # noqa: N802 - named by the fixtures library
        self._process = spawn(
            [
                nova_python(),
                '-W',
                'ignore',
                str(pathlib.Path(__file__).with_name('nova_side.py')),
                *self._arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr if os.environ.get('OS_DEBUG') else subprocess.DEVNULL,
            env=nova_environment(),
            text=True,
        )
        self.addCleanup(self._end)
        if self._process.stdout.readline().strip() != '"ready"':
            raise services.ServiceError('Nova did not start: run the test with OS_DEBUG=1')

    @property
    def pid(self):
        return self._process.pid

    def _end(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def call(self, name, **values):
        """Run a function of ``nova_side.py`` and return its result."""
        self._process.stdin.write(json.dumps([name, values]) + '\n')
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    @contextlib.contextmanager
    def stopped(self):
        """Keep the process from answering anything."""
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


class Nova(fixtures.Fixture):
    """A cell of Nova: database, bus, and a compute host with guests of our choice.

    :param mariadb: a server for its database; default: the one that all tests share
    :param rabbit: options of ``[oslo_messaging_rabbit]``, in the form of nova.conf
    :ivar database: URL of its database, as in its nova.conf
    :ivar bus: URL of its message bus
    :ivar conf: path of its nova.conf
    :ivar reader: URL of its database for an account that may only read what consoled reads
    :ivar compute: its nova-compute
    :ivar logs: directory of its logs
    """

    def __init__(self, mariadb=None, rabbit='', rpc_response_timeout=RPC_RESPONSE_TIMEOUT):
        super().__init__()
        self._mariadb = mariadb
        self._rabbit = rabbit
        self._timeout = rpc_response_timeout

    def _setUp(self):  # noqa: N802 - named by the fixtures library
        self.python = nova_python()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        mariadb = self._mariadb or services.shared(services.MariaDB)
        self.bus = services.shared(services.RabbitMQ).new_vhost()
        self.database, api_database = (plain(mariadb.new_database()) for _ in range(2))
        self._guests = self.directory / 'guests.json'
        self._xml = {}
        self._write_guests()
        self.conf = self.directory / 'nova.conf'
        self.conf.write_text(
            _CONF.format(
                bus=self.bus,
                host=COMPUTE_HOST,
                directory=self.directory,
                database=self.database,
                api_database=api_database,
                rabbit=self._rabbit,
                timeout=self._timeout,
            )
        )
        manage = [str(pathlib.Path(self.python).with_name('nova-manage')), '--config-file', str(self.conf)]
        subprocess.run(
            [*manage, 'db', 'sync', '--local_cell'],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=nova_environment(),
        )
        self.reader = make_reader(self.database)
        self._objects = self.useFixture(NovaProcess(str(self.conf), 'objects'))
        self.compute = self.useFixture(NovaProcess(str(self.conf), 'compute', str(self._guests)))

    def execute(self, *statements):
        """Run SQL in Nova's database, as its owner."""
        execute(self.database, *statements)

    def grant(self, verb='GRANT', preposition='TO'):
        """Give the reader its rights again, or take them (``REVOKE``, ``FROM``)."""
        user = sa.make_url(self.reader).username
        self.execute(*(f"{verb} SELECT ON {table} {preposition} {user}@'%%'" for table in TABLES))

    def add_guest(self, vnc=5901, serial=10000, address=ADDRESS, **values):
        """Create an instance that runs, with a screen and a serial port; return its UUID."""
        uuid = self._objects.call('create_instance', host=COMPUTE_HOST, **values)['uuid']
        self._objects.call('update_instance', instance_uuid=uuid, launched_in=-60)
        self._xml[uuid] = _GUEST.format(vnc=vnc, serial=serial, address=address)
        self._write_guests()
        return uuid

    def stop_guest(self, uuid):
        """Remove a guest from its hypervisor; its instance stays."""
        del self._xml[uuid]
        self._write_guests()

    def _write_guests(self):
        self._guests.write_text(json.dumps(self._xml))

    def authorize(self, uuid, console_type='novnc', port=5901, **values):
        """Return a token, as Nova's API hands it out in an access URL."""
        values = {'host': ADDRESS, 'base': NOVNC, **values}
        made = self._objects.call(
            'authorize', instance_uuid=uuid, console_type=console_type, port=port, **values
        )
        return made['token']

    def call(self, name, uuid, **values):
        """Run a function of ``nova_side.py`` about an instance."""
        return self._objects.call(name, instance_uuid=uuid, **values)


class SharedFixtures(testtools.TestCase):
    """A test case with fixtures that all tests of a class use."""

    @classmethod
    def share(cls, fixture):
        """Set a fixture up until the tests of the class have run, and return it."""
        fixture.setUp()
        cls.addClassCleanup(fixture.cleanUp)
        return fixture

    def add_logs(self, **daemons):
        """Add the ends of the logs of daemons to the report, if the test fails."""
        for name, daemon in daemons.items():
            self.addOnException(
                lambda _, name=name, daemon=daemon: self.addDetail(name, text_content(daemon.log()[-20000:]))
            )


class NovaTestCase(SharedFixtures):
    """A cell of Nova for all tests of a class.

    :cvar mariadb: the server of its database, as for ``Nova``
    :cvar rabbit: options of its bus, as for ``Nova``
    """

    mariadb = None
    rabbit = ''
    nova: Nova

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.nova = cls.share(Nova(cls.mariadb, cls.rabbit))

    def connect(self, bus=None):
        """Add clients of the managers: ``transport``, ``api`` and ``proxy``, which opens tokens as users do.

        :param bus: URL of the managers' bus; default: Nova's
        """
        self.transport = get_transport(self.useFixture(Conf(transport_url=bus or self.nova.bus)).conf)
        self.addCleanup(self.transport.cleanup)
        self.api = ConsoleAuthAPI(self.transport)
        self.proxy = self.useFixture(FakeProxy(self.transport, self.api))
