# SPDX-License-Identifier: Apache-2.0
"""What a manager does for the old consoleauth service, while a cloud is being moved over."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import oslo_messaging
from oslo_config import cfg

from consoled.legacy import consoleauth, memcached
from consoled.rpc import server as rpc_server
from consoled.rpc.transport import get_transport
from consoled.sources import TokenSource

# told of each use of a source: its name, and how it went
Observe = Callable[[str, str], None]


def source(conf: cfg.ConfigOpts, observe: Observe = lambda source, outcome: None) -> TokenSource:
    """The tokens of the old service, in the memcached of ``[cache]``.

    :raises ValueError: the options of ``[cache]`` make no sense
    """
    return memcached.from_conf(conf, functools.partial(observe, memcached.MemcachedTokens.name))


def serve(
    conf: cfg.ConfigOpts,
    transport: oslo_messaging.RPCTransport,
    consoles: consoleauth.Consoles,
    held: contextlib.ExitStack,
) -> None:
    """Answer the old service's calls.

    :param transport: of the cell
    :param held: ends it
    """
    options = conf.workarounds
    if options.consoleauth_transport_url:
        transport = get_transport(conf, options.consoleauth_transport_url)
        held.callback(transport.cleanup)
    endpoint = consoleauth.ConsoleauthEndpoint(consoles)
    server = rpc_server.get_server(
        transport, consoleauth.TOPIC, conf.host, [endpoint], exchange=options.consoleauth_exchange
    )
    server.start()
    held.callback(rpc_server.drain, server)
