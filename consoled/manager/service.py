# SPDX-License-Identifier: Apache-2.0
"""Processes of the manager daemon: workers that answer calls, and one housekeeper."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import signal
import socket

import oslo_messaging
import prometheus_client
import setproctitle
from oslo_config import cfg
from oslo_db import exception as db_exc
from oslo_service import loopingcall, service
from prometheus_client import multiprocess
from sqlalchemy import exc as sa_exc

from consoled import backoff, deadline, exception, monitoring
from consoled.conf import files
from consoled.context import RequestContext
from consoled.db import migration
from consoled.db.engine import Database, unchecked_tls
from consoled.manager import legacy_bridge, nova_bridge, periodic
from consoled.manager.manager import ConsoleAuthManager
from consoled.manager.metrics import Metrics
from consoled.manager.session_cutter import SessionCutter
from consoled.monitoring import Check, MonitoringServer, Readiness, application
from consoled.rpc import server as rpc_server
from consoled.rpc import starting, transport, versions
from consoled.rpc.client import ConsoleAuthAPI, ProxyAPI
from consoled.sources import TokenSource
from consoled.systemd import Notifier

LOG = logging.getLogger(__name__)

# A manager counts as alive for ``managers.ALIVE_WITHIN`` seconds, so two heartbeats in a row may be lost.
_HEARTBEAT_INTERVAL = 55.0  # seconds

_BRIDGE_TIMEOUT = 10.0  # seconds that a starting worker waits for the bus of the old service's callers
_LOOK_TIMEOUT = 5.0  # seconds that a database has to say whose it is
_READY_TIMEOUT = 2.0  # seconds that a worker has to answer the readiness check


def prepare(conf: cfg.ConfigOpts) -> socket.socket | None:
    """Check the options before any process is started, and bind the address of the monitoring.

    :returns: the socket of the monitoring; None if there is none
    :raises ValueError: an option is not set, or cannot be used; the text names it. Or the database is another
        program's
    :raises OSError: the address of the monitoring is in use, or not of this machine
    """
    versions.pinned(conf.upgrade_levels.consoled)
    versions.pinned(conf.upgrade_levels.compute)
    risks = transport.check(conf)
    db = Database.from_conf(conf)
    risks += unchecked_tls(conf.database.connection)
    for risk in [*risks, *legacy_bridge.check_conf(conf), *nova_bridge.check_conf(conf)]:
        LOG.warning('%s', risk)
    _refuse_foreign(db)
    return monitoring.bind(conf.monitoring)


def _refuse_foreign(db: Database) -> None:
    """Refuse another program's database. One that does not answer now is looked at later, and waited for.

    :raises ValueError: it is another program's
    """
    try:
        tables = deadline.call(lambda: migration.foreign_tables(db), _LOOK_TIMEOUT)
    except (deadline.DeadlineExceeded, exception.DatabaseUnavailable, db_exc.DBError, sa_exc.DBAPIError):
        return
    finally:
        db.dispose()  # the processes have connections of their own
    if tables:
        raise ValueError(migration.describe_foreign(tables))


def build_rpc_server(
    conf: cfg.ConfigOpts, connection: oslo_messaging.RPCTransport, endpoint: ConsoleAuthManager
) -> oslo_messaging.RPCServer:
    """Return the RPC server of a manager, not started."""
    return rpc_server.get_server(connection, versions.TOPIC, conf.host, [endpoint])


class _DaemonProcess(service.ServiceBase):  # type: ignore[misc]  # untyped
    """A process of the daemon.

    ``start`` runs after the fork and acquires everything the process uses, because connections must not be
    shared. ``stop`` releases it; the eventlet launcher also stops services that it has never started.
    """

    title: str

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._resources = contextlib.ExitStack()
        self._started = False

    def start(self) -> None:
        """Connect to the database and the bus, then ``run``."""
        self._started = True
        setproctitle.setproctitle(f'consoled: {self.title}')
        self._db = Database.from_conf(self._conf)
        self._resources.callback(self._db.dispose)
        self._transport = transport.get_transport(self._conf)
        self._resources.callback(self._transport.cleanup)
        self.run()

    def run(self) -> None:
        """Start the threads of this process and return."""
        raise NotImplementedError

    def stop(self) -> None:
        """Finish the calls in flight and release everything, within ``graceful_shutdown_timeout``.

        The library waits without limit for an unreachable bus. The threading launcher sets such a limit for
        each process, the eventlet launcher only for the master, whose workers would stay behind.
        """
        if self._started:
            signal.alarm(self._conf.graceful_shutdown_timeout)
        self._resources.close()

    def wait(self) -> None:
        """Return at once: threads do the work, and the launcher waits for signals."""

    def reset(self) -> None:
        """Do nothing on a reload: options are read where they are used."""


class ManagerWorker(_DaemonProcess):
    """A process that answers calls.

    :param notifier: notifies systemd when the worker consumes messages, and then at intervals
    :param monitoring_socket: the housekeeper's, which the fork has copied
    """

    title = 'worker'

    def __init__(
        self, conf: cfg.ConfigOpts, notifier: Notifier, monitoring_socket: socket.socket | None = None
    ) -> None:
        super().__init__(conf)
        self._notifier = notifier
        self._monitoring_socket = monitoring_socket

    def run(self) -> None:
        if self._monitoring_socket is not None:
            self._monitoring_socket.close()
        sources: list[TokenSource] = []
        endpoint = ConsoleAuthManager.from_conf(self._conf, self._transport, self._db, sources)
        sources += nova_bridge.sources_from_conf(self._conf, self._transport, endpoint.observe_lookup)
        server = starting.start(lambda: build_rpc_server(self._conf, self._transport, endpoint))
        self._resources.callback(rpc_server.drain, server)
        self._bridge = legacy_bridge.LegacyBridge(self._conf, self._transport, endpoint, sources)
        self._resources.callback(self._bridge.end)
        # The old service's callers may have a bus of their own. While it is down, the cell's are answered.
        self._bridge.follow().join(_BRIDGE_TIMEOUT)
        # Everything loaded so far stays. Without this, each full collection would scan it, for 0.1 s.
        gc.freeze()
        facts = {'bus': transport.addresses(self._conf), 'database': self._db.address}
        LOG.info('Ready: %s', files.identity(self._conf, **facts))
        self._notifier.ready()
        if self._notifier.interval is not None:
            watchdog = loopingcall.FixedIntervalLoopingCall(self._notifier.alive)
            watchdog.start(self._notifier.interval)
            self._resources.callback(watchdog.stop)

    def reset(self) -> None:
        """Switch the legacy bridge on or off as the reloaded option says."""
        if self._started:
            self._bridge.follow()


class Housekeeper(_DaemonProcess):
    """The one process of a manager that sweeps, sends heartbeats, watches, and serves metrics and health.

    :param monitoring_socket: from ``monitoring.bind``, before the fork; None if there is no monitoring
    """

    title = 'housekeeper'

    def __init__(self, conf: cfg.ConfigOpts, monitoring_socket: socket.socket | None) -> None:
        super().__init__(conf)
        self._monitoring_socket = monitoring_socket

    def run(self) -> None:
        self._sweep = periodic.Sweep(self._conf, self._db)
        sweeps = loopingcall.DynamicLoopingCall(self._sweep_once)
        sweeps.start(initial_delay=self._next_sweep(), stop_on_exception=False)
        self._resources.callback(sweeps.stop)
        self._heartbeat = periodic.Heartbeat(self._conf, self._db)
        self._resources.callback(self._heartbeat.end)
        heartbeats = loopingcall.DynamicLoopingCall(self._send_heartbeat)
        heartbeats.start(stop_on_exception=False)
        self._resources.callback(heartbeats.stop)
        self._watch_sessions()
        if self._monitoring_socket is not None:
            http = self._monitoring(self._monitoring_socket)
            http.start()
            self._resources.callback(http.stop)
        migration.warn_if_behind(self._db)

    def _watch_sessions(self) -> None:
        cutter = SessionCutter(ProxyAPI(self._transport))
        watch = nova_bridge.watch_from_conf(self._conf, self._db, cutter, Metrics(self._conf.cell.name))
        if watch is not None:
            self._resources.callback(watch.end)
            passes = loopingcall.DynamicLoopingCall(watch.run)
            passes.start(stop_on_exception=False)
            self._resources.callback(passes.stop)

    def _next_sweep(self) -> float:
        return backoff.jittered(self._conf.manager.sweep_interval)

    def _sweep_once(self) -> float:
        self._sweep.run()
        return self._next_sweep()

    def _send_heartbeat(self) -> float:
        self._heartbeat.send()
        return backoff.jittered(_HEARTBEAT_INTERVAL)

    def _monitoring(self, sock: socket.socket) -> MonitoringServer:
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        client = ConsoleAuthAPI(self._transport)
        checks: dict[str, Check] = {
            'bus': functools.partial(client.ping, RequestContext(), self._conf.host, _READY_TIMEOUT),
            'database': self._db.ping,
        }
        options = self._conf.monitoring
        app = application(registry, Readiness(checks))
        return MonitoringServer(options.host, options.port, app, sock)
