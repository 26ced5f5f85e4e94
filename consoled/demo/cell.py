# SPDX-License-Identifier: Apache-2.0
"""The cell of the demo: manager, compute agent, proxy and guests in one process, on an in-memory bus."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

import oslo_messaging
import sqlalchemy
from oslo_config import cfg
from websockets.sync import client

from consoled import conf as consoled_conf
from consoled import exception, objects
from consoled.compute.drivers import demo as demo_driver
from consoled.compute.endpoint import ComputeConsoleEndpoint
from consoled.context import RequestContext
from consoled.db import migration
from consoled.db.engine import Database
from consoled.demo import bus
from consoled.demo.proxy import ProxyThread
from consoled.manager import service as manager_service
from consoled.manager.manager import ConsoleAuthManager
from consoled.rpc import server as rpc_server
from consoled.rpc import versions
from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from consoled.testing.guests.host import GuestHost
from consoled.testing.guests.serial_guest import SerialGuest
from consoled.testing.guests.vnc_guest import VncGuest

COMPUTE_HOST = 'compute-1'
PROXY = 'proxy-1'

_HOST = '127.0.0.1'
_CHECK_TIMEOUT = 5.0  # seconds; more than the default, since the machine may be busy
_AUTHORIZE_TIMEOUT = 15.0  # seconds; the same


class NotStarted(Exception):
    """The cell cannot be run; the message says why."""


@dataclasses.dataclass
class Cell:
    """The cell as the walk uses it, and what its users hold.

    :ivar manager: client of the manager
    :ivar compute: client of the compute agent
    :ivar stopped: returns whether the user has asked to stop
    :ivar grants: tokens by the name that the walk gives them
    :ivar connections: open websockets by user
    """

    manager: ConsoleAuthAPI
    compute: ComputeConsoleAPI
    proxy: ProxyThread
    driver: demo_driver.DemoDriver
    stopped: Callable[[], bool]
    grants: dict[str, objects.ConsoleAuthToken] = dataclasses.field(default_factory=dict)
    connections: dict[str, client.ClientConnection] = dataclasses.field(default_factory=dict)

    def define_consoles(self) -> None:
        """Define the consoles of the guests, as the compute agent of a real host does."""
        for instance_uuid in self.driver.list_instances():
            consoles = objects.ConsoleConnectionList(objects=self.driver.list_consoles(instance_uuid))
            self.manager.define_consoles(RequestContext(), instance_uuid, COMPUTE_HOST, consoles)


@contextlib.contextmanager
def running_cell(
    database: pathlib.Path, port: int = 0, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Cell]:
    """Run a cell on loopback addresses.

    :param database: path of an SQLite file, created if missing
    :param port: port of the proxy; 0 for any free one
    :param stopped: returns whether the user has asked to stop
    :raises NotStarted: the cell cannot be run
    """
    conf = _options(database, port)
    with contextlib.ExitStack() as stack:
        stack.enter_context(bus.in_use())
        db = Database.from_conf(conf)
        stack.callback(db.dispose)
        _upgrade(db, database)
        transport = get_transport(conf)
        stack.callback(transport.cleanup)
        manager = ConsoleAuthAPI(transport)
        try:
            proxy = ProxyThread(conf, transport, PROXY)
        except OSError as exc:
            raise NotStarted(f'port {port}: {exc.strerror}') from exc
        cell = Cell(
            manager=manager,
            compute=ComputeConsoleAPI(transport),
            proxy=proxy,
            driver=_driver(stack.enter_context(GuestHost()), proxy.url),
            stopped=stopped,
        )
        agent = ComputeConsoleEndpoint(cell.driver, manager)
        servers = [
            manager_service.build_rpc_server(
                conf, transport, ConsoleAuthManager.from_conf(conf, transport, db)
            ),
            rpc_server.get_server(transport, versions.COMPUTE_TOPIC, COMPUTE_HOST, [agent]),
        ]
        started: list[oslo_messaging.RPCServer] = []  # stopping any other server would wait for its start
        stack.callback(_stop, started)
        for server in servers:
            server.start()
            started.append(server)
        stack.callback(proxy.stop)
        _start_proxy(cell)
        yield cell


def _options(database: pathlib.Path, port: int) -> cfg.ConfigOpts:
    """Return the options of the demo. Configuration files and environment variables are ignored."""
    conf = cfg.ConfigOpts()
    consoled_conf.register_opts(conf)
    conf([], project='consoled-demo', default_config_files=[], default_config_dirs=[], use_env=False)
    url = sqlalchemy.URL.create('sqlite', database=str(database))  # quotes special characters
    for group, option, value in (
        (None, 'transport_url', 'kombu+memory://'),
        (None, 'host', 'manager-1'),
        # the in-memory transport has no heartbeats, and the driver would warn about that
        ('oslo_messaging_rabbit', 'heartbeat_timeout_threshold', 0),
        ('manager', 'check_port_timeout', _CHECK_TIMEOUT),
        ('database', 'connection', url.render_as_string()),
        ('proxy', 'host', _HOST),
        ('proxy', 'port', port),
        ('proxy', 'allowed_networks', [f'{_HOST}/32']),
        ('proxy', 'allowed_ports', ['1024-65535']),
        ('proxy', 'authorize_timeout', _AUTHORIZE_TIMEOUT),
    ):
        conf.set_override(option, value, group=group)
    return conf


def _driver(guests: GuestHost, url: str) -> demo_driver.DemoDriver:
    """Start the guests, and return the driver of the compute agent for them."""
    screen = guests.add(VncGuest(_HOST, name=demo_driver.DESKTOP.name))
    ports = [
        guests.add(SerialGuest(_HOST, name=demo_driver.ROUTER.name)) for _ in demo_driver.ROUTER.consoles
    ]
    return demo_driver.DemoDriver(
        COMPUTE_HOST,
        [
            demo_driver.DESKTOP.moved_to(_HOST, [screen.port], f'{url}novnc.html'),
            demo_driver.ROUTER.moved_to(_HOST, [port.port for port in ports], f'{url}serial.html'),
        ],
    )


def _upgrade(db: Database, path: pathlib.Path) -> None:
    try:
        migration.upgrade(db)
    except Exception as exc:  # not a database, not ours, from a newer release, disk full ...
        raise NotStarted(f'{path} cannot be used as the database: {exc}') from exc


def _start_proxy(cell: Cell) -> None:
    try:
        cell.proxy.start(cell.stopped)
        # a kept database may have tokens and sessions of an earlier walk that was interrupted
        cell.manager.revoke(RequestContext(), 'restarted', compute_host=COMPUTE_HOST)
    except exception.ConsoledException as exc:
        raise NotStarted(str(exc)) from exc


def _stop(servers: Sequence[oslo_messaging.RPCServer]) -> None:
    for server in servers:
        rpc_server.drain(server)
