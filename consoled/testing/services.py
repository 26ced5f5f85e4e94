# SPDX-License-Identifier: Apache-2.0
"""Fixtures that run real services (RabbitMQ, MariaDB, PostgreSQL, memcached) for tests.

Each instance listens on a free loopback port and keeps its data in a temporary directory.
``shared(RabbitMQ)`` returns one instance for all tests of a process; see ``ServiceProcess`` for how to
stop, kill and restart one.
"""

import atexit
import base64
import contextlib
import http.client
import os
import secrets
import signal
import socket
import threading
import typing
import urllib.parse

import sqlalchemy

from consoled.testing.service_process import (
    HOST,
    START_TIMEOUT,
    MissingService,
    ServiceError,
    ServiceProcess,
    find_program,
    free_port,
)

__all__ = [
    'HOST',
    'MariaDB',
    'Memcached',
    'MissingService',
    'PostgreSQL',
    'RabbitMQ',
    'ServiceError',
    'ServiceProcess',
    'find_program',
    'free_port',
    'shared',
]

ServiceT = typing.TypeVar('ServiceT', bound=ServiceProcess)


class RabbitMQ(ServiceProcess):
    """A RabbitMQ broker with the management API."""

    programs = ('rabbitmq-server', 'erl', 'epmd')

    def _prepare(self) -> None:
        self._node = f'consoled-{secrets.token_hex(6)}@localhost'
        self._write('.erlang.cookie', secrets.token_hex(16))
        self._write('plugins', '[rabbitmq_management].\n')

    def _configure(self) -> None:
        self.port, self.management_port, self._epmd_port, self._dist_port = (free_port() for _ in range(4))
        # No statistics: collecting them uses CPU constantly and would distort server_cpu().
        self._write(
            'rabbitmq.conf',
            f"""
            listeners.tcp.1 = {HOST}:{self.port}
            management.tcp.ip = {HOST}
            management.tcp.port = {self.management_port}
            management_agent.disable_metrics_collector = true
            collect_statistics_interval = 60000
            log.file = false
            log.console = true
            log.console.level = warning
        """,
        )

    def _commands(self) -> list[list[str]]:
        # The broker needs epmd, and would leave a daemon behind if it had to start it. So a
        # private one is started first, in the foreground.
        epmd = [self.program['epmd'], '-address', HOST, '-port', str(self._epmd_port)]
        return [epmd, [self.program['rabbitmq-server']]]

    def _environment(self) -> dict[str, str]:
        here = str(self.directory)
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(('RABBITMQ_', 'ERL_'))},
            'HOME': here,
            'ERL_CRASH_DUMP_SECONDS': '0',
            'ERL_EPMD_ADDRESS': HOST,
            'ERL_EPMD_PORT': str(self._epmd_port),
            'RABBITMQ_DIST_PORT': str(self._dist_port),
            'RABBITMQ_NODENAME': self._node,
            'RABBITMQ_MNESIA_BASE': f'{here}/mnesia',
            'RABBITMQ_LOG_BASE': f'{here}/log',
            'RABBITMQ_ENABLED_PLUGINS_FILE': f'{here}/plugins',
            'RABBITMQ_CONFIG_FILE': f'{here}/rabbitmq.conf',
            # These files do not exist. Naming them keeps the broker from reading the system's.
            'RABBITMQ_ADVANCED_CONFIG_FILE': f'{here}/advanced.config',
            'RABBITMQ_CONF_ENV_FILE': f'{here}/environment.conf',
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': '-kernel inet_dist_use_interface {127,0,0,1}',
            # Makes the script exec Erlang instead of supervising it: the process started here is
            # then the broker itself, the one that SIGKILL has to reach.
            'RABBITMQ_ALLOW_INPUT': '1',
            'RABBITMQ_SERVER_START_ARGS': '-noinput',
        }

    def _handshake(self) -> None:
        import amqp

        with amqp.Connection(f'{HOST}:{self.port}', connect_timeout=2, read_timeout=5):
            self._request('GET', '/whoami')

    def _request(self, method: str, path: str) -> None:
        token = base64.b64encode(b'guest:guest').decode()
        api = http.client.HTTPConnection(HOST, self.management_port, timeout=15)
        with contextlib.closing(api):
            api.request(method, f'/api{path}', headers={'Authorization': f'Basic {token}'})
            response = api.getresponse()
            if response.status >= 300:
                raise ServiceError(f'{method} {path}: {response.status} {response.read()!r}')

    @property
    def url(self) -> str:
        """The transport URL of the default virtual host."""
        return f'rabbit://guest:guest@{HOST}:{self.port}/'

    def new_vhost(self) -> str:
        """Create an empty virtual host and return its transport URL."""
        name = f'test-{secrets.token_hex(6)}'
        self._request('PUT', f'/vhosts/{name}')
        return self.url + name

    def delete_vhost(self, url: str) -> None:
        """Delete the virtual host with this URL, as returned by ``new_vhost``.

        :raises ServiceError: when there is no such virtual host
        """
        self._request('DELETE', f'/vhosts{urllib.parse.urlsplit(url).path}')

    def server_cpu(self) -> float:
        """Return the CPU seconds that the broker's process tree has used since its last start."""
        return self.cpu()


