# SPDX-License-Identifier: Apache-2.0
"""Composition of one proxy process: its parts are started, reloaded and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

import oslo_messaging
import prometheus_client
from oslo_config import cfg

from consoled.context import RequestContext
from consoled.objects import EndReason
from consoled.proxy import certificates, handshake
from consoled.proxy.admission import Admission
from consoled.proxy.audit import Audit
from consoled.proxy.close_reports import CloseReports
from consoled.proxy.connection import ConnectionContext
from consoled.proxy.lease import Lease, ProxyLife
from consoled.proxy.listener import Listener
from consoled.proxy.manager_client import ManagerClient
from consoled.proxy.metrics import Metrics
from consoled.proxy.pages import Pages
from consoled.proxy.quota import SessionQuota
from consoled.proxy.read_buffer import ReadBuffer
from consoled.proxy.refusals import Refusals
from consoled.proxy.registry import SessionRegistry
from consoled.proxy.session import Timeouts
from consoled.proxy.targets import Connector
from consoled.rpc import arguments as arg
from consoled.rpc import server as rpc_server
from consoled.rpc import starting, versions
from consoled.rpc.client import ConsoleAuthAPI

LOG = logging.getLogger(__name__)

_POLL = 0.5  # seconds between two updates of what is recorded periodically
_MAX_CUT = 1000  # session ids in one cast
_DRAIN_POLL = 0.02  # seconds between two checks for remaining sessions or connections, while stopping


class ProxyEndpoint(rpc_server.Endpoint):
    """RPC endpoint for cuts by the managers. Its methods run in a thread of the RPC server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, registry: SessionRegistry) -> None:
        self._loop = loop
        self._registry = registry

    @rpc_server.exposed_cast(session_ids=arg.list_of(arg.uuid(), _MAX_CUT), reason=arg.text(64))
    def cut_sessions(self, context: RequestContext, session_ids: list[str], reason: str) -> None:
        self._loop.call_soon_threadsafe(self._registry.cut, dict.fromkeys(session_ids, reason))


def policy_from_conf(conf: cfg.ConfigOpts) -> handshake.Policy:
    """Return the policy on trusted proxies and origins, as configured.

    :raises ValueError: when an option is invalid
    """
    options = conf.proxy
    return handshake.Policy.from_options(
        options.trusted_proxies, options.allowed_origins, options.match_origin_by_host
    )


def timeouts_from_conf(conf: cfg.ConfigOpts) -> Timeouts:
    """Return the timeouts of sessions, as configured.

    :raises ValueError: when an option is invalid; oslo.config checks a value when it is read
    """
    options = conf.proxy
    return Timeouts(
        idle=options.idle_timeout,
        ping_interval=options.ping_interval,
        ping_timeout=options.ping_timeout,
        greeting=options.request_timeout,
    )


