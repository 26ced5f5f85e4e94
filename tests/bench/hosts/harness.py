# SPDX-License-Identifier: Apache-2.0
"""A cell, its users and simulated compute hosts, in separate processes, so that each one's CPU is known."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import fixtures
import psutil
import sqlalchemy as sa

from consoled.testing.daemons import ManagerProcess
from consoled.testing.fixtures import wait_until
from consoled.testing.services import MariaDB, RabbitMQ, free_port
from tests.bench.figures import percentile
from tests.bench.hosts import population
from tests.bench.processes import HelperProcess, machine_cpu, tree_cpu

PARTS = ('manager', 'broker', 'database', 'users', 'hosts')
OPERATIONS = ('authorize', 'validate')

_STORM_TIMEOUT = 1800.0  # seconds
_AFTER_RESUME = 5.0  # seconds for the hosts to catch up after they were suspended
_AFTER_SUSPEND = 2.0  # seconds for calls in progress to end
_METRIC = re.compile(r'consoled_rpc_seconds_(count|sum)\{(.*)\} (\S+)')
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of the simulation.

    :param hosts: number of compute hosts; ``guests`` of each, ``processes`` that simulate them
    :param rate: calls of each operation per second
    :param churn: percentage of the guests that change per hour
    :param sync_interval: seconds, as in [compute]; ``clean_interval`` too
    """

    hosts: int
    guests: int
    processes: int
    rate: float
    churn: float
    sync_interval: int
    clean_interval: int


@dataclasses.dataclass(frozen=True)
class Phase:
    """The results of one phase.

    :param latencies: of the users' calls, by operation, in seconds, sorted
    :param errors: of the users' calls: counts by operation and error code
    :param cpu: CPU seconds by part
    :param calls: calls that the manager answered, by ``METHOD CODE``
    :param busy: seconds that the manager's threads spent on them
    :param other: the share of the machine that other processes used
    """

    seconds: float
    latencies: dict[str, list[float]]
    errors: dict[str, dict[str, int]]
    cpu: dict[str, float]
    calls: dict[str, float]
    busy: dict[str, float]
    other: float

    def percentile(self, operation: str, percent: int) -> float:
        return percentile(self.latencies[operation], percent)

    def share(self, part: str) -> float:
        """Return the CPU use of a part as a share of one core."""
        return self.cpu[part] / self.seconds


