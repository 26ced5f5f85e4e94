# SPDX-License-Identifier: Apache-2.0
"""``[nova]``: opening the consoles that an unmodified Nova hands out.

``consoled.nova`` is imported only while ``[nova] connection`` is set.
"""

from __future__ import annotations

from collections.abc import Callable

import oslo_messaging
from oslo_config import cfg

from consoled.rpc import transport as rpc_transport
from consoled.sources import TokenSource


def check_conf(conf: cfg.ConfigOpts) -> None:
    """Check the options of ``[nova]``, if ``connection`` is set.

    :raises ValueError: an option cannot be used
    :raises ImportError: the driver of the database is not installed
    """
    if not conf.nova.connection:
        return
    from consoled.nova.database import NovaDatabase

    NovaDatabase.from_conf(conf).dispose()
    if conf.nova.transport_url:
        option = '[nova] transport_url'
        rpc_transport.get_transport(conf, conf.nova.transport_url, option).cleanup()


def sources_from_conf(
    conf: cfg.ConfigOpts,
    transport: oslo_messaging.RPCTransport,
    observe: Callable[[str, str], None],
) -> list[TokenSource]:
    """Return Nova as a source of tokens; an empty list unless ``[nova] connection`` is set.

    :param transport: the cell's
    :param observe: called with the name of the source and the outcome of each lookup in it
    """
    if not conf.nova.connection:
        return []
    from consoled.nova import setup

    return [setup.source_from_conf(conf, transport, observe)]
