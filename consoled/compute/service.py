# SPDX-License-Identifier: Apache-2.0
"""The compute agent, and the process that runs it.

cotyledon supervises the process, as it does for the proxy. The launcher of oslo.service would end the process
at SIGHUP and fork a new one, and lose the calls of about a second.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

import cotyledon
import oslo_messaging
import setproctitle
from oslo_config import cfg

from consoled import monitoring
from consoled.compute.cleaner import Cleaner
from consoled.compute.drivers import loading
from consoled.compute.drivers.base import Driver
from consoled.compute.drivers.deadline_driver import DeadlineDriver
from consoled.compute.endpoint import ComputeConsoleEndpoint
from consoled.compute.metrics import Metrics
from consoled.compute.port_conflicts import PortConflicts
from consoled.compute.reconciler import Reconciler
from consoled.compute.reporter import Reporter
from consoled.compute.workqueue import ALL_INSTANCES
from consoled.conf import files
from consoled.context import RequestContext
from consoled.monitoring import Check, MonitoringServer, Readiness, application
from consoled.rpc import server as rpc_server
from consoled.rpc import starting, transport, versions
from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI
from consoled.systemd import Notifier

if TYPE_CHECKING:
    from cotyledon.types import WorkerId

LOG = logging.getLogger(__name__)

_TITLE = 'consoled-compute'
_KILL_AFTER = 5  # seconds after graceful_shutdown_timeout until a process that hangs is killed
_AUTHORIZE_TIMEOUT = 5.0  # seconds to wait for a manager while a caller waits for this agent
# qemu+tcp://HOST, and no_verify=1, which switches the check of the certificate off
_UNSAFE_URI = re.compile(r'[^:+]+\+tcp:|[^?]*\?(.*&)?no_verify=1', re.IGNORECASE)
_READY_TIMEOUT = 2.0  # seconds to wait for the agent's own answer over the bus


class Agent:
    """A compute agent inside this process: RPC server, reconciler and cleaner around a driver.

    :param driver: the hypervisor; ``stop`` closes it
    """

    def __init__(self, conf: cfg.ConfigOpts, connection: oslo_messaging.RPCTransport, driver: Driver) -> None:
        self._conf = conf
        level = conf.upgrade_levels.consoled
        self.metrics = Metrics(conf.cell.name)
        self._driver = DeadlineDriver(driver, conf)
        manager = ConsoleAuthAPI(connection, level=level)
        port_conflicts = PortConflicts(self._driver)
        self._reconciler = Reconciler(
            conf, self._driver, Reporter(conf, manager, self.metrics), port_conflicts, self.metrics
        )
        self._cleaner = Cleaner(conf, manager)
        endpoint = ComputeConsoleEndpoint(
            self._driver,
            ConsoleAuthAPI(connection, level=level, timeout=_AUTHORIZE_TIMEOUT),
            self._reconciler,
            port_conflicts,
            self.metrics.observe_call,
        )
        self._build_server = functools.partial(
            rpc_server.get_server, connection, versions.COMPUTE_TOPIC, conf.host, [endpoint]
        )
        self._client = ComputeConsoleAPI(connection, level=conf.upgrade_levels.compute)

    def start(self) -> None:
        """Start to answer calls and to report instances. Waits for the bus without a limit."""
        self._driver.watch(self._reconciler.enqueue)
        self._server = starting.start(self._build_server)
        self._reconciler.start()
        self._cleaner.start()

    def wait_attempted(self, timeout: float | None = None) -> bool:
        """Wait until all instances have been reported to the managers, or the attempt has failed.

        :param timeout: seconds; None for no limit
        :returns: False if the time is over
        """
        return self._reconciler.wait_attempted(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread runs that the agent cannot work without."""
        return self._reconciler.alive

    def reload(self) -> None:
        """Report the consoles of all instances again: changed options may have changed them."""
        self._reconciler.enqueue(ALL_INSTANCES)

    def stop(self, timeout: float) -> None:
        """Accept no more calls, finish those in flight, and release the hypervisor.

        :param timeout: seconds to wait for the report and the cleaning under way
        """
        rpc_server.drain(self._server)
        deadline = time.monotonic() + timeout
        self._reconciler.stop(max(0.0, deadline - time.monotonic()))
        self._cleaner.stop(max(0.0, deadline - time.monotonic()))
        self._driver.close()

    def checks(self) -> dict[str, Check]:
        """Return the readiness checks: the agent is reached over the bus, and the hypervisor answers."""
        return {
            'bus': functools.partial(self._client.ping, RequestContext(), self._conf.host, _READY_TIMEOUT),
            'hypervisor': self._driver.ping,
        }


