# SPDX-License-Identifier: Apache-2.0
"""The wiring of a manager: its workers, and the housekeeper beside them."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import signal
import threading
from collections.abc import Sequence

import oslo_messaging
import prometheus_client
import setproctitle
from oslo_config import cfg
from oslo_service import loopingcall, service
from prometheus_client import multiprocess

from consoled import backoff
from consoled.context import RequestContext
from consoled.db import migration
from consoled.db.session import Database
from consoled.manager import periodic
from consoled.manager.manager import ConsoleAuthManager
from consoled.manager.metrics import Metrics
from consoled.monitoring import Check, MonitoringServer, Readiness, application
from consoled.notify import Notifier
from consoled.rpc import server as rpc_server
from consoled.rpc import versions
from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI, ProxyAPI
from consoled.rpc.transport import get_transport
from consoled.sources import TokenSource

LOG = logging.getLogger(__name__)

# A manager counts as alive for ``managers.ALIVE_WITHIN`` seconds: two of them may be lost.
_HEARTBEAT_INTERVAL = 55.0  # seconds

_MOVE_TIME = 10.0  # seconds that a worker waits for the bus of the old service's callers at most
_READY_TIMEOUT = 2.0  # seconds a worker has to answer the readiness check


def endpoint_of(
    conf: cfg.ConfigOpts,
    transport: oslo_messaging.RPCTransport,
    db: Database,
    sources: Sequence[TokenSource] = (),
) -> ConsoleAuthManager:
    """Compose what answers a manager's calls.

    :param sources: where tokens may live besides the database
    """
    compute = ComputeConsoleAPI(transport, level=conf.upgrade_levels.compute)
    return ConsoleAuthManager(conf, db, compute, ProxyAPI(transport), Metrics(conf.cell.name), sources)


def rpc_server_of(
    conf: cfg.ConfigOpts, transport: oslo_messaging.RPCTransport, endpoint: ConsoleAuthManager
) -> oslo_messaging.RPCServer:
    """A manager's RPC server, not started."""
    return rpc_server.get_server(transport, versions.TOPIC, conf.host, [endpoint])


class _DaemonProcess(service.ServiceBase):  # type: ignore[misc]
    """A process of the daemon.

    Everything it holds is made in ``start``, after the fork: a connection must not be shared. What is on the
    stack is let go in ``stop``; the eventlet launcher also stops services it never started.
    """

    title: str

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._held = contextlib.ExitStack()
        self._started = False

    def start(self) -> None:
        self._started = True
        setproctitle.setproctitle(f'consoled: {self.title}')
        self._db = Database.from_conf(self._conf)
        self._held.callback(self._db.dispose)
        self._transport = get_transport(self._conf)
        self._held.callback(self._transport.cleanup)
        self.run()

    def run(self) -> None:
        """Start what this process is for."""
        raise NotImplementedError

    def stop(self) -> None:
        """Finish and let go, for ``graceful_shutdown_timeout`` at most.

        With the bus away the library would wait for it. The threading launcher has such a limit for each
        process; the eventlet one has it for the master only, whose workers would stay behind for ever.
        """
        if self._started:
            signal.alarm(self._conf.graceful_shutdown_timeout)
        self._held.close()

    def wait(self) -> None:
        """Threads do the work; the launcher waits for signals."""

    def reset(self) -> None:
        """Options are read where they are used, so a reload has nothing to do here."""


def check_legacy(conf: cfg.ConfigOpts) -> None:
    """Check what ``[workarounds] enable_consoleauth`` needs, if it is on.

    :raises ImportError: a library is missing (the extra ``legacy``)
    :raises ValueError: the options of ``[cache]`` make no sense
    """
    if conf.workarounds.enable_consoleauth:
        from consoled.legacy import setup

        setup.source_from_conf(conf)


