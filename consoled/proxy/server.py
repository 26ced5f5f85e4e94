# SPDX-License-Identifier: Apache-2.0
"""The wiring of a proxy process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

import oslo_messaging
import prometheus_client
from oslo_config import cfg

from consoled.context import RequestContext
from consoled.proxy import close_codes, handshake
from consoled.proxy.admission import Admission
from consoled.proxy.audit import Audit
from consoled.proxy.authorizer import Authorizer
from consoled.proxy.connection import Service
from consoled.proxy.listener import Listener, tls_context_from_conf
from consoled.proxy.metrics import Metrics
from consoled.proxy.pages import Pages
from consoled.proxy.relay import ReadBuffer
from consoled.proxy.sessions import Rules, Sessions
from consoled.proxy.targets import Connector
from consoled.rpc import arguments as arg
from consoled.rpc import server as rpc_server
from consoled.rpc import versions
from consoled.rpc.client import ConsoleAuthAPI

LOG = logging.getLogger(__name__)

_WATCH = 0.5  # seconds between two looks at the lease, for the metric
_MOST_CUT = 1000  # ids in a cast


class ProxyEndpoint(rpc_server.Endpoint):
    """Hears of sessions to cut, in a thread of the RPC server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cut: Callable[[dict[str, str]], None]) -> None:
        self._loop = loop
        self._cut = cut

    @rpc_server.exposed_cast(session_ids=arg.list_of(arg.uuid(), _MOST_CUT), reason=arg.text(64))
    def cut_sessions(self, context: RequestContext, session_ids: list[str], reason: str) -> None:
        self._loop.call_soon_threadsafe(self._cut, dict.fromkeys(session_ids, reason))


def policy_of(conf: cfg.ConfigOpts) -> handshake.Policy:
    """Whom to believe, as configured.

    :raises ValueError: an option is wrong
    """
    return handshake.Policy.from_options(conf.proxy.trusted_proxies, conf.proxy.allowed_origins)


def pages_of(conf: cfg.ConfigOpts) -> Pages:
    """The pages, as configured."""
    return Pages.from_conf(conf)


def rules_of(conf: cfg.ConfigOpts) -> Rules:
    """How long sessions may be silent, as configured.

    :raises ValueError: an option is wrong
    """
    options = conf.proxy
    return Rules(
        idle=options.idle_timeout,
        ping_interval=options.ping_interval,
        ping_timeout=options.ping_timeout,
        greeting=options.request_timeout,
    )


class Proxy:
    """One process of the proxy. All its methods are called in the thread of its event loop.

    :param sockets: bound, for users to connect to
    :param transport: the cell's bus
    :param name: of this process among the proxies of the cell
    :param registry: for its metrics
    :raises ValueError, OSError: an option is wrong
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
        self._rules = rules_of(conf)
        self._sessions = Sessions(
            lambda: self._rules, lambda session, seconds: self._admission.over(session, seconds)
        )
        self._authorizer = Authorizer(
            ConsoleAuthAPI(
                transport, level=conf.upgrade_levels.consoled, timeout=conf.proxy.authorize_timeout
            ),
            name,
            timeout=conf.proxy.authorize_timeout,
            threads=conf.proxy.authorize_threads,
            max_pending=conf.proxy.max_pending_opens,
            live=self._sessions.ids,
            cut=self._sessions.cut,
            cut_limited=self._sessions.cut_limited,
            cut_all=lambda: self._sessions.cut_all(close_codes.LEASE_LOST),
        )
        self._admission = Admission(
            conf, self._authorizer, Connector.from_conf(conf), self._sessions, self._metrics, self._audit
        )
        service = Service(conf, policy_of(conf), pages, self._admission, self._sessions, ReadBuffer())
        self._service = service
        self._listener = Listener(conf, sockets, service, self._metrics, tls_context_from_conf(conf))
        self._tasks: list[asyncio.Task[None]] = []
        self._server: oslo_messaging.RPCServer | None = None

    @property
    def ready(self) -> bool:
        """Whether sessions can be opened."""
        return self._authorizer.ready

    @property
    def sessions(self) -> Sessions:
        """The live ones."""
        return self._sessions

    @property
    def connections(self) -> int:
        """Users' connections, sessions included."""
        return self._listener.connections

    def start(self) -> None:
        """Listen at once. The bus may come later: until then users get 503."""
        loop = asyncio.get_running_loop()
        self._audit.start()
        self._authorizer.start()
        self._sessions.start()
        self._listener.start()
        self._tasks = [
            loop.create_task(asyncio.to_thread(self._listen_for_cuts, loop), name='cuts'),
            loop.create_task(self._watch_lease(), name='watch'),
        ]

    def _listen_for_cuts(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: it waits for the bus."""
        server = rpc_server.get_server(
            self._transport, versions.PROXY_TOPIC, self._name, [ProxyEndpoint(loop, self._cut)]
        )
        server.start()
        self._server = server

    def _cut(self, reasons: dict[str, str]) -> None:
        self._authorizer.cut_opening(reasons)
        self._sessions.cut(reasons)

    async def _watch_lease(self) -> None:
        while True:
            self._metrics.lease(self.ready)
            await asyncio.sleep(_WATCH)

    def reload(self) -> None:
        """Read what may change again. What is wrong is logged, and then all is left as it was."""
        conf = self._conf
        try:
            tls, policy = tls_context_from_conf(conf), policy_of(conf)
            pages, rules = pages_of(conf), rules_of(conf)
        except (OSError, ValueError) as exc:
            LOG.error('not reloaded: %s', exc)
            return
        self._listener.tls, self._service.policy, self._service.pages = tls, policy, pages
        self._rules = rules
        LOG.info('certificate, pages and policy were read again')

    async def stop(self, timeout: float) -> None:
        """Listen no more, tell the users, report the closings; ``timeout`` seconds at most."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._admission.stopping = True
        await self._listener.stop()
        self._sessions.cut_all(close_codes.DRAINED)
        while self._admission.held and loop.time() < deadline:
            await asyncio.sleep(0.02)
            self._sessions.cut_all(close_codes.DRAINED)  # those that were being opened
        # Who is left has been told, or had only loaded a page: browsers keep such connections for long.
        patience = min(deadline, loop.time() + self._conf.proxy.close_timeout)
        while self._listener.connections and loop.time() < patience:
            await asyncio.sleep(0.02)
        await self._sessions.stop()
        await self._authorizer.stop(max(0.1, deadline - loop.time()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            with contextlib.suppress(TimeoutError):
                left = max(0.1, deadline - loop.time())
                await asyncio.wait_for(asyncio.to_thread(rpc_server.drain, self._server), left)
        self._audit.stop()
