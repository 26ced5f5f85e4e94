# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests against a cell: configuration, an in-process manager, fake peers of the manager.

Other projects may use them. The fixtures of real services are in ``services``, those of real daemons in
``daemons``.
"""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from oslo_config import cfg
from oslo_log import log

from consoled import conf as consoled_conf
from consoled import objects
from consoled.context import RequestContext
from consoled.db import migration
from consoled.db.engine import Database
from consoled.manager import service
from consoled.manager.manager import ConsoleAuthManager
from consoled.rpc import arguments as arg
from consoled.rpc import server as rpc_server
from consoled.rpc import versions
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from consoled.sources import TokenSource
from consoled.testing.libraries import fixtures


def wait_until(condition: Callable[[], Any], *, timeout: float = 30.0, what: str = 'condition') -> Any:
    """Poll ``condition`` until it returns a true value, and return that value.

    :param timeout: seconds; generous, because only a failing test uses it up
    :param what: what is awaited, for the error message
    :raises TimeoutError: when the condition is still false after ``timeout``
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
    """A private ``ConfigOpts``, as ``conf``, with all options of consoled registered::

        import testtools

        from consoled.testing import fixtures


        class LeaseTest(testtools.TestCase):
            def test_a_short_lease(self):
                config = self.useFixture(fixtures.Conf(manager__lease=5, host='node-1'))
                self.assertEqual(5, config.conf.manager.lease)

    :param overrides: option values, named as for ``set``
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
        """Override options, named ``group__option``, or ``option`` for those in [DEFAULT]."""
        for name, value in overrides.items():
            group, _, option = name.rpartition('__')
            self.conf.set_override(option, value, group=group or None)


class InProcessCell(fixtures.Fixture):
    """A manager in the test's own process, with its RPC server, its cell database, and a client.

    :param transport_url: the message bus
    :param database_url: an empty database; the fixture creates the tables
    :param sources: additional token sources of the manager
    :param overrides: options, named as for ``Conf``
    :ivar conf: the manager's configuration; ``config`` is the ``Conf`` fixture around it
    :ivar db: the cell database
    :ivar transport: the RPC transport
    :ivar api: a client of the manager
    :ivar endpoint: the endpoint of the manager that was started last
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
        """Start another manager of this cell in this process."""
        self.endpoint = ConsoleAuthManager.from_conf(conf, self.transport, self.db, self._sources)
        server = service.build_rpc_server(conf, self.transport, self.endpoint)
        server.start()
        self.addCleanup(rpc_server.drain, server)


class _AgentEndpoint(rpc_server.Endpoint):
    def __init__(self, agent: FakeComputeAgent) -> None:
        self._agent = agent

    @rpc_server.exposed(
        instance_uuid=arg.uuid(), host=arg.host(), port=arg.port(), console_type=arg.console_type()
    )
    def check_console(self, context: Any, **asked: Any) -> bool:
        self._agent.asked.append(asked)
        return bool(self._agent.answer(asked))


class FakeComputeAgent(fixtures.Fixture):
    """A fake compute agent that answers ``check_console``.

    :param transport: the RPC transport
    :param compute_host: the compute host to answer for
    :ivar answer: called with the arguments of each request; its result is the response. Confirms every
        console by default
    :ivar asked: the arguments of all requests, in order
    """

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


class FakeProxy(fixtures.Fixture):
    """A fake proxy that registers and opens sessions, but relays nothing.

    :param transport: the RPC transport
    :param api: a client of the manager
    :param name: the proxy's name in the cell; a unique one by default
    :param receive_cuts: listen for pushed cuts; without it they are lost
    :ivar id: the ``proxy_id`` of this life of the proxy
    :ivar registered: the manager's reply to ``register_proxy``
    :ivar cuts: queue of the pushed cuts, as (session ID, reason)
    """

    def __init__(
        self, transport: Any, api: ConsoleAuthAPI, name: str | None = None, *, receive_cuts: bool = True
    ) -> None:
        super().__init__()
        self._receive_cuts = receive_cuts
        self._transport = transport
        self.api = api
        self.id = str(uuid.uuid4())
        self.name = name or f'proxy-{self.id[:8]}'
        self.cuts: queue.Queue[tuple[str, str]] = queue.Queue()

    def _setUp(self) -> None:
        if self._receive_cuts:
            self._listen()
        self.registered = self.api.register_proxy(RequestContext(), self.id, self.name)

    def _listen(self) -> None:
        server = rpc_server.get_server(
            self._transport, versions.PROXY_TOPIC, self.name, [_ProxyEndpoint(self.cuts)]
        )
        server.start()
        self.addCleanup(rpc_server.drain, server)

    def open(
        self, token: str, session_id: str | None = None, serial_port: int | None = None
    ) -> objects.ConsoleSession:
        """Open a session for a client at 192.0.2.1, an address for documentation (RFC 5737).

        :param session_id: a new one by default
        :param serial_port: number of the serial port to open; by default the token's own
        :raises ConsoledException: as the manager's ``open_session``
        """
        session_id = session_id or str(uuid.uuid4())
        return self.api.open_session(RequestContext(), token, session_id, self.id, '192.0.2.1', serial_port)