class LegacyBridge:
    """What ``[workarounds] enable_consoleauth`` is for: begun and ended as the option says.

    :param sources: of the endpoint; has the old service's tokens while the option is on
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        transport: oslo_messaging.RPCTransport,
        endpoint: ConsoleAuthManager,
        sources: list[TokenSource],
    ) -> None:
        self._conf = conf
        self._transport = transport
        self._endpoint = endpoint
        self._sources = sources
        self._held = contextlib.ExitStack()
        self._ended = False
        self._turn = threading.Lock()

    def follow(self) -> threading.Thread:
        """Do what the option says now, in a thread: a signal that comes meanwhile would end an eventlet
        worker, whose launcher handles none until ``reset`` returns."""
        thread = threading.Thread(target=self._follow, name='move', daemon=True)
        thread.start()
        return thread

    def end(self) -> None:
        """Answer no more old calls. Those of today that are in flight still find the old tokens."""
        with self._turn:
            self._ended = True
            self._held.close()

    def _follow(self) -> None:
        with self._turn:
            wanted = self._conf.workarounds.enable_consoleauth
            try:
                if wanted and not self._sources and not self._ended:
                    self._begin()
                elif self._sources and not wanted:
                    self._held.close()
                    self._sources.clear()
            except Exception:
                # the cell's own calls are not to suffer
                LOG.exception('[workarounds] enable_consoleauth could not be followed')

    def _begin(self) -> None:
        from consoled.legacy import setup

        self._sources.append(setup.source_from_conf(self._conf, self._endpoint.observe_lookup))
        try:
            setup.start_server(self._conf, self._transport, self._endpoint, self._held)
        except Exception:
            self._held.close()
            self._sources.clear()
            raise


class ManagerWorker(_DaemonProcess):
    """A process that answers calls.

    :param notifier: told once the worker consumes, and that it lives
    """

    title = 'worker'

    def __init__(self, conf: cfg.ConfigOpts, notifier: Notifier) -> None:
        super().__init__(conf)
        self._notifier = notifier

    def run(self) -> None:
        self._sources: list[TokenSource] = []
        self._endpoint = endpoint_of(self._conf, self._transport, self._db, self._sources)
        server = rpc_server_of(self._conf, self._transport, self._endpoint)
        server.start()
        self._held.callback(rpc_server.drain, server)
        self._move = LegacyBridge(self._conf, self._transport, self._endpoint, self._sources)
        self._held.callback(self._move.end)
        # The old service's callers may have a bus of their own, that is away: ours are answered all the same.
        self._move.follow().join(_MOVE_TIME)
        # What is loaded by now stays: without this, each full collection would look at all of it, for 0.1 s.
        gc.freeze()
        self._notifier.ready()
        if self._notifier.interval is not None:
            living = loopingcall.FixedIntervalLoopingCall(self._notifier.alive)
            living.start(self._notifier.interval)
            self._held.callback(living.stop)

    def reset(self) -> None:
        if self._started:
            self._move.follow()


class Housekeeper(_DaemonProcess):
    """The one process of a manager that sweeps, tells that it lives, and serves metrics and health."""

    title = 'housekeeper'

    def run(self) -> None:
        self._sweep = periodic.Sweep(self._conf, self._db)
        loop = loopingcall.DynamicLoopingCall(self._sweep_once)
        loop.start(initial_delay=self._next_sweep(), stop_on_exception=False)
        self._held.callback(loop.stop)
        self._heartbeat = periodic.Heartbeat(self._conf, self._db)
        self._held.callback(self._heartbeat.end)
        heartbeats = loopingcall.DynamicLoopingCall(self._send_heartbeat)
        heartbeats.start(stop_on_exception=False)
        self._held.callback(heartbeats.stop)
        if self._conf.monitoring.port:
            monitoring = self._monitoring()
            monitoring.start()
            self._held.callback(monitoring.stop)
        migration.warn_if_behind(self._db)

    def _next_sweep(self) -> float:
        return backoff.jittered(self._conf.manager.sweep_interval)

    def _sweep_once(self) -> float:
        self._sweep.run()
        return self._next_sweep()

    def _send_heartbeat(self) -> float:
        self._heartbeat.send()
        return backoff.jittered(_HEARTBEAT_INTERVAL)

    def _monitoring(self) -> MonitoringServer:
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        client = ConsoleAuthAPI(self._transport)
        checks: dict[str, Check] = {
            'bus': functools.partial(client.ping, RequestContext(), self._conf.host, _READY_TIMEOUT),
            'database': self._db.ping,
        }
        options = self._conf.monitoring
        return MonitoringServer(options.host, options.port, application(registry, Readiness(checks)))
