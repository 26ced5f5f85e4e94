# SPDX-License-Identifier: Apache-2.0
"""Setup of a manager's part of the old consoleauth service, while a cloud is being moved over."""

from __future__ import annotations

import contextlib
import functools
import threading

import oslo_messaging
from oslo_config import cfg

from consoled.legacy import consoleauth, memcached
from consoled.rpc import server as rpc_server
from consoled.rpc import starting
from consoled.rpc.transport import check_other_bus, get_transport
from consoled.sources import LookupObserver, TokenSource

_BUS_OPTION = '[workarounds] consoleauth_transport_url'


def source_from_conf(
    conf: cfg.ConfigOpts, observe: LookupObserver = lambda source, outcome: None
) -> TokenSource:
    """Return the source of the old service's tokens in the memcached of ``[cache]``.

    :raises ValueError: the options of ``[cache]`` are invalid
    """
    return memcached.from_conf(conf, functools.partial(observe, memcached.MemcachedTokens.name))


def check_bus(conf: cfg.ConfigOpts) -> list[str]:
    """Check the bus of the old service's callers, if they have one of their own. It is not contacted.

    :returns: a sentence for each thing that is not secure
    :raises ValueError: its URL cannot be used; the text has nothing of it
    """
    url = conf.workarounds.consoleauth_transport_url
    return check_other_bus(conf, url, _BUS_OPTION) if url else []


def start_server(
    conf: cfg.ConfigOpts,
    transport: oslo_messaging.RPCTransport,
    consoles: consoleauth.ConsoleService,
    exit_stack: contextlib.ExitStack,
    abandoned: threading.Event | None = None,
) -> None:
    """Start to answer the RPC calls of the old service's callers. Waits for a bus that refuses the server.

    :param transport: the cell's; replaced if ``[workarounds] consoleauth_transport_url`` is set
    :param exit_stack: stops the server when it is closed
    :param abandoned: ends the wait
    :raises starting.Abandoned: ``abandoned`` was set
    """
    options = conf.workarounds
    if options.consoleauth_transport_url:
        transport = get_transport(conf, options.consoleauth_transport_url, _BUS_OPTION)
        exit_stack.callback(transport.cleanup)
    endpoint = consoleauth.ConsoleauthEndpoint(consoles)
    server = starting.start(
        lambda: rpc_server.get_server(
            transport, consoleauth.TOPIC, conf.host, [endpoint], exchange=options.consoleauth_exchange
        ),
        abandoned,
    )
    exit_stack.callback(rpc_server.drain, server)
