# SPDX-License-Identifier: Apache-2.0
"""Processes of the proxy daemon: workers that serve users, and a monitor for metrics and health.

They are supervised by cotyledon directly, not by oslo.service's launcher, which uses it too: on SIGHUP, the
launcher replaces the workers, which would end every session. A worker here only reads its files again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import logging
import multiprocessing
import os
import pathlib
import socket
import threading
from collections.abc import Iterable
from typing import Any

import cotyledon
import prometheus_client
import setproctitle
from oslo_config import cfg
from prometheus_client import multiprocess

from consoled import listening, monitoring
from consoled.conf import files
from consoled.monitoring import MonitoringServer, Readiness, application
from consoled.proxy import audit, certificates, listener, server, targets
from consoled.proxy.pages import Pages
from consoled.rpc import transport, versions
from consoled.systemd import Notifier

LOG = logging.getLogger(__name__)

_TITLE = 'consoled-proxy'
_GC_THRESHOLDS = (20000, 20, 50)
_KILL_AFTER = 5  # seconds after graceful_shutdown_timeout until a process that hangs is killed


@dataclasses.dataclass(frozen=True)
class Inherited:
    """Objects that are created in the master process and inherited by all workers.

    :ivar monitoring_socket: None if there is no monitoring
    :ivar reloaded: set by the first SIGHUP; a worker that starts later reads the files itself
    """

    conf: cfg.ConfigOpts
    sockets: list[socket.socket]
    pages: Pages
    monitoring_socket: socket.socket | None = None
    reloaded: threading.Event = dataclasses.field(default_factory=threading.Event)


def prepare(conf: cfg.ConfigOpts) -> Inherited:
    """Check the configuration, read the pages and bind the sockets.

    :raises OSError: when an address cannot be bound
    :raises ValueError: when an option is invalid, or a file cannot be used
    """
    server.policy_from_conf(conf)
    targets.Connector.from_conf(conf)
    tls = certificates.user_context(conf)
    versions.pinned(conf.upgrade_levels.consoled)
    for risk in [*transport.check(conf), *audit.check(conf), *_risks(conf, secure=tls is not None)]:
        LOG.warning('%s', risk)
    return Inherited(
        conf, listener.bind_sockets(conf), Pages.from_conf(conf), monitoring.bind(conf.monitoring)
    )


def _risks(conf: cfg.ConfigOpts, *, secure: bool) -> list[str]:
    """Return a sentence if users may be served in plain text over a network."""
    exposed = [address for address in listener.addresses(conf) if not listening.is_loopback(address[0])]
    if not exposed or (secure and conf.proxy.ssl_only):
        return []
    where = ', '.join(map(listening.show_address, exposed))
    why, advice = ('ssl_only is false', 'Set it to true') if secure else ('ssl_cert is not set', 'Set it')
    risk = (
        f'[proxy] {why}: users reach {where} without TLS, so tokens and consoles can be read on the way. '
        f'{advice}, or let only a web server with TLS reach {where}.'
    )
    return [risk]


def run(shared: Inherited, notifier: Notifier) -> None:
    """Run the processes until SIGTERM.

    :param notifier: used by the workers to notify systemd that they serve users, and its watchdog
    """
    conf = shared.conf
    master = cotyledon.ServiceManager(
        graceful_shutdown_timeout=conf.graceful_shutdown_timeout + 2 * _KILL_AFTER,
        mp_context=multiprocessing.get_context('fork'),  # workers inherit sockets and options unchanged
    )
    master.add(ProxyWorker, workers=conf.proxy.workers, args=(shared, notifier))
    if shared.monitoring_socket is not None:
        master.add(ProxyMonitor, workers=1, args=(shared,))
    listened_on = [*shared.sockets, *filter(None, [shared.monitoring_socket])]
    master.register_hooks(on_terminate=functools.partial(_close, listened_on), on_reload=shared.reloaded.set)
    master.run()


def _close(sockets: list[socket.socket]) -> None:
    """Close the sockets of a process that does not serve users: they must only queue at workers."""
    for sock in sockets:
        sock.close()


class ProxyWorker(cotyledon.Service):
    """Process that serves users. Its event loop runs in the thread that calls ``run``."""

    name = 'worker'

    def __init__(self, worker_id: Any, shared: Inherited, notifier: Notifier) -> None:
        super().__init__(worker_id)
        setproctitle.setproctitle(f'{_TITLE}: worker {worker_id}')
        if shared.monitoring_socket is not None:
            shared.monitoring_socket.close()
        self._shared = shared
        self._conf = shared.conf
        self._notifier = notifier
        self._loop: asyncio.AbstractEventLoop | None = None
        self._proxy: server.Proxy | None = None
        self._started = threading.Event()
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._loop = None
            self._started.set()
            self._ended.set()

    async def _serve(self) -> None:
        conf = self._conf
        self._stopping = asyncio.Event()
        name = f'{conf.host}:{_bound_address(self._shared.sockets[0])}:{self.worker_id}'
        pages = self._shared.pages
        if self._shared.reloaded.is_set() and files.reload(self._conf):
            pages = Pages.from_conf(conf)
        self._proxy = server.Proxy(
            conf,
            self._shared.sockets,
            transport.get_transport(conf),
            name,
            pages,
            prometheus_client.REGISTRY,
        )
        self._proxy.start()
        self._loop = asyncio.get_running_loop()
        self._started.set()
        # With thousands of sessions, a full collection stalls all of them for 0.1 s or more. The objects that
        # exist now live as long as the process; most of those of sessions are freed by reference counting.
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        LOG.info('Ready: %s', files.identity(conf, users=self._addresses(), bus=transport.addresses(conf)))
        self._notifier.ready()
        watchdog = asyncio.create_task(self._feed_watchdog(), name='watchdog')
        await self._stopping.wait()
        watchdog.cancel()
        await self._proxy.stop(conf.graceful_shutdown_timeout)
        self._ended.set()  # not after asyncio.run, which would wait for threads that wait for the bus

    def _addresses(self) -> str:
        names = [sock.getsockname() for sock in self._shared.sockets]
        return ','.join(name if isinstance(name, str) else listening.show_address(name[:2]) for name in names)

    async def _feed_watchdog(self) -> None:
        """Notify the watchdog as long as the event loop runs."""
        while self._notifier.interval is not None:
            self._notifier.alive()
            await asyncio.sleep(self._notifier.interval)

    def reload(self) -> None:
        self._started.wait()
        if files.reload(self._conf) and self._loop is not None and self._proxy is not None:
            self._loop.call_soon_threadsafe(self._proxy.reload)

    def terminate(self) -> None:
        self._started.wait()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._ended.wait(self._conf.graceful_shutdown_timeout + _KILL_AFTER)
        os._exit(0)  # a thread that still waits for the bus would keep the process alive


def _bound_address(sock: socket.socket) -> str:
    address = sock.getsockname()
    return str(address[1]) if isinstance(address, tuple) else str(address)


class ProxyMonitor(cotyledon.Service):
    """Process that serves the metrics and the health of all workers."""

    name = 'monitor'

    def __init__(self, worker_id: Any, shared: Inherited) -> None:
        super().__init__(worker_id)
        setproctitle.setproctitle(f'{_TITLE}: monitor')
        _close(shared.sockets)
        conf = shared.conf
        registry = prometheus_client.CollectorRegistry()
        _Collector(registry)
        self._workers: int = conf.proxy.workers
        readiness = Readiness({'lease': functools.partial(self._check_leases, registry)})
        self._server = MonitoringServer(
            conf.monitoring.host,
            conf.monitoring.port,
            application(registry, readiness),
            shared.monitoring_socket,
        )

    def _check_leases(self, registry: prometheus_client.CollectorRegistry) -> None:
        """Check that every worker has a lease.

        :raises LookupError: when one has none
        """
        leases = sum(
            sample.value
            for family in registry.collect()
            if family.name == 'consoled_proxy_leases'
            for sample in family.samples
        )
        if leases < self._workers:
            raise LookupError(f'{leases:.0f} of {self._workers} workers have a lease')

    def run(self) -> None:
        self._server.start()

    def reload(self) -> None:
        """Do nothing: the monitor has nothing to reload."""

    def terminate(self) -> None:
        self._server.stop()


class _Collector(multiprocess.MultiProcessCollector):
    """Collector of the metrics of all live processes."""

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        super().__init__(registry)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[prometheus_client.Metric]:
        _remove_dead_gauges()
        found: Iterable[prometheus_client.Metric] = super().collect()  # type: ignore[no-untyped-call]
        return found


def _remove_dead_gauges() -> None:
    """Delete the files with the gauges of workers that were killed."""
    for path in pathlib.Path(os.environ['PROMETHEUS_MULTIPROC_DIR']).glob('gauge_live*_*.db'):
        pid = int(path.stem.rpartition('_')[2])
        if not pathlib.Path(f'/proc/{pid}').exists():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
