# SPDX-License-Identifier: Apache-2.0
"""Fixtures that run real services on free loopback ports, in temporary directories."""

import atexit
import base64
import concurrent.futures
import contextlib
import glob
import http.client
import os
import pathlib
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import typing
import unittest
import urllib.parse

import fixtures
import psutil
import sqlalchemy

HOST = "127.0.0.1"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
# Taken at import: test cases often point tempfile at a directory that lives only as long as
# one test, and a shared service must not lose its data with it.
TMP_ROOT = tempfile.gettempdir()

ServiceT = typing.TypeVar("ServiceT", bound="ServiceProcess")


class MissingService(Exception):
    """A service program is not installed although CONSOLED_REQUIRE_SERVICES asks for it."""


class ServiceError(Exception):
    """A service did not start, or refused a request."""


def find_program(name: str) -> str:
    """Return the path of a program, or skip the test (or fail it, when services are required)."""
    # RabbitMQ's own directory goes first: what Debian puts on PATH is a wrapper that switches
    # to the system's rabbitmq user and directories.
    places = ["/usr/lib/rabbitmq/bin", os.environ.get("PATH", os.defpath), "/usr/sbin"]
    places += sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    if found := shutil.which(name, path=os.pathsep.join(places)):
        return found
    required = os.environ.get("CONSOLED_REQUIRE_SERVICES") == "1"
    raise (MissingService if required else unittest.SkipTest)(f"{name} is not installed")