class _Database(ServiceProcess):
    """A database server on which tests create and drop databases."""

    url_format = ''
    admin_database = ''
    connect_args: typing.ClassVar[dict[str, float]] = {}
    drop = 'DROP DATABASE {}'

    def _execute(self, statement: str) -> list[typing.Any]:
        engine = sqlalchemy.create_engine(
            self._url(self.admin_database),
            poolclass=sqlalchemy.NullPool,
            isolation_level='AUTOCOMMIT',
            connect_args=self.connect_args,
        )
        with engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []

    def _url(self, name: str) -> str:
        return self.url_format.format(self.password, HOST, self.port, name)

    def _prepare(self) -> None:
        self.password = secrets.token_hex(16)
        self._data = str(self.directory / 'data')

    def _handshake(self) -> None:
        self._execute('SELECT 1')

    def new_database(self) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        name = f'test_{secrets.token_hex(6)}'
        self._execute(f'CREATE DATABASE {name}')
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Drop the database with this URL, as returned by ``new_database``, and its connections."""
        self._execute(self.drop.format(urllib.parse.urlsplit(url).path[1:]))


class MariaDB(_Database):
    """A MariaDB server."""

    programs = ('mariadb-install-db', 'mariadbd')
    admin_database = 'mysql'
    connect_args: typing.ClassVar[dict[str, float]] = {'read_timeout': START_TIMEOUT}
    url_format = (
        'mysql+pymysql://consoled:{}@{}:{}/{}'
        '?charset=utf8mb4&connect_timeout=2&read_timeout=5&write_timeout=5'
    )

    def _prepare(self) -> None:
        super()._prepare()
        self._options = ['--no-defaults', f'--datadir={self._data}', '--innodb-log-file-size=32M']
        self._options += ['--user=root'] if os.getuid() == 0 else []
        self._run(self.program['mariadb-install-db'], *self._options, '--skip-test-db')
        self._init_file = self._write(
            'init.sql',
            (
                f"CREATE USER IF NOT EXISTS consoled@'%' IDENTIFIED BY '{self.password}';\n"
                "GRANT ALL ON *.* TO consoled@'%' WITH GRANT OPTION;\n"
            ),
        )

    def _commands(self) -> list[list[str]]:
        return [
            [
                self.program['mariadbd'],
                *self._options,
                f'--init-file={self._init_file}',
                f'--bind-address={HOST}',
                f'--port={self.port}',
                '--skip-name-resolve',
                '--socket=socket',  # relative to the data directory: an absolute path may be too long
                '--character-set-server=utf8mb4',
                '--max-connections=500',
                '--innodb-flush-log-at-trx-commit=1',
                '--innodb-fast-shutdown=2',
                '--innodb-buffer-pool-size=64M',
                '--key-buffer-size=1M',
                '--performance-schema=OFF',
            ]
        ]

    def _environment(self) -> dict[str, str]:
        # A server that starts deletes all temporary tables in this directory, also those of another server.
        return {**super()._environment(), 'TMPDIR': str(self.directory)}

    def drop_database(self, url: str) -> None:
        """Drop the database with this URL, as returned by ``new_database``, and its connections."""
        # A connection that a test left in a transaction would block the DROP.
        name = urllib.parse.urlsplit(url).path[1:]
        query = f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
        for (connection,) in self._execute(query):
            with contextlib.suppress(sqlalchemy.exc.DBAPIError):  # it may just have ended
                self._execute(f'KILL {connection}')
        super().drop_database(url)


class PostgreSQL(_Database):
    """A PostgreSQL server."""

    programs = ('initdb', 'postgres')
    system_user = 'postgres'
    # SIGTERM would wait for clients, and SIGKILL would leave shared memory behind.
    stop_signal = cleanup_signal = signal.SIGINT
    admin_database = 'postgres'
    drop = 'DROP DATABASE {} WITH (FORCE)'
    url_format = 'postgresql+psycopg://consoled:{}@{}:{}/{}?connect_timeout=2'

    def _prepare(self) -> None:
        super()._prepare()
        self._run(
            self.program['initdb'],
            '--pgdata',
            self._data,
            '--no-sync',
            '--no-locale',
            '--encoding=UTF8',
            '--username=consoled',
            '--auth=scram-sha-256',
            '--pwfile',
            self._write('password', self.password),
        )

    def _commands(self) -> list[list[str]]:
        settings = {
            'listen_addresses': HOST,
            'port': self.port,
            'unix_socket_directories': '',
            'max_connections': 500,
            'shared_buffers': '64MB',
            'dynamic_shared_memory_type': 'mmap',  # nothing outside the data directory
        }
        flags = [flag for name, value in settings.items() for flag in ('-c', f'{name}={value}')]
        return [[self.program['postgres'], '-D', self._data, *flags]]


class Memcached(ServiceProcess):
    """A memcached server."""

    programs = ('memcached',)
    system_user = 'nobody'

    def _commands(self) -> list[list[str]]:
        return [[self.program['memcached'], '-l', HOST, '-p', str(self.port), '-U', '0']]

    def _handshake(self) -> None:
        with socket.create_connection((HOST, self.port), timeout=2) as client:
            client.sendall(b'version\r\n')
            if not client.recv(100).startswith(b'VERSION'):
                raise ServiceError('the server is not memcached')

    @property
    def url(self) -> str:
        """The server's address as ``host:port``."""
        return f'{HOST}:{self.port}'


class _SharedServices:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._services: dict[type[ServiceProcess], ServiceProcess | Exception] = {}
        atexit.register(self._discard)

    def get(self, cls: type[ServiceT]) -> ServiceT:
        with self._lock:
            if cls not in self._services:
                service = cls()
                try:
                    service.setUp()
                    self._services[cls] = service
                except ServiceError as error:  # remembered: another attempt would fail as slowly
                    self._services[cls] = error
            found = self._services[cls]
            if isinstance(found, Exception):
                raise found
            found.start()  # a test may have left it stopped
            return typing.cast(ServiceT, found)

    def _discard(self) -> None:
        for service in self._services.values():
            if isinstance(service, ServiceProcess):
                service.cleanUp()


_shared = _SharedServices()


def shared(cls: type[ServiceT]) -> ServiceT:
    """Return the instance of a service that all tests of this process share.

    It is started on first use and stopped when the process exits. A forked child may use its parent's
    instances but never stops them.

    :raises unittest.SkipTest: when the service is not installed
    :raises MissingService: the same, with CONSOLED_REQUIRE_SERVICES=1 in the environment
    :raises ServiceError: when it does not start; later calls raise the same error at once
    """
    return _shared.get(cls)