def prepare(conf: cfg.ConfigOpts) -> socket.socket | None:
    """Check the options before any process is started, and bind the address of the monitoring.

    :returns: the socket of the monitoring; None if there is none
    :raises ValueError: an option is not set, or cannot be used; the text names it
    :raises OSError: the address of the monitoring is in use, or not of this machine
    """
    loading.load(conf)
    versions.pinned(conf.upgrade_levels.consoled)
    versions.pinned(conf.upgrade_levels.compute)
    for risk in [*transport.check(conf), *_risks(conf)]:
        LOG.warning('%s', risk)
    return monitoring.bind(conf.monitoring)


def _risks(conf: cfg.ConfigOpts) -> list[str]:
    """Return a sentence if others can change what libvirt says of the guests."""
    uri = conf.compute.libvirt_uri
    if conf.compute.driver != 'libvirt' or not _UNSAFE_URI.match(uri):
        return []
    return ['[compute] libvirt_uri: libvirt is reached without TLS, or its certificate is not checked']


def run(conf: cfg.ConfigOpts, notifier: Notifier, monitoring_socket: socket.socket | None) -> None:
    """Run the agent's process until SIGTERM.

    :param monitoring_socket: from ``prepare``
    :param notifier: notified once the agent answers calls and has reported, or tried to report, all instances
    """
    master = cotyledon.ServiceManager(
        graceful_shutdown_timeout=conf.graceful_shutdown_timeout + 2 * _KILL_AFTER,
        mp_context=multiprocessing.get_context('fork'),  # the worker inherits the parsed options
    )
    master.add(AgentProcess, workers=1, args=(conf, notifier, monitoring_socket))
    master.run()


class AgentProcess(cotyledon.Service):
    """The worker process that runs the agent. It creates everything it uses after the fork."""

    name = 'worker'

    def __init__(
        self,
        worker_id: WorkerId,
        conf: cfg.ConfigOpts,
        notifier: Notifier,
        monitoring_socket: socket.socket | None = None,
    ) -> None:
        super().__init__(worker_id)
        self._monitoring_socket = monitoring_socket
        setproctitle.setproctitle(f'{_TITLE}: worker')
        self._conf = conf
        self._notifier = notifier
        self._agent: Agent | None = None
        self._resources = contextlib.ExitStack()

    def run(self) -> None:
        """Start the agent, whose threads do the work, and send heartbeats to the service manager."""
        conf = self._conf
        files.reload(self._conf)  # they may have been read again since the master was started
        agent = Agent(conf, transport.get_transport(conf), loading.load(conf))
        if self._monitoring_socket is not None:
            http = MonitoringServer(
                conf.monitoring.host,
                conf.monitoring.port,
                application(agent.metrics.registry, Readiness(agent.checks())),
                self._monitoring_socket,
            )
            http.start()
            self._resources.callback(http.stop)
        agent.start()
        self._agent = agent
        agent.wait_attempted()
        facts = {'driver': conf.compute.driver, 'bus': transport.addresses(conf)}
        LOG.info('Ready: %s', files.identity(conf, **facts))
        self._notifier.ready()
        while self._notifier.interval is not None and agent.alive:
            self._notifier.alive()
            time.sleep(self._notifier.interval)

    def reload(self) -> None:
        """Read the configuration files again (SIGHUP)."""
        if files.reload(self._conf) and self._agent is not None:
            self._agent.reload()

    def terminate(self) -> None:
        """Stop the agent and exit (SIGTERM). An agent that still waits for the bus is not waited for."""
        threading.Timer(self._conf.graceful_shutdown_timeout, os._exit, (1,)).start()
        if self._agent is not None:
            self._agent.stop(_KILL_AFTER)
            self._resources.close()
        os._exit(0)  # a thread that waits for the bus or the hypervisor would keep the process alive
