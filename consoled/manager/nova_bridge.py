# SPDX-License-Identifier: Apache-2.0
"""``[nova]``: opening the consoles that an unmodified Nova hands out.

``consoled.nova`` is imported only while ``[nova] connection`` is set.
"""

from __future__ import annotations

from typing import Protocol

import oslo_messaging
import sqlalchemy as sa
from oslo_config import cfg

from consoled.conf.nova import NO_CONNECTION
from consoled.context import RequestContext
from consoled.db.engine import Database, unchecked_tls
from consoled.manager.metrics import Metrics
from consoled.manager.session_cutter import SessionCutter
from consoled.rpc import transport as rpc_transport
from consoled.sources import LookupObserver, TokenSource


def check_conf(conf: cfg.ConfigOpts) -> list[str]:
    """Check the options of ``[nova]``, if ``connection`` is set.

    :returns: a sentence for each thing that is not secure
    :raises ValueError: an option cannot be used
    """
    if not conf.nova.connection:
        return [f'{NO_CONNECTION}.'] if conf.nova.config_file else []
    from consoled.nova.database import NovaDatabase

    NovaDatabase.from_conf(conf).dispose()
    if _names_one_database(conf.nova.connection, conf.database.connection):
        raise ValueError(
            '[nova] connection and [database] connection name one database, but consoled needs one of its own'
        )
    risks = unchecked_tls(conf.nova.connection, '[nova] connection')
    if url := conf.nova.transport_url:
        risks += rpc_transport.check_other_bus(conf, url, '[nova] transport_url')
    return risks


def _names_one_database(*urls: str | None) -> bool:
    """Return whether URLs name one database, whatever their users, drivers and options."""
    if None in urls:
        return False
    parsed = [sa.make_url(url) for url in urls if url]
    return len({(url.get_backend_name(), url.host, url.port, url.database) for url in parsed}) == 1


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


class Watch(Protocol):
    """The watch of the sessions that were opened with tokens of Nova."""

    def run(self) -> float:
        """Make a pass, and return the seconds until the next one."""

    def end(self) -> None:
        """End the watch of this manager."""


def watch_from_conf(
    conf: cfg.ConfigOpts, db: Database, cutter: SessionCutter, metrics: Metrics
) -> Watch | None:
    """Return the watch; None unless ``[nova] connection`` is set."""
    if not conf.nova.connection:
        return None
    from consoled.nova import setup

    def cut(session_ids: list[str], reason: str) -> None:
        cutter.cut(RequestContext(overwrite=False), session_ids, reason)
        metrics.watch_cut(reason, len(session_ids))

    return setup.watcher_from_conf(conf, db, cut, metrics.watched)
