# SPDX-License-Identifier: Apache-2.0
"""``[nova]``: opening the consoles that an unmodified Nova hands out.

``consoled.nova`` is imported only while ``[nova] connection`` is set.
"""

from __future__ import annotations

import oslo_messaging
from oslo_config import cfg

from consoled.db.engine import unchecked_tls
from consoled.rpc import transport as rpc_transport
from consoled.sources import LookupObserver, TokenSource

_NO_DATABASE = (
    '[nova] connection is not set, and neither is [database] connection in the files of [nova] config_file: '
    'no token of Nova opens.'
)


def check_conf(conf: cfg.ConfigOpts) -> list[str]:
    """Check the options of ``[nova]``, if ``connection`` is set.

    :returns: a sentence for each thing that is not secure
    :raises ValueError: an option cannot be used
    :raises ImportError: the driver of the database is not installed
    """
    if not conf.nova.connection:
        return [_NO_DATABASE] if conf.nova.config_file else []
    from consoled.nova.database import NovaDatabase

    NovaDatabase.from_conf(conf).dispose()
    risks = unchecked_tls(conf.nova.connection, '[nova] connection')
    if url := conf.nova.transport_url:
        risks += rpc_transport.check_other_bus(conf, url, '[nova] transport_url')
    return risks


def sources_from_conf(
    conf: cfg.ConfigOpts,
    transport: oslo_messaging.RPCTransport,
    observe: LookupObserver,
) -> list[TokenSource]:
    """Return Nova as a source of tokens; an empty list unless ``[nova] connection`` is set.

    :param transport: the cell's
    :param observe: called with the name of the source and the outcome of each lookup in it
    """
    if not conf.nova.connection:
        return []
    from consoled.nova import setup

    return [setup.source_from_conf(conf, transport, observe)]
