# SPDX-License-Identifier: Apache-2.0
"""nova-novncproxy and consoled, in front of the same Nova and the same guest."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import fixtures
import psutil

from consoled.testing import services
from consoled.testing.daemons import ManagerProcess, ProxyProcess
from tests.bench.processes import HelperProcess, tree_cpu
from tests.bench.proxy.frames import Route
from tests.nova import base, stock

TOKENS = 200
_TIMEOUT = 60  # of nova.conf's rpc_response_timeout: the default
_LIMITS = {
    'max_sessions': 20000,
    'max_sessions_per_address': 20000,
    'max_connections': 20000,
    'max_connections_per_address': 20000,
    'max_failed_tokens': 100000,
    'authorize_timeout': _TIMEOUT,
}


class Contender(fixtures.Fixture):
    """A proxy that users of Nova's consoles connect to.

    :ivar port: for users
    """

    port: int

    def __init__(self, nova: base.Nova, tokens: list[str]) -> None:
        super().__init__()
        self._nova = nova
        self._tokens = tokens

    def routes(self) -> list[Route]:
        return [Route(self.port, f'/websockify?token={token}') for token in self._tokens]

    def bad_route(self) -> Route:
        """Return a route with a token that nobody has made."""
        return Route(self.port, f'/websockify?token={uuid.uuid4()}')

    def pids(self) -> list[int]:
        """Return the parent processes."""
        raise NotImplementedError

    def cpu(self) -> float:
        """Return the CPU seconds that its processes have used."""
        return sum(map(tree_cpu, self.pids()))

    def memory(self) -> dict[str, int]:
        """Return the bytes of memory of its processes: ``rss``, and ``pss``, with shared pages divided."""
        total = {'rss': 0, 'pss': 0}
        for pid in self.pids():
            top = psutil.Process(pid)
            for process in [top, *top.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    used = process.memory_full_info()
                    total = {name: size + getattr(used, name) for name, size in total.items()}
        return total


class Novncproxy(Contender):
    """A stock nova-novncproxy, which forks for each connection."""

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        proxy = self.useFixture(stock.NovncProxy(self._nova))
        self.port, self._pid = proxy.port, proxy.pid

    def pids(self) -> list[int]:
        return [self._pid]


class Consoled(Contender):
    """A manager with one worker and a proxy with one, on the bus of Nova, with a database of their own."""

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        manager: dict[str, Any] = {'workers': 1, 'max_sessions_per_token': 0, 'max_sessions_per_instance': 0}
        manager['check_port_timeout'] = _TIMEOUT / 2  # the machine may be busy
        self._manager = self.useFixture(
            ManagerProcess(
                self._nova.bus,
                services.shared(services.MariaDB).new_database(),
                {'nova': {'connection': self._nova.reader}, 'manager': manager},
            )
        )
        self._proxy = self.useFixture(ProxyProcess(self._nova.bus, {'proxy': _LIMITS}))
        self._proxy.wait_ready()
        self.port = self._proxy.port

    def pids(self) -> list[int]:
        return [self._manager.pid, self._proxy.pid]


CONTENDERS = {'nova-novncproxy': Novncproxy, 'consoled': Consoled}


class Cell(fixtures.Fixture):
    """A Nova with a guest, and the contenders by name."""

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        nova = self.useFixture(base.Nova(rpc_response_timeout=_TIMEOUT))
        port = int(self.useFixture(HelperProcess('nova.guest')).read())
        instance = nova.add_guest(vnc=port, address='127.0.0.1')
        tokens = [nova.authorize(instance, port=port, host='127.0.0.1', ttl=86400) for _ in range(TOKENS)]
        self.shared = {
            'nova-compute': lambda: tree_cpu(nova.compute.pid),
            'broker': services.shared(services.RabbitMQ).server_cpu,
            'database': services.shared(services.MariaDB).cpu,
        }
        self.contenders: dict[str, Contender] = {
            name: self.useFixture(kind(nova, tokens)) for name, kind in CONTENDERS.items()
        }
