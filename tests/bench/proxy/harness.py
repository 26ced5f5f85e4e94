# SPDX-License-Identifier: Apache-2.0
"""Users, guests and contenders in processes of their own, so that each one's CPU is known."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from typing import Any

import fixtures

from consoled.testing.fixtures import wait_until
from tests.bench.processes import HelperProcess, machine_cpu, tree_cpu
from tests.bench.proxy.contenders import (
    CellServices,
    Certificate,
    Consoled,
    Contender,
    DirectTCP,
    Ports,
    Websockify,
)

PARTS = ('proxy', 'client', 'target', 'manager', 'broker', 'database')

_WARM_UP = 0.5  # seconds before each run
_WARM_UP_SESSIONS = 20
_SETTLE = 1.0  # seconds before memory is measured


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of the users.

    :param users: the kind of users; ``guest`` the guest they connect to
    :param unit: of the results: ``scale`` bytes, key presses or opens
    """

    title: str
    users: str
    guest: str
    unit: str
    scale: float = 1.0
    tls: bool = False


OPERATIONS = {
    'stream': Operation('guest to user', 'download', 'source', 'GB', 1e9),
    'upload': Operation('user to guest', 'upload', 'sink', 'GB', 1e9),
    'stream_tls': Operation('guest to user, TLS', 'download', 'source', 'GB', 1e9, tls=True),
    'upload_tls': Operation('user to guest, TLS', 'upload', 'sink', 'GB', 1e9, tls=True),
    'keys': Operation('key press, echoed', 'keys', 'echo', 'key'),
    'opens': Operation('open and close', 'opens', 'crowd', 'open'),
}


@dataclasses.dataclass(frozen=True)
class ProxySample:
    """The results of one run.

    :param count: number of units
    :param p50: median latency in seconds, if there are latencies; ``p99`` the 99th percentile
    :param cpu: CPU seconds per unit, by part
    :param other: the share of the machine that other processes used
    :param settled: seconds from the end of the run until the last session was over
    """

    count: float
    seconds: float
    p50: float | None
    p99: float | None
    cpu: dict[str, float]
    other: float
    settled: float = 0.0

    @property
    def rate(self) -> float:
        return self.count / self.seconds


@dataclasses.dataclass(frozen=True)
class MemorySample:
    """Memory of a proxy's processes without and with idle sessions (bytes, PSS)."""

    sessions: int
    before: int
    after: int
    other: float = 0.0

    @property
    def each(self) -> float:
        return (self.after - self.before) / self.sessions


