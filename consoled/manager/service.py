# SPDX-License-Identifier: Apache-2.0
"""The wiring of a manager: its workers, and the housekeeper beside them."""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Callable

import oslo_messaging
import prometheus_client
from oslo_config import cfg
from oslo_service import loopingcall, service
from prometheus_client import multiprocess

from consoled.context import RequestContext
from consoled.db import migration
from consoled.db.session import Database
from consoled.manager import periodic
from consoled.manager.manager import ConsoleAuthManager
from consoled.manager.metrics import Metrics
from consoled.monitoring import MonitoringServer, Readiness, application
from consoled.rpc import server as rpc_server
from consoled.rpc import versions
from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI, ProxyAPI
from consoled.rpc.transport import get_transport

LOG = logging.getLogger(__name__)

_READY_TIMEOUT = 2.0  # seconds a worker has to answer the readiness check


def database(conf: cfg.ConfigOpts) -> Database:
    """The cell's database as configured, one connection for each thread that answers calls.

    :raises cfg.RequiredOptError: ``[database] connection`` is not set
    """
    if not conf.database.connection:
        raise cfg.RequiredOptError('connection', cfg.OptGroup('database'))
    return Database(
        conf.database.connection,
        pool_size=conf.executor_thread_pool_size,
        recycle=conf.database.connection_recycle_time,
        retry_time=conf.database.retry_time,
    )


def rpc_server_of(
    conf: cfg.ConfigOpts, transport: oslo_messaging.RPCTransport, db: Database
) -> oslo_messaging.RPCServer:
    """Compose a manager's RPC server, not started."""
    compute = ComputeConsoleAPI(transport, level=conf.upgrade_levels.compute)
    endpoint = ConsoleAuthManager(conf, db, compute, ProxyAPI(transport), Metrics(conf.cell.name))
    return rpc_server.get_server(transport, versions.TOPIC, conf.host, [endpoint])


class Worker(service.ServiceBase):  # type: ignore[misc]
    """One process that answers calls.

    Everything it holds is made in ``start``, after the fork: a connection must not be shared.

    :param ready: told once the worker consumes
    """

    def __init__(self, conf: cfg.ConfigOpts, ready: Callable[[], None]) -> None:
        self._conf = conf
        self._ready = ready

    def start(self) -> None:
        self._db = database(self._conf)
        self._transport = get_transport(self._conf)
        self._server = rpc_server_of(self._conf, self._transport, self._db)
        self._server.start()
        self._ready()

    def stop(self) -> None:
        """Stop consuming, finish what is in flight, let go."""
        self._server.stop()
        self._server.wait()
        self._transport.cleanup()
        self._db.dispose()

    def wait(self) -> None:
        """The server's threads do the work; the launcher waits for signals."""

    def reset(self) -> None:
        """Options are read where they are used, so a reload has nothing to do here."""


class Housekeeper(service.ServiceBase):  # type: ignore[misc]
    """The one process of a manager that sweeps, and serves metrics and health."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._monitoring: MonitoringServer | None = None

    def start(self) -> None:
        self._db = database(self._conf)
        self._transport = get_transport(self._conf)
        self._sweep = periodic.Sweep(self._conf, self._db)
        self._loop = loopingcall.DynamicLoopingCall(self._sweep_once)
        self._loop.start(initial_delay=self._next_sweep(), stop_on_exception=False)
        if self._conf.monitoring.port:
            self._monitoring = self._monitor()
            self._monitoring.start()
        migration.warn_if_behind(self._db)

    def _next_sweep(self) -> float:
        interval: float = self._conf.manager.sweep_interval
        return interval * random.uniform(0.9, 1.1)  # noqa: S311 - not for a secret

    def _sweep_once(self) -> float:
        self._sweep.run()
        return self._next_sweep()

    def _monitor(self) -> MonitoringServer:
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        client = ConsoleAuthAPI(self._transport)
        checks = {
            'bus': functools.partial(client.ping, RequestContext(), self._conf.host, _READY_TIMEOUT),
            'database': self._db.ping,
        }
        options = self._conf.monitoring
        return MonitoringServer(options.host, options.port, application(registry, Readiness(checks)))

    def stop(self) -> None:
        self._loop.stop()
        if self._monitoring is not None:
            self._monitoring.stop()
        self._transport.cleanup()
        self._db.dispose()

    def wait(self) -> None:
        """As for the worker."""

    def reset(self) -> None:
        """As for the worker."""