def free_port() -> int:
    """Return a TCP port that was free on the loopback address a moment ago.

    It is taken from below the kernel's range for outgoing connections where possible: while a
    service is down, a client that keeps reconnecting could otherwise be given the service's own
    port as its local one (and even connect to itself), and the service could not come back.
    """
    outgoing = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    candidates = range(10000, max(int(outgoing[0]), 10000))
    # SystemRandom: processes forked from one parent share the state of the default generator.
    picked = random.SystemRandom().sample(candidates, min(len(candidates), 20))
    for port in [*picked, 0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise ServiceError("no free port")


def _tree(pid: int | None) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        if pid:
            top = psutil.Process(pid)
            return [top, *top.children(recursive=True)]
    return []


def _alive(process: psutil.Process) -> bool:
    # A zombie counts as gone: it may take the init process a second to reap an orphan.
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class ServiceProcess(fixtures.Fixture):
    """Base of the services: set up means started and answering; clean up ends and deletes it."""

    programs: tuple[str, ...] = ()
    system_user: str | None = None  # for servers that refuse to run as root
    stop_signal = signal.SIGTERM
    cleanup_signal = signal.SIGKILL  # the data are deleted, so nothing has to be saved
    port = 0

    def setUp(self) -> None:
        """Start the service, or raise SkipTest or MissingService if it is not installed."""
        # Not in _setUp: the fixtures library would turn a skip into a skip plus an error.
        self.program = {name: find_program(name) for name in (*self.programs, "setpriv")}
        try:
            super().setUp()
        except fixtures.MultipleExceptions as failed:
            raise failed.args[0][1] from None

    def _setUp(self) -> None:
        self._owner = os.getpid()
        self._processes: list[subprocess.Popen[bytes]] = []  # the server is the last one
        self._answered = False
        prefix = f"consoled-{type(self).__name__.lower()}-"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=TMP_ROOT))
        self.addCleanup(self._discard)
        self.log = self.directory / "output.log"
        # setpriv, because a preexec function may deadlock when there are threads, and because a
        # server that changes its user by itself would lose the parent-death signal.
        self._launcher = [self.program["setpriv"], "--pdeathsig=KILL"]
        if self.system_user and os.getuid() == 0:
            user = pwd.getpwnam(self.system_user)
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._launcher += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
        self._prepare()
        self.start()

    def _prepare(self) -> None:
        """Create the data, once."""

    def _configure(self) -> None:
        """Choose the ports; done again if one of them turns out to be taken."""
        self.port = free_port()

    def _commands(self) -> list[list[str]]:
        """Return the commands to start; the last one is the server itself."""
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _handshake(self) -> None:
        """Talk to the service; any exception means that it is not ready."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """The pid of the server while it runs."""
        running = self._processes and self._processes[-1].poll() is None
        return self._processes[-1].pid if running else None

    def start(self) -> None:
        """Start the service and wait until it answers; later starts keep the port and the data."""
        if self.pid or os.getpid() != self._owner:
            return
        deadline = time.monotonic() + START_TIMEOUT
        for _attempt in range(3):
            self._end(signal.SIGKILL)  # what a server that died by itself left behind
            if not self._answered:
                self._configure()
            try:
                for command in self._commands():
                    self._processes.append(self._spawn(command))
                if self._wait_until_ready(deadline):
                    self._answered = True
                    return
            except BaseException:
                self._end(signal.SIGKILL)
                raise
        self._end(signal.SIGKILL)
        raise self._failure("exited while starting")

    def stop(self) -> None:
        """Shut the service down in order, by force if it takes too long."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL the service and wait until its processes are gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the service and start it again on the same port and data."""
        self.stop()
        self.start()

    def cpu(self) -> float:
        """Return the CPU seconds used by the server's process tree since its last start."""
        total = 0.0
        for process in _tree(self.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])  # own and of reaped children
        return total

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        started: concurrent.futures.Future[subprocess.Popen[bytes]] = concurrent.futures.Future()

        def run() -> None:
            # The parent-death signal comes when the *thread* that started the process ends. This
            # one ends after the process, so a service may be started in any thread of a test.
            try:
                with self.log.open("ab") as log:  # a new session: Ctrl-C is for the test runner
                    process = subprocess.Popen(
                        self._launcher + command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        cwd=self.directory, env=self._environment(), start_new_session=True,
                    )
            except BaseException as error:  # noqa: BLE001 - raised again in the caller
                started.set_exception(error)
            else:
                started.set_result(process)
                process.wait()

        threading.Thread(target=run, daemon=True).start()
        return started.result()

    def _run(self, *command: str) -> None:
        """Run a command that prepares the data, as the user of the server."""
        self._processes.append(self._spawn(list(command)))
        if self._processes[-1].wait(START_TIMEOUT):
            raise self._failure(f"could not run {command[0]}")

    def _wait_until_ready(self, deadline: float) -> bool:
        """Return False if a process ends first, as it does when its port is taken."""
        failure: Exception | None = None
        while time.monotonic() < deadline:
            try:
                self._handshake()
            except Exception as error:  # noqa: BLE001 - each client library has its own
                failure = error
            else:
                failure = None
            if any(process.poll() is not None for process in self._processes):
                return False
            # On a port conflict it is somebody else who has answered.
            if failure is None and self._listens():
                return True
            time.sleep(0.05)
        raise self._failure(f"is not ready in time ({failure!r})")

    def _listens(self) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            sockets = psutil.Process(self.pid).net_connections("tcp4") if self.pid else []
            wanted = (psutil.CONN_LISTEN, (HOST, self.port))
            return any((found.status, found.laddr) == wanted for found in sockets)
        return False

    def _end(self, signum: int) -> None:
        # A forked child inherits this object, but the processes are not its own to end.
        while self._processes and os.getpid() == self._owner:
            process = self._processes[-1]
            tree = _tree(self.pid)
            process.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT)
            deadline = time.monotonic() + STOP_TIMEOUT
            while (tree := [p for p in tree if _alive(p)]) and time.monotonic() < deadline:
                for leftover in tree:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        leftover.kill()
                time.sleep(0.01)
            self._processes.pop()

    def _discard(self) -> None:
        if os.getpid() == self._owner:
            self._end(self.cleanup_signal)
            shutil.rmtree(self.directory, ignore_errors=True)

    def _failure(self, what: str) -> ServiceError:
        log = self.log.read_text(errors="replace")[-4000:]
        return ServiceError(f"{type(self).__name__} {what}; its log ends:\n{log}")

    def _write(self, name: str, text: str) -> str:
        """Write a file that only the user of the server can read; return its path."""
        path = self.directory / name
        path.write_text(text)  # nobody else reaches it before the chmod: the directory is private
        path.chmod(0o600)
        os.chown(path, self.directory.stat().st_uid, -1)
        return str(path)


