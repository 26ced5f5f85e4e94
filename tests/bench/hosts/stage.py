# SPDX-License-Identifier: Apache-2.0
"""A cell, its users and its simulated compute hosts, in processes whose CPU is read apart."""

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
from tests.bench.hosts import population
from tests.bench.stage import Helper, machine_cpu, tree_cpu

PARTS = ('manager', 'broker', 'database', 'users', 'hosts')
OPERATIONS = ('authorize', 'validate')

_STORM_TIMEOUT = 1800.0  # seconds
_AFTER_PAUSE = 5.0  # seconds after the hosts go on: what had to wait is over
_AFTER_STOP = 2.0
_METRIC = re.compile(r'consoled_rpc_seconds_(count|sum)\{(.*)\} (\S+)')
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Scale:
    """How many, and how often; intervals in seconds, ``churn`` in per cent of the guests an hour."""

    hosts: int
    guests: int
    processes: int
    rate: float
    churn: float
    sync_interval: int
    clean_interval: int


@dataclasses.dataclass(frozen=True)
class Phase:
    """What was seen in a time: latencies (s, sorted) and errors of the users, CPU by part (s).

    ``calls`` and ``busy`` (s, in which a thread was at it) are the manager's counts, by ``method code``.
    ``other`` is the share of the machine that went to anything else than what is measured.
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
        """Of one core."""
        return self.cpu[part] / self.seconds


def percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


class Stage(fixtures.Fixture):
    """All that takes part, without the hosts' processes: ``new_hosts`` starts these.

    :param say: told of what takes long
    """

    def __init__(self, say: Callable[[str], None], scale: Scale) -> None:
        super().__init__()
        self._say = say
        self._scale = scale
        self._hosts: list[Helper] = []

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        self._broker = self.useFixture(RabbitMQ())
        self._mariadb = self.useFixture(MariaDB())
        self._transport_url, database_url = self._broker.new_vhost(), self._mariadb.new_database()
        self._monitoring_port = free_port()
        options = {'manager': {'workers': 1}, 'monitoring': {'port': self._monitoring_port}}
        self._manager = self.useFixture(ManagerProcess(self._transport_url, database_url, options=options))
        self._engine = sa.create_engine(database_url, isolation_level='AUTOCOMMIT')
        self.addCleanup(self._engine.dispose)
        of_users = {'hosts': self._scale.hosts, 'guests': self._scale.guests}
        self._users = self._helper('users', transport_url=self._transport_url, **of_users)
        self.addCleanup(self.end_hosts)

    @staticmethod
    def _new_helper(module: str, **given: Any) -> Helper:
        helper = Helper(f'hosts.{module}', json.dumps(given))
        helper.setUp()
        return helper

    def _helper(self, module: str, **given: Any) -> Helper:
        helper = self._new_helper(module, **given)
        self.addCleanup(helper.cleanUp)
        helper.read()
        return helper

    # the hosts

    def new_hosts(self) -> None:
        """Start the hosts' processes, with the guests as they were first. Their agents are not started."""
        self.end_hosts()
        scale = self._scale
        options = {
            'compute__sync_interval': scale.sync_interval,
            'compute__clean_interval': scale.clean_interval,
            # between the phases the processes are stopped for longer than the broker would wait
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
        """What the agents have told, by ``method code``, and how many guests have changed."""
        told: collections.Counter[str] = collections.Counter()
        changes = 0
        for helper in self._hosts:
            answer = helper.ask(count=True)
            told.update(answer['told'])
            changes += answer['changes']
        return told, changes

    def _compared(self, times: int) -> bool:
        return self.counted()[0]['define_host ok'] >= times * self._scale.hosts

    def _defined(self) -> bool:
        """Whether the manager knows each console of each guest."""
        with self._engine.connect() as conn:
            found = conn.exec_driver_sql('SELECT COUNT(*) FROM console_connection').scalar_one()
        return bool(found >= self._scale.hosts * self._scale.guests * population.CONSOLES)

    # phases

    def storm(self) -> tuple[Phase, collections.Counter[str]]:
        """All hosts start at once; until the manager knows all their guests.

        :returns: what was seen, and what was told
        """
        self.new_hosts()

        def run() -> None:
            self.start_agents()
            for done in (lambda: self._compared(1), self._defined):
                _wait_slowly(done, _STORM_TIMEOUT)

        phase = self._phase(run)
        return phase, self.counted()[0]

    def settle(self) -> None:
        """Wait until each agent has told all once more, as it does half a minute after its start."""
        wait_until(lambda: self._compared(2), timeout=_STORM_TIMEOUT, what='the second comparison')

    def idle(self, seconds: float) -> Phase:
        """No host says anything: their processes are stopped."""
        with self._silent():
            time.sleep(_AFTER_STOP)
            return self._phase(lambda: time.sleep(seconds))

    def loaded(self, seconds: float) -> Phase:
        """The hosts go on; what came due while they were stopped is not measured."""
        time.sleep(_AFTER_PAUSE)
        return self._phase(lambda: time.sleep(seconds))

    @contextlib.contextmanager
    def _silent(self) -> Iterator[None]:
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
        """The manager's own counts: ('count' or 'sum' in seconds, 'method code') -> value."""
        url = f'http://127.0.0.1:{self._monitoring_port}/metrics'
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        found = {}
        for kind, labels, value in _METRIC.findall(text):
            by_name = dict(_LABEL.findall(labels))
            found[kind, f'{by_name["method"]} {by_name["code"]}'] = float(value)
        return found


def _wait_slowly(condition: Callable[[], bool], timeout: float) -> None:
    """Look once in half a second: to look costs CPU that is measured."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f'not within {timeout} s')
        time.sleep(0.5)
