# SPDX-License-Identifier: Apache-2.0
"""Setup of a manager's access to Nova, and of its watch."""

from __future__ import annotations

import functools

import oslo_messaging
from oslo_config import cfg

from consoled.db.engine import Database
from consoled.nova.compute import NovaComputeAPI
from consoled.nova.database import NovaDatabase
from consoled.nova.source import NovaTokens
from consoled.nova.watch import Cut, PassObserver, Watcher
from consoled.rpc.transport import get_transport
from consoled.sources import LookupObserver


def source_from_conf(
    conf: cfg.ConfigOpts, transport: oslo_messaging.RPCTransport, observe: LookupObserver
) -> NovaTokens:
    """Return the source of the tokens of the Nova that ``[nova]`` describes.

    :param transport: the cell's; replaced if ``[nova] transport_url`` is set
    :raises ValueError: an option cannot be used
    """
    if conf.nova.transport_url:
        transport = get_transport(conf, conf.nova.transport_url, '[nova] transport_url')
    database = NovaDatabase.from_conf(conf)
    compute = NovaComputeAPI.from_conf(conf, transport)
    return NovaTokens(database, compute, functools.partial(observe, NovaTokens.name))


def watcher_from_conf(conf: cfg.ConfigOpts, db: Database, cut: Cut, observe: PassObserver) -> Watcher:
    """Return what watches the sessions that were opened with tokens of Nova.

    :param db: the cell's database
    :raises ValueError: an option cannot be used
    """
    nova = NovaDatabase.from_conf(conf)
    return Watcher(db, nova, cut, manager=conf.host, interval=conf.nova.watch_interval, observe=observe)
