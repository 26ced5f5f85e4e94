# SPDX-License-Identifier: Apache-2.0
"""What is measured on: services, managers, echo and callers, each a process whose CPU is read apart."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import fixtures
import psutil
import sqlalchemy as sa

from consoled.testing.daemons import ManagerProcess
from consoled.testing.services import MariaDB, Memcached, RabbitMQ
from tests.bench import data

# One worker, and nothing that would run beside the measured calls.
_MANAGER = {'manager': {'workers': 1, 'sweep_interval': 86400, 'lease': 3600}}

WARM_UP = 0.5  # seconds before each run

PARTS = ('client', 'server', 'broker', 'database')


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run: calls, wall seconds, percentiles (s), CPU seconds per call by part.

    ``other`` is the share of the machine that went to anything else than what is measured.
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


def tree_cpu(pid: int) -> float:
    """CPU seconds that a process and its descendants have used."""
    top = psutil.Process(pid)
    total = 0.0
    for process in [top, *top.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])  # own and of reaped children
    return total


def machine_cpu() -> float:
    times = psutil.cpu_times()
    return float(sum(times[:8]) - times.idle - times.iowait)  # [:8]: guest times are part of user times


class Helper(fixtures.Fixture):
    """A Python process of the benchmark, talked to by lines."""

    def __init__(self, module: str, *arguments: str) -> None:
        super().__init__()
        self._command = [sys.executable, '-m', f'tests.bench.{module}', *arguments]

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(self._process.wait)
        self.addCleanup(self._process.stdin.close)

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f'{self._command} ended with status {self._process.wait()}')
        return line.strip()

    def ask(self, **command: Any) -> dict[str, Any]:
        print(json.dumps(command), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.read())
        if 'error' in answer:
            raise RuntimeError(answer['error'])
        return answer


class Stage(fixtures.Fixture):
    """Broker, database, echo and callers; cells are added to it.

    :param say: told of what takes long
    :param buffer_pool: MiB of memory for the database's pages
    """

    def __init__(self, say: Callable[[str], None], buffer_pool: int) -> None:
        super().__init__()
        self._say = say
        self._buffer_pool = buffer_pool
        self._managers: dict[str, int] = {}
        self.load_seconds: dict[str, float] = {}

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        self._broker = self.useFixture(RabbitMQ())
        self._mariadb = self.useFixture(MariaDB())
        self._configure_database()
        self._callers = self.useFixture(Helper('callers'))
        self._echo_url = self._broker.new_vhost()
        self._echo = self.useFixture(Helper('echo', self._echo_url))
        self._echo.read()

    def _configure_database(self) -> None:
        """As a cell's server has it: its data in memory, a log that need not be recycled all the time."""
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
        """Start a manager with ``rows`` tokens in its database; the first cell's bus has the echo too.

        :param legacy: with the fall-back to a memcached of the old service
        """
        options = {**_MANAGER, **self._legacy()} if legacy else _MANAGER
        database_url = self._mariadb.new_database()
        transport_url = self._broker.new_vhost() if self._managers else self._echo_url
        manager = self.useFixture(ManagerProcess(transport_url, database_url, options=options))
        seconds = data.load(database_url, rows, lambda done: self._say(f'cell {name}: {done} tokens'))
        self.load_seconds[name] = seconds
        self._say(f'cell {name}: {rows} tokens loaded in {seconds:.1f} s')
        self._callers.ask(name=name, transport_url=transport_url, database_url=database_url, rows=rows)
        self._managers[name] = manager.pid

    def _legacy(self) -> dict[str, dict[str, Any]]:
        servers = self.useFixture(Memcached()).url
        backend = 'dogpile.cache.memcached'
        return {
            'workarounds': {'enable_consoleauth': True},
            'cache': {'enabled': True, 'backend': backend, 'memcache_servers': servers},
        }

    def measure(self, cell: str, operation: str, callers: int, seconds: float) -> Sample:
        """Run an operation: shortly to warm up, then for ``seconds`` with all CPU counted."""
        run = {'cell': cell, 'operation': operation, 'callers': callers}
        self._callers.ask(**run, seconds=WARM_UP)
        before, machine_before = self._cpu(cell, operation), machine_cpu()
        result = self._callers.ask(**run, seconds=seconds)
        after, machine = self._cpu(cell, operation), machine_cpu() - machine_before
        used = {part: after[part] - before[part] for part in before} | {'client': result['cpu']}
        cores = psutil.cpu_count() or 1
        return Sample(
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