class RabbitMQ(ServiceProcess):
    """A RabbitMQ broker with the management API."""

    programs = ("rabbitmq-server", "erl", "epmd")

    def _prepare(self) -> None:
        self._node = f"consoled-{secrets.token_hex(6)}@localhost"
        self._write(".erlang.cookie", secrets.token_hex(16))
        self._write("plugins", "[rabbitmq_management].\n")

    def _configure(self) -> None:
        self.port, self.management_port, self._epmd_port, self._dist_port = (
            free_port() for _ in range(4)
        )
        # No statistics: collecting them costs CPU all the time and would blur server_cpu().
        self._write("rabbitmq.conf", f"""
            listeners.tcp.1 = {HOST}:{self.port}
            management.tcp.ip = {HOST}
            management.tcp.port = {self.management_port}
            management_agent.disable_metrics_collector = true
            collect_statistics_interval = 60000
            log.file = false
            log.console = true
            log.console.level = warning
        """)

    def _commands(self) -> list[list[str]]:
        # The broker insists on an epmd and would leave behind a daemon if it had to start it,
        # so a private one is started here first, in the foreground.
        epmd = [self.program["epmd"], "-address", HOST, "-port", str(self._epmd_port)]
        return [epmd, [self.program["rabbitmq-server"]]]

    def _environment(self) -> dict[str, str]:
        here = str(self.directory)
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))},
            "HOME": here,
            "ERL_CRASH_DUMP_SECONDS": "0",
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            # These do not exist; they are named so that those of the system are not read.
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{here}/advanced.config",
            "RABBITMQ_CONF_ENV_FILE": f"{here}/environment.conf",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Makes the script exec Erlang instead of watching over it: the process started here
            # is then the broker itself, which a SIGKILL has to hit.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
        }

    def _handshake(self) -> None:
        import amqp  # type: ignore[import-untyped]

        with amqp.Connection(f"{HOST}:{self.port}", connect_timeout=2, read_timeout=5):
            self._request("GET", "/whoami")

    def _request(self, method: str, path: str) -> None:
        token = base64.b64encode(b"guest:guest").decode()
        api = http.client.HTTPConnection(HOST, self.management_port, timeout=15)
        with contextlib.closing(api):
            api.request(method, f"/api{path}", headers={"Authorization": f"Basic {token}"})
            answer = api.getresponse()
            if answer.status >= 300:
                raise ServiceError(f"{method} {path}: {answer.status} {answer.read()!r}")

    @property
    def url(self) -> str:
        """The transport URL of the default virtual host."""
        return f"rabbit://guest:guest@{HOST}:{self.port}/"

    def new_vhost(self) -> str:
        """Create an empty virtual host and return its transport URL."""
        name = f"test-{secrets.token_hex(6)}"
        self._request("PUT", f"/vhosts/{name}")
        return self.url + name

    def delete_vhost(self, url: str) -> None:
        """Delete a virtual host by the URL that new_vhost() returned."""
        self._request("DELETE", f"/vhosts{urllib.parse.urlsplit(url).path}")

    def server_cpu(self) -> float:
        """Return the CPU seconds used by the broker's process tree since its last start."""
        return self.cpu()


class _Database(ServiceProcess):
    url_format = ""
    admin_database = ""
    connect_args: typing.ClassVar[dict[str, float]] = {}
    drop = "DROP DATABASE {}"

    def _execute(self, statement: str) -> list[typing.Any]:
        engine = sqlalchemy.create_engine(
            self._url(self.admin_database), poolclass=sqlalchemy.NullPool,
            isolation_level="AUTOCOMMIT", connect_args=self.connect_args,
        )
        with engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []

    def _url(self, name: str) -> str:
        return self.url_format.format(self.password, HOST, self.port, name)

    def _prepare(self) -> None:
        self.password = secrets.token_hex(16)
        self._data = str(self.directory / "data")

    def _handshake(self) -> None:
        self._execute("SELECT 1")

    def new_database(self) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        name = f"test_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database by the URL that new_database() returned, ending its sessions."""
        self._execute(self.drop.format(urllib.parse.urlsplit(url).path[1:]))


