# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests against a cell, for other projects too: config, database, manager, peers."""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import fixtures
from oslo_config import cfg
from oslo_log import log

from consoled import conf as consoled_conf
from consoled import objects
from consoled.context import RequestContext
from consoled.db import migration
from consoled.db.session import Database
from consoled.manager import service
from consoled.manager.manager import ConsoleAuthManager
from consoled.rpc import arguments as arg
from consoled.rpc import server as rpc_server
from consoled.rpc import versions
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from consoled.sources import TokenSource


def wait_until(condition: Callable[[], Any], *, timeout: float = 30.0, what: str = 'condition') -> Any:
    """Wait until ``condition`` returns something true, and return it.

    :param timeout: seconds; generous, since it is only ever used up by a failure
    :raises TimeoutError: it did not
    """
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f'{what}: not within {timeout} s')
        time.sleep(0.02)


class Conf(fixtures.Fixture):
    """A config of its own: ``conf``, with all options of consoled.

    :param overrides: values by ``group.option``, or ``option`` for [DEFAULT]
    """

    def __init__(self, **overrides: Any) -> None:
        super().__init__()
        self._overrides = overrides
        self.conf = cfg.ConfigOpts()

    def _setUp(self) -> None:
        log.register_options(self.conf)
        consoled_conf.register_opts(self.conf)
        self.conf([], default_config_files=[], default_config_dirs=[])
        self.set(**self._overrides)
        self.addCleanup(self.conf.reset)

    def set(self, **overrides: Any) -> None:
        """Override options; ``__`` separates group and option: ``set(manager__lease=5)``."""
        for name, value in overrides.items():
            group, _, option = name.rpartition('__')
            self.conf.set_override(option, value, group=group or None)


class Cell(fixtures.Fixture):
    """A cell in this process: a manager's RPC server, its database, and a client.

    :param transport_url: the bus
    :param database_url: an empty database
    :param sources: where tokens may live besides
    :param overrides: options, as for ``Conf``
    """

    def __init__(
        self,
        transport_url: str,
        database_url: str,
        sources: Sequence[TokenSource] = (),
        **overrides: Any,
    ) -> None:
        super().__init__()
        self._sources = sources
        self._overrides = {
            'host': f'manager-{uuid.uuid4().hex[:8]}',
            'transport_url': transport_url,
            'database__connection': database_url,
            **overrides,
        }

    def _setUp(self) -> None:
        self.config = self.useFixture(Conf(**self._overrides))
        self.conf = self.config.conf
        self.db = Database.from_conf(self.conf)
        self.addCleanup(self.db.dispose)
        migration.upgrade(self.db)
        self.transport = get_transport(self.conf)
        self.addCleanup(self.transport.cleanup)
        self.add_manager(self.conf)
        self.api = ConsoleAuthAPI(self.transport)

    def add_manager(self, conf: cfg.ConfigOpts) -> None:
        """Start one more manager in this process."""
        self.endpoint = ConsoleAuthManager.from_conf(conf, self.transport, self.db, self._sources)
        server = service.build_rpc_server(conf, self.transport, self.endpoint)
        server.start()
        self.addCleanup(rpc_server.drain, server)


class _AgentEndpoint(rpc_server.Endpoint):
    def __init__(self, agent: ComputeAgent) -> None:
        self._agent = agent

    @rpc_server.exposed(
        instance_uuid=arg.uuid(), host=arg.host(), port=arg.port(), console_type=arg.console_type()
    )
    def check_console(self, context: Any, **asked: Any) -> bool:
        self._agent.asked.append(asked)
        return bool(self._agent.answer(asked))


class ComputeAgent(fixtures.Fixture):
    """A compute agent that says what ``answer`` says of a port; ``asked`` has the questions."""

    def __init__(self, transport: Any, compute_host: str) -> None:
        super().__init__()
        self._transport = transport
        self._compute_host = compute_host
        self.asked: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], bool] = lambda asked: True

    def _setUp(self) -> None:
        server = rpc_server.get_server(
            self._transport, versions.COMPUTE_TOPIC, self._compute_host, [_AgentEndpoint(self)]
        )
        server.start()
        self.addCleanup(rpc_server.drain, server)


class _ProxyEndpoint(rpc_server.Endpoint):
    def __init__(self, cuts: queue.Queue[tuple[str, str]]) -> None:
        self._cuts = cuts

    @rpc_server.exposed(session_ids=arg.list_of(arg.uuid(), 1000), reason=arg.text(64))
    def cut_sessions(self, context: Any, session_ids: list[str], reason: str) -> None:
        for session_id in session_ids:
            self._cuts.put((session_id, reason))


class Proxy(fixtures.Fixture):
    """The control side of a proxy: registered, and listening for cuts (``cuts``: (id, reason)).

    :param name: its name among the proxies of the cell
    :param deaf: do not listen: pushed cuts are lost
    """

    def __init__(
        self, transport: Any, api: ConsoleAuthAPI, name: str | None = None, *, deaf: bool = False
    ) -> None:
        super().__init__()
        self._deaf = deaf
        self._transport = transport
        self.api = api
        self.id = str(uuid.uuid4())
        self.name = name or f'proxy-{self.id[:8]}'
        self.cuts: queue.Queue[tuple[str, str]] = queue.Queue()

    def _setUp(self) -> None:
        if not self._deaf:
            self._listen()
        self.registered = self.api.register_proxy(RequestContext(), self.id, self.name)

    def _listen(self) -> None:
        server = rpc_server.get_server(
            self._transport, versions.PROXY_TOPIC, self.name, [_ProxyEndpoint(self.cuts)]
        )
        server.start()
        self.addCleanup(rpc_server.drain, server)

    def open(self, token: str, session_id: str | None = None) -> objects.ConsoleSession:
        """Open a session from 192.0.2.1 (RFC 5737: an address for documentation)."""
        return self.api.open_session(
            RequestContext(), token, session_id or str(uuid.uuid4()), self.id, '192.0.2.1'
        )
