# SPDX-License-Identifier: Apache-2.0
"""The wiring of a compute agent, and the process that runs it.

cotyledon looks after the process, as it does for the proxy: oslo.service's launcher would end it and fork it
anew at SIGHUP, and the calls of a second with it.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import threading
import time
from typing import Any

import cotyledon
import oslo_messaging
import setproctitle
from oslo_config import cfg

from consoled.compute.cleaner import Cleaner
from consoled.compute.drivers import loading
from consoled.compute.drivers.base import Driver
from consoled.compute.drivers.deadline_driver import DeadlineDriver
from consoled.compute.endpoint import ComputeConsoleEndpoint
from consoled.compute.metrics import Metrics
from consoled.compute.reconciler import Reconciler
from consoled.conf import files
from consoled.context import RequestContext
from consoled.monitoring import Check, MonitoringServer, Readiness, application
from consoled.notify import Notifier
from consoled.rpc import server as rpc_server
from consoled.rpc import versions
from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI
from consoled.rpc.transport import get_transport

_TITLE = 'consoled-compute'
_KILL_AFTER = 5  # seconds beyond graceful_shutdown_timeout before a process that hangs is ended
_AUTHORIZE_TIMEOUT = 5.0  # seconds to wait for a manager while a caller waits for us
_READY_TIMEOUT = 2.0  # seconds to answer the readiness check


class Agent:
    """All of an agent, in this process.

    :param driver: knows the guests; closed at the end
    """

    def __init__(self, conf: cfg.ConfigOpts, transport: oslo_messaging.RPCTransport, driver: Driver) -> None:
        self._conf = conf
        level = conf.upgrade_levels.consoled
        self.metrics = Metrics(conf.cell.name)
        self._driver = DeadlineDriver(driver, conf)
        manager = ConsoleAuthAPI(transport, level=level)
        self._sync = Reconciler(conf, self._driver, manager, self.metrics)
        self._cleaner = Cleaner(conf, manager)
        endpoint = ComputeConsoleEndpoint(
            self._driver,
            ConsoleAuthAPI(transport, level=level, timeout=_AUTHORIZE_TIMEOUT),
            self._sync,
            self.metrics.called,
        )
        self._server = rpc_server.get_server(transport, versions.COMPUTE_TOPIC, conf.host, [endpoint])
        self._client = ComputeConsoleAPI(transport, level=conf.upgrade_levels.compute)

    def start(self) -> None:
        """Answer calls, and begin to tell the managers of the guests. Waits for the bus."""
        self._driver.watch(self._sync.changed)
        self._server.start()
        self._sync.start()
        self._cleaner.start()

    def wait_attempted(self, timeout: float | None = None) -> bool:
        """Wait until the managers have been told of all guests, or could not be."""
        return self._sync.wait_attempted(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread lives that all depends on."""
        return self._sync.alive

    def reload(self) -> None:
        """Tell the managers what new options have made of the guests' consoles."""
        self._sync.changed(None)

    def stop(self, timeout: float) -> None:
        """Take no more calls, finish those in flight, let go of the hypervisor.

        :param timeout: seconds for what is being told
        """
        rpc_server.drain(self._server)
        deadline = time.monotonic() + timeout
        self._sync.stop(max(0.0, deadline - time.monotonic()))
        self._cleaner.stop(max(0.0, deadline - time.monotonic()))
        self._driver.close()

    def checks(self) -> dict[str, Check]:
        """What has to be well for the agent to work: it is reached over the bus, the hypervisor answers."""
        return {
            'bus': functools.partial(self._client.ping, RequestContext(), self._conf.host, _READY_TIMEOUT),
            'hypervisor': self._driver.ping,
        }


def prepare(conf: cfg.ConfigOpts) -> None:
    """Check what can be wrong.

    :raises ValueError: an option is wrong
    """
    loading.load(conf)
    versions.pinned(conf.upgrade_levels.consoled)
    versions.pinned(conf.upgrade_levels.compute)


def run(conf: cfg.ConfigOpts, notifier: Notifier) -> None:
    """Run the process until SIGTERM.

    :param notifier: told once it consumes and has told, or tried to tell, the managers of all guests
    """
    master = cotyledon.ServiceManager(
        graceful_shutdown_timeout=conf.graceful_shutdown_timeout + 2 * _KILL_AFTER,
        mp_context=multiprocessing.get_context('fork'),  # options are handed on as they are
    )
    master.add(AgentProcess, workers=1, args=(conf, notifier))
    master.run()


class AgentProcess(cotyledon.Service):
    """The process that is the agent. Everything it holds is made after the fork."""

    name = 'worker'

    def __init__(self, worker_id: Any, conf: cfg.ConfigOpts, notifier: Notifier) -> None:
        super().__init__(worker_id)
        setproctitle.setproctitle(f'{_TITLE}: worker')
        self._conf = conf
        self._notifier = notifier
        self._agent: Agent | None = None
        self._held = contextlib.ExitStack()

    def run(self) -> None:
        """Start; the threads of the agent do the work."""
        conf = self._conf
        files.reload(self._conf)  # they may have been read again since the master was started
        agent = Agent(conf, get_transport(conf), loading.load(conf))
        if conf.monitoring.port:
            monitoring = MonitoringServer(
                conf.monitoring.host,
                conf.monitoring.port,
                application(agent.metrics.registry, Readiness(agent.checks())),
            )
            monitoring.start()
            self._held.callback(monitoring.stop)
        agent.start()
        self._agent = agent
        agent.wait_attempted()
        self._notifier.ready()
        while self._notifier.interval is not None and agent.alive:
            self._notifier.alive()
            time.sleep(self._notifier.interval)

    def reload(self) -> None:
        if files.reload(self._conf) and self._agent is not None:
            self._agent.reload()

    def terminate(self) -> None:
        """End, at once if nothing was started: the bus may be away, and is waited for without a limit."""
        threading.Timer(self._conf.graceful_shutdown_timeout, os._exit, (1,)).start()
        if self._agent is not None:
            self._agent.stop(_KILL_AFTER)
            self._held.close()
        os._exit(0)  # a thread that waits for the bus or the hypervisor would keep the process