class HostsHarness(fixtures.Fixture):
    """Services, manager and users. The hosts' processes are started by ``new_hosts``."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self._scale = scale
        self._hosts: list[HelperProcess] = []

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        self._broker = self.useFixture(RabbitMQ())
        self._mariadb = self.useFixture(MariaDB())
        self._transport_url, database_url = self._broker.new_vhost(), self._mariadb.new_database()
        self._monitoring_port = free_port()
        options = {'manager': {'workers': 1}, 'monitoring': {'port': self._monitoring_port}}
        self._manager = self.useFixture(ManagerProcess(self._transport_url, database_url, options=options))
        self._engine = sa.create_engine(database_url, isolation_level='AUTOCOMMIT')
        self.addCleanup(self._engine.dispose)
        size = {'hosts': self._scale.hosts, 'guests': self._scale.guests}
        self._users = self._helper('users', transport_url=self._transport_url, **size)
        self.addCleanup(self.end_hosts)

    @staticmethod
    def _new_helper(module: str, **given: Any) -> HelperProcess:
        helper = HelperProcess(f'hosts.{module}', json.dumps(given))
        helper.setUp()
        return helper

    def _helper(self, module: str, **given: Any) -> HelperProcess:
        helper = self._new_helper(module, **given)
        self.addCleanup(helper.cleanUp)
        helper.read()
        return helper

    # the hosts

    def new_hosts(self) -> None:
        """Start the hosts' processes with the initial guests, and do not start the agents yet."""
        self.end_hosts()
        scale = self._scale
        options = {
            'compute__sync_interval': scale.sync_interval,
            'compute__clean_interval': scale.clean_interval,
            # the processes are suspended for longer than the broker would wait for a heartbeat
            'oslo_messaging_rabbit__heartbeat_timeout_threshold': 0,
        }
        for number in range(scale.processes):
            first, end = (scale.hosts * n // scale.processes for n in (number, number + 1))
            given = {'first': first, 'hosts': end - first, 'guests': scale.guests, 'options': options}
            self._hosts.append(self._new_helper('agents', transport_url=self._transport_url, **given))
        for helper in self._hosts:
            helper.read()

    def end_hosts(self) -> None:
        while self._hosts:
            self._hosts.pop().cleanUp()

    def start_agents(self) -> None:
        for helper in self._hosts:
            helper.ask(start=True)

    def start_churn(self) -> None:
        changes = self._scale.hosts * self._scale.guests * self._scale.churn / 100 / 3600
        if changes:
            for helper in self._hosts:
                helper.ask(churn=changes / len(self._hosts))

    def counted(self) -> tuple[collections.Counter[str], int]:
        """Return the number of reports of the agents, by ``METHOD CODE``, and of changes of guests."""
        reports: collections.Counter[str] = collections.Counter()
        changes = 0
        for helper in self._hosts:
            response = helper.ask(count=True)
            reports.update(response['reports'])
            changes += response['changes']
        return reports, changes

    def _reconciled(self, times: int) -> bool:
        """Return whether all hosts have reported all their guests that many times."""
        return self.counted()[0]['define_host ok'] >= times * self._scale.hosts

    def _defined(self) -> bool:
        """Return whether the manager knows all consoles of all guests."""
        with self._engine.connect() as conn:
            found = conn.exec_driver_sql('SELECT COUNT(*) FROM console_connection').scalar_one()
        return bool(found >= self._scale.hosts * self._scale.guests * population.CONSOLES)

    # phases

    def storm(self) -> tuple[Phase, collections.Counter[str]]:
        """Start all hosts at once, and measure until the manager knows all their guests.

        :returns: the results, and the number of reports by ``METHOD CODE``
        """
        self.new_hosts()

        def run() -> None:
            self.start_agents()
            for done in (lambda: self._reconciled(1), self._defined):
                _wait_slowly(done, _STORM_TIMEOUT)

        phase = self._phase(run)
        return phase, self.counted()[0]

    def settle(self) -> None:
        """Wait until all agents have reported once more, as they do half a minute after their start."""
        wait_until(lambda: self._reconciled(2), timeout=_STORM_TIMEOUT, what='the second report')

    def idle(self, seconds: float) -> Phase:
        """Measure while the hosts' processes are suspended."""
        with self._hosts_suspended():
            time.sleep(_AFTER_SUSPEND)
            return self._phase(lambda: time.sleep(seconds))

    def loaded(self, seconds: float) -> Phase:
        """Measure with the hosts, after they have caught up with what came due while they were suspended."""
        time.sleep(_AFTER_RESUME)
        return self._phase(lambda: time.sleep(seconds))

    @contextlib.contextmanager
    def _hosts_suspended(self) -> Iterator[None]:
        processes = [psutil.Process(helper.pid) for helper in self._hosts]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def _phase(self, run: Callable[[], None]) -> Phase:
        self._users.ask(start=self._scale.rate)
        calls, cpu, machine, started = self._calls(), self._cpu(), machine_cpu(), time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        machine, now = machine_cpu() - machine, self._cpu()
        calls_now = self._calls()
        answers = self._users.ask(finish=True)
        used = {part: now[part] - cpu[part] for part in PARTS}
        grown = {key: value - calls.get(key, 0.0) for key, value in calls_now.items()}
        return Phase(
            seconds=seconds,
            latencies={name: answers[name]['latencies'] for name in OPERATIONS},
            errors={name: answers[name]['errors'] for name in OPERATIONS},
            cpu=used,
            calls={name: value for (kind, name), value in grown.items() if kind == 'count' and value},
            busy={name: value for (kind, name), value in grown.items() if kind == 'sum' and value},
            other=max(0.0, machine - sum(used.values())) / (seconds * (psutil.cpu_count() or 1)),
        )

    def _cpu(self) -> dict[str, float]:
        return {
            'manager': tree_cpu(self._manager.pid),
            'broker': self._broker.server_cpu(),
            'database': self._mariadb.cpu(),
            'users': tree_cpu(self._users.pid),
            'hosts': sum(tree_cpu(helper.pid) for helper in self._hosts),
        }

    def _calls(self) -> dict[tuple[str, str], float]:
        """Return the manager's call metrics: ('count' or 'sum' in seconds, 'METHOD CODE') -> value."""
        url = f'http://127.0.0.1:{self._monitoring_port}/metrics'
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        found = {}
        for kind, labels, value in _METRIC.findall(text):
            by_name = dict(_LABEL.findall(labels))
            found[kind, f'{by_name["method"]} {by_name["code"]}'] = float(value)
        return found


def _wait_slowly(condition: Callable[[], bool], timeout: float) -> None:
    """Poll a condition only twice a second, because polling costs CPU that is being measured."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f'not within {timeout} s')
        time.sleep(0.5)
