# SPDX-License-Identifier: Apache-2.0
"""A process that simulates compute hosts: ``python -m tests.bench.hosts.agents JSON``.

The agents' real code reports to the managers: ``Reconciler`` and ``Cleaner``, with the demo driver. Omitted
is whatever would need a thousand machines: each agent's RPC server, and its own connection to the bus (the
hosts of a process share one transport). The driver is called without ``DeadlineDriver``, whose threads would
compete with those of hundreds of other hosts.

The process reads one JSON command a line and answers each with one line of JSON: ``{"start": true}`` starts
the agents; ``{"churn": R}`` changes R guests per second from then on; ``{"count": true}`` returns the reports
and changes so far.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import random
import sys
import threading
from typing import Any

import oslo_messaging
from oslo_config import cfg

from consoled.compute.cleaner import Cleaner
from consoled.compute.drivers import demo
from consoled.compute.metrics import Metrics
from consoled.compute.port_conflicts import PortConflicts
from consoled.compute.reconciler import Reconciler
from consoled.compute.reporter import Reporter
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures
from tests.bench.hosts import population

_CELL = 'bench'


class _HostConf:
    """The process's options with a host's own name. A copy for each host would take gigabytes."""

    def __init__(self, conf: cfg.ConfigOpts, host: str) -> None:
        self._conf = conf
        self.host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conf, name)


class SimulatedHost:
    """A compute host with its guests and its agent, which is not started yet."""

    def __init__(
        self, conf: cfg.ConfigOpts, transport: oslo_messaging.RPCTransport, number: int, guests: int
    ) -> None:
        own: Any = _HostConf(conf, population.compute_host(number))
        manager = ConsoleAuthAPI(transport)
        self.number = number
        self.driver = demo.DemoDriver(own.host, [population.guest(number, slot) for slot in range(guests)])
        self.metrics = Metrics(_CELL)
        self._reconciler = Reconciler(
            own,
            self.driver,
            Reporter(own, manager, self.metrics),
            PortConflicts(self.driver),
            self.metrics,
        )
        self._cleaner = Cleaner(own, manager)

    def start(self) -> None:
        self.driver.watch(self._reconciler.enqueue)
        self._reconciler.start()
        self._cleaner.start()

    def reports(self) -> collections.Counter[str]:
        """Return the number of reports to the managers, by ``METHOD CODE``."""
        return collections.Counter(
            {
                f'{sample.labels["method"]} {sample.labels["code"]}': int(sample.value)
                for family in self.metrics.registry.collect()
                for sample in family.samples
                if sample.name == 'consoled_compute_told_total'
            }
        )


class Churn:
    """Stops a guest, starts one, and swaps two guests between hosts, in turn."""

    def __init__(self, hosts: list[SimulatedHost], guests: int) -> None:
        self._hosts = hosts
        self._running = {
            (host.number, slot): population.guest(host.number, slot)
            for host in hosts
            for slot in range(guests)
            if not population.is_stationary(slot, guests)
        }
        self._drivers = {host.number: host.driver for host in hosts}
        self._stopped: list[tuple[int, int]] = []
        self.changes = 0

    def run(self, rate: float) -> None:
        """Change ``rate`` guests per second at random moments, forever."""
        pause = threading.Event()
        while True:
            for change in (self._stop, self._start, self._swap):
                pause.wait(random.expovariate(rate))
                change()

    def _put(self, slot: tuple[int, int], guest: demo.Guest, *, running: bool = True) -> None:
        self._drivers[slot[0]].put(dataclasses.replace(guest, running=running))
        self.changes += 1

    def _stop(self) -> None:
        slot = random.choice(list(self._running))
        self._put(slot, self._running[slot], running=False)
        self._stopped.append(slot)

    def _start(self) -> None:
        slot = self._stopped.pop()
        self._put(slot, self._running[slot])

    def _swap(self) -> None:
        """Move two guests: each gets the other's slot, address and ports."""
        slots = random.sample(list(self._running), 2)
        before = [self._running[slot] for slot in slots]
        for slot, guest in zip(slots, before, strict=True):
            self._drivers[slot[0]].remove(guest.uuid)
        for slot, old, new in zip(slots, before, reversed(before), strict=True):
            moved = dataclasses.replace(new, host=old.host, consoles=old.consoles)
            self._running[slot] = moved
            self._put(slot, moved)


def _count(hosts: list[SimulatedHost], churn: Churn) -> dict[str, Any]:
    reports: collections.Counter[str] = collections.Counter()
    for host in hosts:
        reports.update(host.reports())
    return {'reports': reports, 'changes': churn.changes}


def main() -> None:
    """Execute commands until standard input is closed."""
    given = json.loads(sys.argv[1])
    logging.getLogger().addHandler(logging.NullHandler())  # failures are counted instead
    options = fixtures.Conf(transport_url=given['transport_url'], **given['options'])
    options.setUp()
    transport = get_transport(options.conf)
    hosts = [
        SimulatedHost(options.conf, transport, number, given['guests'])
        for number in range(given['first'], given['first'] + given['hosts'])
    ]
    churn = Churn(hosts, given['guests'])
    print('ready', flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if 'start' in command:
            for host in hosts:
                host.start()
        elif 'churn' in command:
            threading.Thread(target=churn.run, args=(command['churn'],), daemon=True).start()
        else:
            answer = _count(hosts, churn)
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
