# SPDX-License-Identifier: Apache-2.0
"""The processes of the daemon: workers that serve users, and one that serves metrics and health.

cotyledon, which oslo.service's launcher is made of, looks after them. The launcher itself ends and forks
the workers anew at SIGHUP, and with them every session; here a worker only reads its files again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
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

from consoled.conf import files
from consoled.monitoring import MonitoringServer, Readiness, application
from consoled.notify import Notifier
from consoled.proxy import listener, server, targets
from consoled.proxy.pages import Pages
from consoled.rpc.transport import get_transport

_TITLE = 'consoled-proxy'
_GC_THRESHOLDS = (20000, 20, 50)
_KILL_AFTER = 5  # seconds beyond graceful_shutdown_timeout before a process that hangs is ended


@dataclasses.dataclass(frozen=True)
class Inherited:
    """What is made once and used by all workers.

    :ivar reloaded: set by the first SIGHUP; a worker that is started after it reads the files itself
    """

    conf: cfg.ConfigOpts
    sockets: list[socket.socket]
    pages: Pages
    reloaded: threading.Event = dataclasses.field(default_factory=threading.Event)


def prepare(conf: cfg.ConfigOpts) -> Inherited:
    """Check what can be wrong, read the pages, bind the sockets.

    :raises OSError: a file can't be read, an address can't be had
    :raises ValueError: an option is wrong
    """
    server.policy_of(conf)
    targets.Connector(conf)
    listener.tls_context(conf)
    return Inherited(conf, listener.listen(conf), server.pages_of(conf))


def run(shared: Inherited, notifier: Notifier) -> None:
    """Run the processes until SIGTERM.

    :param notifier: told by the workers when they serve users, and that they live
    """
    conf = shared.conf
    master = cotyledon.ServiceManager(
        graceful_shutdown_timeout=conf.graceful_shutdown_timeout + 2 * _KILL_AFTER,
        mp_context=multiprocessing.get_context('fork'),  # sockets and options are handed on as they are
    )
    master.add(ProxyWorker, workers=conf.proxy.workers, args=(shared, notifier))
    if conf.monitoring.port:
        master.add(ProxyMonitor, workers=1, args=(shared,))
    master.register_hooks(
        on_terminate=functools.partial(_close, shared.sockets), on_reload=shared.reloaded.set
    )
    master.run()


def _close(sockets: list[socket.socket]) -> None:
    """Users must wait in nobody's queue but the workers', who listen until they stop."""
    for sock in sockets:
        sock.close()


class ProxyWorker(cotyledon.Service):
    """A process that serves users; its event loop is in the thread that ``run`` is called in."""

    name = 'worker'

    def __init__(self, worker_id: Any, shared: Inherited, notifier: Notifier) -> None:
        super().__init__(worker_id)
        setproctitle.setproctitle(f'{_TITLE}: worker {worker_id}')
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
            pages = server.pages_of(conf)
        self._proxy = server.Proxy(
            conf,
            self._shared.sockets,
            get_transport(conf),
            name,
            pages,
            prometheus_client.REGISTRY,
        )
        self._proxy.start()
        self._loop = asyncio.get_running_loop()
        self._started.set()
        # A full collection stops every session, for 0.1 s and more with thousands of them. What is loaded now
        # stays; what sessions leave behind is freed when its last reference goes, or seldom.
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        self._notifier.ready()
        living = asyncio.create_task(self._live(), name='watchdog')
        await self._stopping.wait()
        living.cancel()
        await self._proxy.stop(conf.graceful_shutdown_timeout)
        self._ended.set()  # already: asyncio would wait for a thread that waits for the bus

    async def _live(self) -> None:
        """Say that the event loop turns, as long as it does."""
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
        os._exit(0)  # a thread that still waits for the bus would keep the process


def _bound_address(sock: socket.socket) -> str:
    address = sock.getsockname()
    return str(address[1]) if isinstance(address, tuple) else str(address)


class ProxyMonitor(cotyledon.Service):
    """The process that serves metrics and health of all workers."""

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
            conf.monitoring.host, conf.monitoring.port, application(registry, readiness)
        )

    def _check_leases(self, registry: prometheus_client.CollectorRegistry) -> None:
        """:raises LookupError: not every worker has a lease"""
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
        """Nothing of it can be changed."""

    def terminate(self) -> None:
        self._server.stop()


class _Collector(multiprocess.MultiProcessCollector):
    """The metrics of all processes that there are."""

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        super().__init__(registry)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[prometheus_client.Metric]:
        _forget_the_dead()
        found: Iterable[prometheus_client.Metric] = super().collect()  # type: ignore[no-untyped-call]
        return found


def _forget_the_dead() -> None:
    """A worker that was killed has left its gauges behind."""
    for path in pathlib.Path(os.environ['PROMETHEUS_MULTIPROC_DIR']).glob('gauge_live*_*.db'):
        pid = int(path.stem.rpartition('_')[2])
        if not pathlib.Path(f'/proc/{pid}').exists():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