class MariaDB(_Database):
    """A MariaDB server."""

    programs = ("mariadb-install-db", "mariadbd")
    admin_database = "mysql"
    connect_args: typing.ClassVar[dict[str, float]] = {"read_timeout": START_TIMEOUT}
    url_format = (
        "mysql+pymysql://consoled:{}@{}:{}/{}"
        "?charset=utf8mb4&connect_timeout=2&read_timeout=5&write_timeout=5"
    )

    def _prepare(self) -> None:
        super()._prepare()
        self._options = ["--no-defaults", f"--datadir={self._data}", "--innodb-log-file-size=32M"]
        self._options += ["--user=root"] if os.getuid() == 0 else []
        self._run(self.program["mariadb-install-db"], *self._options, "--skip-test-db")
        self._init_file = self._write("init.sql", (
            f"CREATE USER IF NOT EXISTS consoled@'%' IDENTIFIED BY '{self.password}';\n"
            "GRANT ALL ON *.* TO consoled@'%';\n"
        ))

    def _commands(self) -> list[list[str]]:
        return [[
            self.program["mariadbd"], *self._options, f"--init-file={self._init_file}",
            f"--bind-address={HOST}", f"--port={self.port}", "--skip-name-resolve",
            "--socket=socket",  # inside the data directory, where the path cannot get too long
            "--character-set-server=utf8mb4", "--max-connections=500",
            "--innodb-flush-log-at-trx-commit=1", "--innodb-fast-shutdown=2",
            "--innodb-buffer-pool-size=64M", "--key-buffer-size=1M", "--performance-schema=OFF",
        ]]

    def drop_database(self, url: str) -> None:
        """Drop a database by the URL that new_database() returned, ending its sessions."""
        # A session that a test left in a transaction would block the DROP.
        name = urllib.parse.urlsplit(url).path[1:]
        for (session,) in self._execute(
            f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
        ):
            with contextlib.suppress(sqlalchemy.exc.DBAPIError):  # it may have just ended
                self._execute(f"KILL {session}")
        super().drop_database(url)


class PostgreSQL(_Database):
    """A PostgreSQL server."""

    programs = ("initdb", "postgres")
    system_user = "postgres"
    # SIGTERM would wait for the clients, and SIGKILL would leave shared memory behind.
    stop_signal = cleanup_signal = signal.SIGINT
    admin_database = "postgres"
    drop = "DROP DATABASE {} WITH (FORCE)"
    url_format = "postgresql+psycopg://consoled:{}@{}:{}/{}?connect_timeout=2"

    def _prepare(self) -> None:
        super()._prepare()
        self._run(
            self.program["initdb"], "--pgdata", self._data, "--no-sync", "--no-locale",
            "--encoding=UTF8", "--username=consoled", "--auth=scram-sha-256",
            "--pwfile", self._write("password", self.password),
        )

    def _commands(self) -> list[list[str]]:
        settings = {
            "listen_addresses": HOST, "port": self.port, "unix_socket_directories": "",
            "max_connections": 500, "shared_buffers": "64MB",
            "dynamic_shared_memory_type": "mmap",  # nothing outside of the data directory
        }
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        return [[self.program["postgres"], "-D", self._data, *flags]]


class Memcached(ServiceProcess):
    """A memcached server."""

    programs = ("memcached",)
    system_user = "nobody"

    def _commands(self) -> list[list[str]]:
        return [[self.program["memcached"], "-l", HOST, "-p", str(self.port), "-U", "0"]]

    def _handshake(self) -> None:
        with socket.create_connection((HOST, self.port), timeout=2) as client:
            client.sendall(b"version\r\n")
            if not client.recv(100).startswith(b"VERSION"):
                raise ServiceError("not a memcached")

    @property
    def url(self) -> str:
        """The server as host:port."""
        return f"{HOST}:{self.port}"


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
                except ServiceError as error:  # remembered: waiting again would help no test
                    self._services[cls] = error
            found = self._services[cls]
            if isinstance(found, Exception):
                raise found
            found.start()  # in case that a test has left it down
            return typing.cast(ServiceT, found)

    def _discard(self) -> None:
        for service in self._services.values():
            if isinstance(service, ServiceProcess):
                service.cleanUp()


_shared = _SharedServices()


def shared(cls: type[ServiceT]) -> ServiceT:
    """Return the instance that all tests of this process share, stopped when the process exits.

    A forked child may use what its parent has started, but never stops it.
    """
    return _shared.get(cls)
