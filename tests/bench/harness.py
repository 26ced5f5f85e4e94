# SPDX-License-Identifier: Apache-2.0
"""Services, managers, echo server and callers in processes of their own, so that each one's CPU is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import fixtures
import psutil
import sqlalchemy as sa

from consoled.testing.daemons import ManagerProcess
from consoled.testing.services import MariaDB, Memcached, RabbitMQ
from tests.bench import data
from tests.bench.processes import HelperProcess, machine_cpu, tree_cpu

# one worker, and no background work during the measured calls
_MANAGER = {'manager': {'workers': 1, 'sweep_interval': 86400, 'lease': 3600}}

WARM_UP = 0.5  # seconds before each run

PARTS = ('client', 'server', 'broker', 'database')


@dataclasses.dataclass(frozen=True)
class ManagerSample:
    """The results of one run.

    :param seconds: wall time
    :param p50: median latency in seconds; ``p99`` the 99th percentile
    :param cpu: CPU seconds per call, by part
    :param other: the share of the machine that other processes used
    """

    calls: int
    seconds: float
    p50: float
    p99: float
    cpu: dict[str, float]
    other: float

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def cpu_total(self) -> float:
        return sum(self.cpu.values())


class ManagerHarness(fixtures.Fixture):
    """Broker, database, echo server and callers, to which cells are added.

    :param log: called with a line about the progress
    :param buffer_pool: MiB for the database's buffer pool
    :ivar database: the database's version and settings, for the report
    :ivar load_seconds: how long it took to load each cell's tokens
    """

    def __init__(self, log: Callable[[str], None], buffer_pool: int) -> None:
        super().__init__()
        self._log = log
        self._buffer_pool = buffer_pool
        self._managers: dict[str, int] = {}
        self.load_seconds: dict[str, float] = {}

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        self._broker = self.useFixture(RabbitMQ())
        self._mariadb = self.useFixture(MariaDB())
        self._configure_database()
        self._callers = self.useFixture(HelperProcess('callers'))
        self._echo_url = self._broker.new_vhost()
        self._echo = self.useFixture(HelperProcess('echo', self._echo_url))
        self._echo.read()

    def _configure_database(self) -> None:
        """Configure the database as for a real cell: data in memory, and a redo log that is large enough."""
        settings = {'buffer_pool_size': self._buffer_pool << 20, 'log_file_size': 256 << 20}
        engine = sa.create_engine(self._mariadb.new_database(), isolation_level='AUTOCOMMIT')
        with engine.connect() as conn:
            for name, value in settings.items():
                conn.exec_driver_sql(f'SET GLOBAL innodb_{name} = {value}')
            asked = 'VERSION(), @@innodb_flush_log_at_trx_commit, @@innodb_buffer_pool_size >> 20'
            version, flush, pool = conn.exec_driver_sql(f'SELECT {asked}').one()
        engine.dispose()
        self.database = f'MariaDB {version}, innodb_flush_log_at_trx_commit={flush}, buffer pool {pool} MiB'

    def add_cell(self, name: str, rows: int, *, legacy: bool = False) -> None:
        """Start a manager with ``rows`` tokens in its database. The first cell shares its bus with the echo.

        :param legacy: enable the fallback to the old service's memcached
        """
        options = {**_MANAGER, **self._legacy()} if legacy else _MANAGER
        database_url = self._mariadb.new_database()
        transport_url = self._broker.new_vhost() if self._managers else self._echo_url
        manager = self.useFixture(ManagerProcess(transport_url, database_url, options=options))
        seconds = data.load(database_url, rows, lambda done: self._log(f'cell {name}: {done} tokens'))
        self.load_seconds[name] = seconds
        self._log(f'cell {name}: {rows} tokens loaded in {seconds:.1f} s')
        self._callers.ask(name=name, transport_url=transport_url, database_url=database_url, rows=rows)
        self._managers[name] = manager.pid

    def _legacy(self) -> dict[str, dict[str, Any]]:
        servers = self.useFixture(Memcached()).url
        backend = 'dogpile.cache.memcached'
        return {
            'workarounds': {'enable_consoleauth': True},
            'cache': {'enabled': True, 'backend': backend, 'memcache_servers': servers},
        }

    def measure(self, cell: str, operation: str, callers: int, seconds: float) -> ManagerSample:
        """Run an operation briefly to warm up, then for ``seconds`` while all CPU is measured."""
        run = {'cell': cell, 'operation': operation, 'callers': callers}
        self._callers.ask(**run, seconds=WARM_UP)
        before, machine_before = self._cpu(cell, operation), machine_cpu()
        result = self._callers.ask(**run, seconds=seconds)
        after, machine = self._cpu(cell, operation), machine_cpu() - machine_before
        used = {part: after[part] - before[part] for part in before} | {'client': result['cpu']}
        cores = psutil.cpu_count() or 1
        return ManagerSample(
            calls=result['calls'],
            seconds=result['seconds'],
            p50=result['p50'],
            p99=result['p99'],
            cpu={part: used[part] / result['calls'] for part in PARTS},
            other=max(0.0, machine - sum(used.values())) / (result['seconds'] * cores),
        )

    def _cpu(self, cell: str, operation: str) -> dict[str, float]:
        return {
            'server': tree_cpu(self._echo.pid if operation == 'echo' else self._managers[cell]),
            'broker': self._broker.server_cpu(),
            'database': self._mariadb.cpu(),
        }