class Proxy:
    """One process of the proxy. All its methods must be called in the thread of its event loop.

    :param sockets: bound sockets that users connect to
    :param transport: transport of the cell's bus
    :param name: name of this process, unique among the proxies of the cell
    :param registry: registry for its metrics
    :raises ValueError: when an option is invalid, or a file cannot be used
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        sockets: list[socket.socket],
        transport: oslo_messaging.RPCTransport,
        name: str,
        pages: Pages,
        registry: prometheus_client.CollectorRegistry,
    ) -> None:
        self._conf = conf
        self._transport = transport
        self._name = name
        self._metrics = Metrics(conf.cell.name, registry)
        self._audit = Audit(conf, f'consoled-proxy.{conf.host}')
        options = conf.proxy
        api = ConsoleAuthAPI(transport, level=conf.upgrade_levels.consoled, timeout=options.authorize_timeout)
        life = ProxyLife(name)
        self._close_reports = CloseReports(api, life)
        self._registry = SessionRegistry(
            SessionQuota(options.max_sessions, options.max_sessions_per_address),
            [self._close_reports, self._metrics, self._audit],
            timeouts_from_conf(conf),
        )
        self._lease = Lease(api, life, self._registry)
        self._managers = ManagerClient(
            api,
            self._lease,
            self._close_reports,
            timeout=options.authorize_timeout,
            threads=options.authorize_threads,
            max_pending=options.max_pending_opens,
        )
        self._admission = Admission(
            self._managers,
            Connector.from_conf(conf),
            self._registry,
            Refusals(options.max_failed_tokens, self._metrics, self._audit),
            self._metrics,
            max_channels=options.max_channels,
        )
        self._context = ConnectionContext(
            conf, policy_from_conf(conf), pages, self._admission, self._metrics, ReadBuffer()
        )
        self._listener = Listener(
            conf, sockets, self._context, self._metrics, certificates.user_context(conf)
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._server: oslo_messaging.RPCServer | None = None

    @property
    def ready(self) -> bool:
        """Whether the process has a lease, without which it opens no session."""
        return self._lease.holds

    @property
    def sessions(self) -> SessionRegistry:
        """Sessions of this process."""
        return self._registry

    @property
    def connections(self) -> int:
        """Number of users' connections, including those of sessions."""
        return self._listener.connections

    def start(self) -> None:
        """Start listening. Until the bus is available, users get 503."""
        loop = asyncio.get_running_loop()
        self._audit.start()
        self._lease.start()
        self._close_reports.start()
        self._registry.start()
        self._listener.start()
        self._tasks = [
            loop.create_task(asyncio.to_thread(self._listen_for_cuts, loop), name='cuts'),
            loop.create_task(self._record_periodically(), name='records'),
        ]

    def _listen_for_cuts(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the RPC server for cuts. Waits for the bus, so it runs in a thread."""
        endpoint = ProxyEndpoint(loop, self._registry)
        self._server = starting.start(
            lambda: rpc_server.get_server(self._transport, versions.PROXY_TOPIC, self._name, [endpoint])
        )

    async def _record_periodically(self) -> None:
        while True:
            self._metrics.lease(self.ready)
            self._audit.record_left_out()
            await asyncio.sleep(_POLL)

    def reload(self) -> None:
        """Reload certificate, pages, policy and timeouts. An error is logged, and then nothing changes."""
        conf = self._conf
        try:
            tls, policy = certificates.user_context(conf), policy_from_conf(conf)
            if tls is None and self._listener.tls is not None:  # of Nova's, the file may be gone for a moment
                raise ValueError('[proxy] ssl_cert is not set any more. Restart to serve users without TLS')
            pages = Pages.from_conf(conf)
            timeouts = timeouts_from_conf(conf)
        except (OSError, ValueError) as exc:
            LOG.error('Not reloaded: %s', exc)
            return
        self._listener.tls, self._context.policy, self._context.pages = tls, policy, pages
        self._registry.timeouts = timeouts
        LOG.info('Reloaded certificate, pages, policy and timeouts')

    async def stop(self, timeout: float) -> None:
        """Stop listening, end all sessions, and report their ends; takes ``timeout`` seconds at most."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._admission.stopping = True
        await self._listener.stop()
        self._registry.cut_all(EndReason.DRAINED)
        while len(self._registry) and loop.time() < deadline:
            await asyncio.sleep(_DRAIN_POLL)
        # The other connections were sent a close frame, or loaded a page and are kept open by the browser.
        patience = min(deadline, loop.time() + self._conf.proxy.close_timeout)
        while self._listener.connections and loop.time() < patience:
            await asyncio.sleep(_DRAIN_POLL)
        await self._registry.stop()
        await self._close_reports.stop(max(0.1, deadline - loop.time()))
        await self._lease.stop()
        self._managers.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            with contextlib.suppress(TimeoutError):
                left = max(0.1, deadline - loop.time())
                await asyncio.wait_for(asyncio.to_thread(rpc_server.drain, self._server), left)
        self._audit.stop()
