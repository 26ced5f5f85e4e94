# SPDX-License-Identifier: Apache-2.0
"""A process of simulated compute hosts: ``python -m tests.bench.hosts.agents JSON``.

What an agent tells the managers is told by its real code: ``Reconciler`` and ``Cleaner``, over the demo
driver. Left out is what would need a thousand machines: each agent's RPC server, and its own connection to
the bus (the hosts of a process share one transport). The driver is asked without ``DeadlineDriver``, whose
threads would compete with those of hundreds of other hosts here.

Reads one JSON command a line, and answers each with one line of JSON:
``{"start": true}`` starts the agents; ``{"churn": R}`` lets R guests a second change from now on;
``{"count": true}`` is answered with what there was up to now.
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
    """The options of a host: those of the process, with its own name. A copy for each would be gigabytes."""

    def __init__(self, conf: cfg.ConfigOpts, host: str) -> None:
        self._conf = conf
        self.host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conf, name)


class Host:
    """One compute host, with an agent that is not started."""

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

    def told(self) -> collections.Counter[str]:
        """How often the managers were told, by ``method code``."""
        return collections.Counter(
            {
                f'{sample.labels["method"]} {sample.labels["code"]}': int(sample.value)
                for family in self.metrics.registry.collect()
                for sample in family.samples
                if sample.name == 'consoled_compute_told_total'
            }
        )


class Churn:
    """Guests that stop, start, and change places with a guest of another host, in turns."""

    def __init__(self, hosts: list[Host], guests: int) -> None:
        self._hosts = hosts
        self._running = {
            (host.number, slot): population.guest(host.number, slot)
            for host in hosts
            for slot in range(guests)
            if not population.stays(slot, guests)
        }
        self._drivers = {host.number: host.driver for host in hosts}
        self._stopped: list[tuple[int, int]] = []
        self.changes = 0

    def run(self, rate: float) -> None:
        """Change ``rate`` guests a second, at random moments, without end."""
        pause = threading.Event()
        while True:
            for change in (self._stop, self._start, self._swap):
                pause.wait(random.expovariate(rate))
                change()

    def _put(self, place: tuple[int, int], guest: demo.Guest, *, running: bool = True) -> None:
        self._drivers[place[0]].put(dataclasses.replace(guest, running=running))
        self.changes += 1

    def _stop(self) -> None:
        place = random.choice(list(self._running))
        self._put(place, self._running[place], running=False)
        self._stopped.append(place)

    def _start(self) -> None:
        place = self._stopped.pop()
        self._put(place, self._running[place])

    def _swap(self) -> None:
        """Two guests move: each gets the other's place, address and ports."""
        places = random.sample(list(self._running), 2)
        before = [self._running[place] for place in places]
        for place, guest in zip(places, before, strict=True):
            self._drivers[place[0]].remove(guest.uuid)
        for place, here, comes in zip(places, before, reversed(before), strict=True):
            moved = dataclasses.replace(comes, host=here.host, consoles=here.consoles)
            self._running[place] = moved
            self._put(place, moved)


def _count(hosts: list[Host], churn: Churn) -> dict[str, Any]:
    told: collections.Counter[str] = collections.Counter()
    for host in hosts:
        told.update(host.told())
    return {'told': told, 'changes': churn.changes}


def main() -> None:
    """Obey commands until standard input is closed."""
    given = json.loads(sys.argv[1])
    logging.getLogger().addHandler(logging.NullHandler())  # what goes wrong is counted
    options = fixtures.Conf(transport_url=given['transport_url'], **given['options'])
    options.setUp()
    transport = get_transport(options.conf)
    hosts = [
        Host(options.conf, transport, number, given['guests'])
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
