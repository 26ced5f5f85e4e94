# SPDX-License-Identifier: Apache-2.0
"""The demo's cell: manager, compute agent and proxy side in one process, on a bus in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import oslo_messaging
import sqlalchemy
from kombu.transport import TRANSPORT_ALIASES, memory
from oslo_config import cfg

from consoled import conf as consoled_conf
from consoled import exception, objects
from consoled.compute.drivers import demo as demo_driver
from consoled.compute.endpoint import ComputeConsoles
from consoled.context import RequestContext
from consoled.db import migration
from consoled.db.session import Database
from consoled.manager import service as manager_service
from consoled.rpc import arguments as arg
from consoled.rpc import server as rpc_server
from consoled.rpc import versions
from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI
from consoled.rpc.transport import get_transport

COMPUTE_HOST = 'compute-1'
PROXY = 'proxy-1'

_CHECK_TIMEOUT = 5.0  # seconds, more than the default: the machine of a demo may be busy with anything

_BUS_LOG = logging.getLogger('kombu.connection')


class _Channel(memory.Channel):
    """A channel that tells of what is put into a queue."""

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        super()._put(queue, message, **kwargs)
        _Bus.tell()

    def _put_fanout(self, exchange: str, message: Any, routing_key: str | None = None, **kwargs: Any) -> None:
        super()._put_fanout(exchange, message, routing_key, **kwargs)
        _Bus.tell()


class _Bus(memory.Transport):
    """kombu's transport in memory, whose consumers wait for messages instead of polling.

    oslo.messaging makes them poll without a pause: idle, that took a third of a core, and on a busy machine
    it kept the answers so long from being made that one call in a few timed out.
    """

    Channel = _Channel
    _changed = threading.Condition()
    _told = 0  # how often; of all connections, since they share the queues

    @classmethod
    def tell(cls) -> None:
        with cls._changed:
            cls._told += 1
            cls._changed.notify_all()

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver one message.

        :raises TimeoutError: none came within ``timeout`` seconds
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            told = self._told  # before looking: what comes after the look ends the wait
            with contextlib.suppress(queue.Empty):
                self.cycle.get(self._deliver, timeout=timeout)
                return
            self._wait(told, deadline)

    def _wait(self, told: int, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        with self._changed:
            if not self._changed.wait_for(lambda: self._told != told, left):
                raise TimeoutError


class NotStarted(Exception):
    """The cell can't be run; the message says why."""


class ProxySide(rpc_server.Endpoint):
    """Plays the proxy: has a lease, opens sessions, hears of cuts; but relays nothing."""

    def __init__(self, manager: ConsoleAuthAPI) -> None:
        self._manager = manager
        self._id = str(uuid.uuid4())
        self.cuts: dict[str, str] = {}  # reason by session id

    @rpc_server.exposed(session_ids=arg.list_of(arg.uuid(), 1000), reason=arg.text(64))
    def cut_sessions(self, context: RequestContext, session_ids: list[str], reason: str) -> None:
        self.cuts.update(dict.fromkeys(session_ids, reason))

    def register(self) -> None:
        self._manager.register_proxy(RequestContext(), self._id, PROXY)

    def open(self, token: str) -> objects.ConsoleSession:
        """Open a session as for a browser that came with this token."""
        return self._manager.open_session(
            RequestContext(), token, str(uuid.uuid4()), self._id, '198.51.100.7'
        )

    def close(self, session_id: str) -> None:
        self._manager.close_session(RequestContext(), session_id, self.cuts.pop(session_id))


@dataclasses.dataclass
class Cell:
    """The processes of a cell as the walk sees them, and what the users hold in their hands."""

    manager: ConsoleAuthAPI
    compute: ComputeConsoleAPI
    proxy: ProxySide
    driver: demo_driver.DemoDriver
    stopped: Callable[[], bool]
    grants: dict[str, objects.ConsoleAuthToken] = dataclasses.field(default_factory=dict)
    sessions: dict[str, objects.ConsoleSession] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def running_cell(database: pathlib.Path, stopped: Callable[[], bool] = lambda: False) -> Iterator[Cell]:
    """Run manager, compute agent and proxy side on a bus in memory.

    :param database: an SQLite file, made if it is not there
    :param stopped: whether the user wants to end it
    """
    # the only name that oslo.messaging has for one of this kind; kombu keeps it for the life of the process
    TRANSPORT_ALIASES['memory'] = f'{__name__}:{_Bus.__name__}'
    conf = _options(database)
    with contextlib.ExitStack() as stack:
        _BUS_LOG.addFilter(_worth_telling)
        stack.callback(_BUS_LOG.removeFilter, _worth_telling)
        db = manager_service.database(conf)
        stack.callback(db.dispose)
        _upgrade(db, database)
        transport = get_transport(conf)
        stack.callback(transport.cleanup)
        manager = ConsoleAuthAPI(transport)
        cell = Cell(
            manager=manager,
            compute=ComputeConsoleAPI(transport),
            proxy=ProxySide(manager),
            driver=demo_driver.DemoDriver(COMPUTE_HOST),
            stopped=stopped,
        )
        agent = ComputeConsoles(cell.driver, manager)
        servers = [
            manager_service.rpc_server_of(conf, transport, db),
            rpc_server.get_server(transport, versions.COMPUTE_TOPIC, COMPUTE_HOST, [agent]),
            rpc_server.get_server(transport, versions.PROXY_TOPIC, PROXY, [cell.proxy]),
        ]
        started: list[oslo_messaging.RPCServer] = []  # stopping another one would wait for its start
        stack.callback(_stop, started)
        for server in servers:
            server.start()
            started.append(server)
        _greet(cell)
        yield cell


def _options(database: pathlib.Path) -> cfg.ConfigOpts:
    """Options of a demo: the defaults, whatever files and variables this machine has for a real service."""
    conf = cfg.ConfigOpts()
    consoled_conf.register_opts(conf)
    conf([], project='consoled-demo', default_config_files=[], default_config_dirs=[], use_env=False)
    conf.set_override('transport_url', 'kombu+memory://')
    # memory has no heartbeats, and the driver warns that it can't send any
    conf.set_override('heartbeat_timeout_threshold', 0, group='oslo_messaging_rabbit')
    conf.set_override('host', 'manager-1')
    conf.set_override('check_port_timeout', _CHECK_TIMEOUT, group='manager')
    url = sqlalchemy.URL.create('sqlite', database=str(database))  # quotes what has a meaning in a URL
    conf.set_override('connection', url.render_as_string(), group='database')
    return conf


def _worth_telling(record: logging.LogRecord) -> bool:
    """Not that the URL of a bus in memory has no host name. With one, oslo.messaging warns instead."""
    return not str(record.msg).startswith('No hostname was supplied')


def _upgrade(db: Database, path: pathlib.Path) -> None:
    try:
        migration.upgrade(db)
    except Exception as exc:  # not a database, not ours, of a newer release, on a full disk ...
        raise NotStarted(f'{path} can not be used as the database: {exc}') from exc


def _greet(cell: Cell) -> None:
    try:
        cell.proxy.register()
        # the database may be kept from an earlier walk that was ended in its middle
        cell.manager.revoke(RequestContext(), 'restarted', compute_host=COMPUTE_HOST)
    except exception.ConsoledException as exc:
        raise NotStarted(str(exc)) from exc


def _stop(servers: Sequence[oslo_messaging.RPCServer]) -> None:
    for server in servers:
        rpc_server.drain(server)
