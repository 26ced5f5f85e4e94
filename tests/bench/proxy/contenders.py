# SPDX-License-Identifier: Apache-2.0
"""The contenders that are compared: plain TCP, a stock websockify, and consoled."""

from __future__ import annotations

import contextlib
import pathlib
import resource
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping
from typing import Any

import fixtures
import psutil
import sqlalchemy as sa

from consoled import objects
from consoled.context import RequestContext
from consoled.rpc.client import ConsoleAuthAPI
from consoled.testing.daemons import ManagerProcess, ProxyProcess
from consoled.testing.fixtures import wait_until
from consoled.testing.services import MariaDB, RabbitMQ, free_port
from tests.bench import bus
from tests.bench.processes import tree_cpu
from tests.bench.proxy.frames import Route

Ports = Mapping[str, int]  # of the guests

TOKENS = 200  # for each guest, each for another instance
_TTL = 86400
_LIMITS = {'max_sessions_per_token': 0, 'max_sessions_per_instance': 0}
_PROXY_LIMITS = (
    'max_sessions',
    'max_sessions_per_address',
    'max_connections',
    'max_connections_per_address',
)
# without this, a serial console has one session
_SERIAL = {'serial_console': {'max_sessions': 0}}


class Certificate(fixtures.Fixture):
    """A self-signed certificate for localhost."""

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.cert, self.key = str(directory / 'cert.pem'), str(directory / 'key.pem')
        command = ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2']
        command += ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
        command += ['-keyout', self.key, '-out', self.cert]
        subprocess.run(command, check=True, capture_output=True)


class Contender(fixtures.Fixture):
    """A way from users to the guests, ready when the fixture is set up."""

    def routes(self, guest: str) -> list[Route]:
        """Return the routes to a guest, of which users may take any."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """Return the parent processes of the proxy."""
        return []

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds used so far, by part."""
        return {'proxy': sum(map(tree_cpu, self.pids()))}

    def memory(self) -> int:
        """Return the memory of the proxy's processes in bytes, shared pages divided among them (PSS)."""
        total = 0
        for pid in self.pids():
            top = psutil.Process(pid)
            for process in [top, *top.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += process.memory_full_info().pss
        return total

    def is_idle(self) -> bool:
        """Return whether all sessions are over, for the managers too."""
        return True


class DirectTCP(Contender):
    """Connects users directly to the guest: the upper limit."""

    def __init__(self, ports: Ports) -> None:
        super().__init__()
        self._ports = ports

    def routes(self, guest: str) -> list[Route]:
        return [Route(self._ports[guest])]


class Websockify(Contender):
    """A stock websockify for each guest, without authorization."""

    def __init__(self, ports: Ports, certificate: Certificate | None = None) -> None:
        super().__init__()
        self._ports = ports
        self._certificate = certificate
        self._processes: dict[str, tuple[subprocess.Popen[bytes], int]] = {}

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        self._log = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'websockify.log'
        for guest, port in self._ports.items():
            self._start(guest, port)

    def _start(self, guest: str, port: int) -> None:
        listen = free_port()
        command = [sys.executable, '-m', 'websockify', f'127.0.0.1:{listen}', f'127.0.0.1:{port}']
        if self._certificate:
            command += ['--cert', self._certificate.cert, '--key', self._certificate.key, '--ssl-only']
        with self._log.open('ab') as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        wait_until(lambda: self._listens(process, listen), what='websockify')
        self._processes[guest] = process, listen

    def _listens(self, process: subprocess.Popen[bytes], port: int) -> bool:
        if process.poll() is not None:
            raise RuntimeError(f'websockify exited: {self._log.read_text()[-2000:]}')
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', port)).close()
            return True
        return False

    def routes(self, guest: str) -> list[Route]:
        ca = self._certificate.cert if self._certificate else None
        return [Route(self._processes[guest][1], '/', ca)]

    def pids(self) -> list[int]:
        return [process.pid for process, _ in self._processes.values()]

    def is_idle(self) -> bool:
        return not any(psutil.Process(pid).children() for pid in self.pids())


class CellServices(fixtures.Fixture):
    """Broker, database, one manager with one worker, and tokens for each guest."""

    def __init__(self, ports: Ports) -> None:
        super().__init__()
        self._ports = ports

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        self._broker = self.useFixture(RabbitMQ())
        self._mariadb = self.useFixture(MariaDB())
        self.transport_url = self._broker.new_vhost()
        database_url = self._mariadb.new_database()
        options = {'manager': {'workers': 1, 'sweep_interval': 86400, **_LIMITS}, **_SERIAL}
        self._manager = self.useFixture(ManagerProcess(self.transport_url, database_url, options))
        self._engine = sa.create_engine(database_url, isolation_level='AUTOCOMMIT')
        self.addCleanup(self._engine.dispose)
        transport = bus.new_transport(self.transport_url)
        self.addCleanup(transport.cleanup)
        api = ConsoleAuthAPI(transport)
        self.tokens = {
            guest: [_authorized(api, port) for _ in range(TOKENS)] for guest, port in self._ports.items()
        }

    def cpu(self) -> dict[str, float]:
        return {
            'manager': tree_cpu(self._manager.pid),
            'broker': self._broker.server_cpu(),
            'database': self._mariadb.cpu(),
        }

    def sessions(self) -> int:
        """Return the number of sessions in the database."""
        with self._engine.connect() as conn:
            return int(conn.exec_driver_sql('SELECT COUNT(*) FROM console_session').scalar_one())


def _authorized(api: ConsoleAuthAPI, port: int) -> str:
    grant = objects.ConsoleAuthToken(
        instance_uuid=str(uuid.uuid4()),
        console_type='serial',
        host='127.0.0.1',
        port=port,
        compute_host='node-1',
        access_url_base='http://localhost/',
        options={},
        user_id='user-1',
        project_id='project-1',
    )
    context = RequestContext(user_id='user-1', project_id='project-1')
    return str(api.authorize(context, grant, _TTL).token)


class Consoled(Contender):
    """One process of consoled-proxy, with every session authorized by the cell's manager."""

    def __init__(self, cell: CellServices, certificate: Certificate | None = None) -> None:
        super().__init__()
        self._cell = cell
        self._certificate = certificate

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        most = min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 2 // 5)
        proxy: dict[str, Any] = dict.fromkeys(_PROXY_LIMITS, most)
        if self._certificate:
            proxy |= {'ssl_cert': self._certificate.cert, 'ssl_key': self._certificate.key}
        process = ProxyProcess(self._cell.transport_url, {'proxy': proxy, **_SERIAL})
        self._process = self.useFixture(process)
        self._process.wait_ready()

    def routes(self, guest: str) -> list[Route]:
        ca = self._certificate.cert if self._certificate else None
        return [Route(self._process.port, f'/?token={token}', ca) for token in self._cell.tokens[guest]]

    def pids(self) -> list[int]:
        return [self._process.pid]

    def cpu(self) -> dict[str, float]:
        return super().cpu() | self._cell.cpu()

    def is_idle(self) -> bool:
        return self._cell.sessions() == 0