class ProxyHarness(fixtures.Fixture):
    """Users, guests and contenders, and the cell of consoled.

    :param log: called with a line about the progress
    :param names: the contenders
    """

    def __init__(self, log: Callable[[str], None], names: list[str]) -> None:
        super().__init__()
        self._log = log
        self._names = names
        self._contenders: dict[tuple[str, bool], Contender] = {}
        self._certificate: Certificate | None = None

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        self._users = self.useFixture(HelperProcess('proxy.users'))
        self._guests = self.useFixture(HelperProcess('proxy.guests'))
        self._ports: dict[str, int] = json.loads(self._guests.read())
        if 'consoled' in self._names:
            self._log('starting a cell')
            self._cell = self.useFixture(CellServices(self._ports))

    def _new(self, name: str, ports: Ports, tls: bool = False) -> Contender:
        if tls and self._certificate is None:
            self._certificate = self.useFixture(Certificate())
        certificate = self._certificate if tls else None
        if name == 'raw':
            return DirectTCP(ports)
        if name == 'websockify':
            return Websockify(ports, certificate)
        return Consoled(self._cell, certificate)

    def _new_for_crowd(self, name: str) -> Contender:
        """Return a new contender, whose memory has not grown yet."""
        return self._new(name, {'crowd': self._ports['crowd']})

    def _contender(self, name: str, tls: bool) -> Contender:
        """Return the contender that takes part in all runs."""
        key = name, tls
        if key not in self._contenders:
            self._contenders[key] = self.useFixture(self._new(name, self._ports, tls))
        return self._contenders[key]

    def _cpu(self, contender: Contender) -> dict[str, float]:
        used = dict.fromkeys(PARTS, 0.0) | {
            'client': tree_cpu(self._users.pid),
            'target': tree_cpu(self._guests.pid),
        }
        return used | contender.cpu()

    def _counted(
        self, contender: Contender, call: Callable[[], dict[str, Any]]
    ) -> tuple[dict[str, Any], dict[str, float], float]:
        """Return the call's result, CPU seconds by part, and the share that other processes used."""
        before, machine, own = self._cpu(contender), machine_cpu(), time.process_time()
        started = time.perf_counter()
        result = call()
        elapsed = time.perf_counter() - started
        after, machine = self._cpu(contender), machine_cpu() - machine
        own = time.process_time() - own
        used = {part: after[part] - before[part] for part in PARTS}
        other = max(0.0, machine - sum(used.values()) - own) / (elapsed * (os.cpu_count() or 1))
        return result, used, other

    def measure(self, name: str, contender_name: str, seconds: float, **run: Any) -> ProxySample:
        """Run an operation briefly to warm up, then for ``seconds`` while all CPU is measured."""
        operation = OPERATIONS[name]
        contender = self._contender(contender_name, operation.tls)
        self._open(contender, operation.users, operation.guest)
        self._users.ask(run={'seconds': _WARM_UP, **run})
        self._drained(contender, operation)

        def call() -> dict[str, Any]:
            result = self._users.ask(run={'seconds': seconds, **run})
            return result | {'settled': self._drained(contender, operation)}

        result, used, other = self._counted(contender, call)
        closed = self._users.ask(close={})
        if operation.guest == 'sink':
            self._check_sink(closed)
        count = result['count'] / operation.scale
        return ProxySample(
            count=count,
            seconds=result['seconds'],
            p50=result.get('p50'),
            p99=result.get('p99'),
            cpu={part: spent / count for part, spent in used.items()},
            other=other,
            settled=result['settled'],
        )

    def _open(self, contender: Contender, users: str, guest: str, **how: Any) -> dict[str, Any]:
        routes = [dataclasses.asdict(route) for route in contender.routes(guest)]
        return self._users.ask(open=users, routes=routes, **how)

    def _check_sink(self, sent: dict[str, Any]) -> None:
        got = self._guests.ask()
        if got != {'received': sent['count'], 'intact': True}:
            raise RuntimeError(f'{sent["count"]} bytes sent, at the guest: {got}')

    @staticmethod
    def _drained(contender: Contender, operation: Operation) -> float:
        """Wait until all sessions are over, and return how many seconds that took."""
        if operation.users != 'opens':
            return 0.0
        started = time.perf_counter()
        wait_until(contender.is_idle, timeout=120, what='end of the sessions')
        return time.perf_counter() - started

    def memory(self, name: str, sessions: int) -> MemorySample:
        """Measure a new contender before and while it holds idle sessions that have been used once."""
        with self._new_for_crowd(name) as contender:
            self._crowd(contender, _WARM_UP_SESSIONS)
            self._users.ask(close={})
            wait_until(contender.is_idle, timeout=60, what='end of the first sessions')
            time.sleep(_SETTLE)
            before = contender.memory()
            self._crowd(contender, sessions)
            time.sleep(_SETTLE)
            after = contender.memory()
            self._users.ask(close={})
            wait_until(contender.is_idle, timeout=120, what='end of the sessions')
        return MemorySample(sessions, before, after)

    def _crowd(self, contender: Contender, sessions: int) -> dict[str, Any]:
        opened = self._open(contender, 'crowd', 'crowd', count=sessions)
        if opened['alive'] < sessions:
            raise RuntimeError(f'{sessions} sessions opened, {opened["alive"]} alive: {opened["closed"][:3]}')
        return opened

    def capacity(self, idle: int, active: int, pace: float, seconds: float) -> dict[str, Any]:
        """Measure a new proxy while it holds idle and active sessions, each used before and after."""
        with self._new_for_crowd('consoled') as contender:
            empty = contender.memory()
            opened = self._crowd(contender, idle + active)
            self._log(f'{idle + active} sessions opened in {opened["seconds"]:.0f} s')
            run = {'seconds': seconds, 'active': active, 'pace': pace}
            held, used, other = self._counted(contender, lambda: self._users.ask(run=run))
            memory = contender.memory()
            checked = self._users.ask(check={})
            self._users.ask(close={})
        return {
            'idle': idle,
            'active': active,
            'pace': pace,
            'opening': opened['seconds'],
            'empty': empty,
            'memory': memory,
            'cpu': {part: spent / held['seconds'] for part, spent in used.items()},
            'other': other,
            'alive': checked['alive'],
            'wrong': held.pop('wrong') + checked['wrong'],
            'closed': checked['closed'],
            **{name: held[name] for name in ('planned', 'sent', 'count', 'seconds', 'late', 'p50', 'p99')},
        }
