# SPDX-License-Identifier: Apache-2.0
"""Proxies and their leases: one UPDATE of the proxy renews all its sessions."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection

import sqlalchemy as sa

from consoled import exception
from consoled.db import clock, models
from consoled.db.engine import Database
from consoled.objects import EndReason

_P = models.console_proxy.c
_S = models.console_session.c

# Seconds from a proxy's request to open a session until the session has a row and the proxy has either the
# answer or stopped waiting for it. After that the proxy knows whether the session is one of its own.
OPEN_TAKES_AT_MOST = 30

_RENEW = (
    sa.update(models.console_proxy)
    .where(_P.id == sa.bindparam('proxy'), _P.lease_expires > clock.utc_now())
    .values(lease_expires=clock.utc_after(sa.bindparam('lease')))
)
_REVIVE = (
    sa.update(models.console_proxy)
    .where(_P.id == sa.bindparam('proxy'))
    .values(lease_expires=clock.utc_after(sa.bindparam('lease')))
)
_TO_CUT = sa.select(_S.id, _S.cut_reason).where(
    _S.proxy_id == sa.bindparam('proxy'), _S.cut_reason.is_not(None)
)


@dataclasses.dataclass(frozen=True)
class Renewal:
    """Result of ``renew``: the database's time (UTC), and the sessions to cut with their reasons."""

    now: datetime.datetime
    cut: dict[str, str]


def register(db: Database, proxy_id: str, name: str, lease: int) -> datetime.datetime:
    """Register a proxy process, or renew its lease if it is known; delete earlier processes of its name.

    :param lease: seconds
    :returns: the database's time (UTC)
    """

    def work(conn: sa.Connection) -> datetime.datetime:
        conn.execute(sa.delete(models.console_proxy).where(_P.name == name, _P.id != proxy_id))
        if not conn.execute(_REVIVE, {'proxy': proxy_id, 'lease': lease}).rowcount:
            conn.execute(
                sa.insert(models.console_proxy).values(
                    id=proxy_id, name=name, lease_expires=clock.utc_after(lease)
                )
            )
        return clock.aware(conn.execute(clock.NOW).scalar_one())

    return db.transaction(work)


def renew(db: Database, proxy_id: str, lease: int) -> Renewal:
    """Renew the lease of a proxy.

    A lease that has ended is granted again while the proxy is known: its unlimited sessions went on through
    the outage and can be revoked again. The proxy has cut its limited sessions by itself, so their rows are
    deleted.

    :param lease: seconds
    :raises ProxyUnknown: there is no such proxy
    """
    values = {'proxy': proxy_id, 'lease': lease}

    def renewal(conn: sa.Connection, cut: dict[str, str]) -> Renewal:
        cut |= {row.id: row.cut_reason for row in conn.execute(_TO_CUT, {'proxy': proxy_id})}
        return Renewal(clock.aware(conn.execute(clock.NOW).scalar_one()), cut)

    def in_time(conn: sa.Connection) -> Renewal | None:
        return renewal(conn, {}) if conn.execute(_RENEW, values).rowcount else None

    def late(conn: sa.Connection) -> Renewal:
        if not conn.execute(_REVIVE, values).rowcount:
            raise exception.ProxyUnknown(proxy_id=proxy_id)
        limited = [_S.proxy_id == proxy_id, _S.slot.is_not(None)]
        lost = conn.execute(sa.select(_S.id).where(*limited)).scalars().all()
        conn.execute(sa.delete(models.console_session).where(*limited))
        return renewal(conn, dict.fromkeys(lost, EndReason.LEASE_LOST))

    return db.single(in_time) or db.transaction(late)


def reconcile(
    db: Database, proxy_id: str, session_ids: Collection[str], as_of: datetime.datetime
) -> list[str]:
    """Delete the rows of a proxy's sessions that the proxy does not have.

    Such a row is left over from an open whose answer was lost or late, or from a close that was lost. It is
    deleted only if it existed ``OPEN_TAKES_AT_MOST`` seconds before the proxy made its list.

    :param session_ids: all sessions that the proxy has
    :param as_of: when the proxy made the list, by the database's clock as an earlier reply gave it: the
        message may be old when it is read
    :returns: the ids among ``session_ids`` that have no row: the proxy must cut them
    """
    listed = set(session_ids)
    settled = as_of.astimezone(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(
        seconds=OPEN_TAKES_AT_MOST
    )
    statement = sa.select(_S.id, _S.connected_at).where(_S.proxy_id == proxy_id)
    rows = db.single(lambda conn: conn.execute(statement).all())
    stale = [row.id for row in rows if row.id not in listed and row.connected_at < settled]
    if stale:
        delete = sa.delete(models.console_session).where(_S.id.in_(stale))
        db.single(lambda conn: conn.execute(delete))
    return sorted(listed - {row.id for row in rows})
