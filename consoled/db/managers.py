# SPDX-License-Identifier: Apache-2.0
"""The managers of the cell, listed by their heartbeats. The list is for operators: no decision uses it."""

from __future__ import annotations

import dataclasses
import datetime

import sqlalchemy as sa

from consoled.db import clock, models
from consoled.db.engine import Database

ALIVE_WITHIN = 180  # seconds since the last heartbeat

_M = models.console_manager.c

_UPDATE = (
    sa.update(models.console_manager)
    .where(_M.name == sa.bindparam('manager'))
    .values(version=sa.bindparam('version'), rpc_version=sa.bindparam('rpc_version'), seen_at=clock.utc_now())
)
_SELECT_SEEN = sa.select(_M.seen_at).where(_M.name == sa.bindparam('manager'))
_SELECT_ALIVE = (
    sa.select(_M.name, _M.version, _M.rpc_version, _M.seen_at, clock.utc_now().label('now'))
    .where(_M.seen_at > clock.utc_after(sa.bindparam('from_now')))
    .order_by(_M.name)
)


@dataclasses.dataclass(frozen=True)
class Manager:
    """A manager as of its last heartbeat.

    :ivar name: its ``[DEFAULT] host``
    :ivar version: its release
    :ivar rpc_version: newest version of the RPC contract that it speaks
    :ivar age: seconds since the heartbeat
    """

    name: str
    version: str
    rpc_version: str
    age: float


@dataclasses.dataclass(frozen=True)
class Beat:
    """A heartbeat that was stored.

    :ivar at: its moment, by the database's clock
    :ivar previous_at: moment of the heartbeat of this name that it replaces; None if there was none
    :ivar silence: seconds between the two
    """

    at: datetime.datetime
    previous_at: datetime.datetime | None
    silence: float | None


def has_table(db: Database) -> bool:
    """Return whether the schema has the table of managers: it may be that of an earlier release."""
    return db.single(lambda conn: bool(sa.inspect(conn).has_table(models.console_manager.name)))


def record_heartbeat(db: Database, name: str, version: str, rpc_version: str) -> Beat:
    """Store a manager's heartbeat.

    :param version: the manager's release
    """
    values = {'version': version, 'rpc_version': rpc_version}

    def work(conn: sa.Connection) -> Beat:
        before = conn.execute(_SELECT_SEEN, {'manager': name}).one_or_none()
        if not conn.execute(_UPDATE, {'manager': name, **values}).rowcount:
            conn.execute(
                sa.insert(models.console_manager).values(name=name, seen_at=clock.utc_now(), **values)
            )
        after = conn.execute(_SELECT_SEEN, {'manager': name}).one()
        return Beat(
            at=after.seen_at,
            previous_at=None if before is None else before.seen_at,
            silence=None if before is None else (after.seen_at - before.seen_at).total_seconds(),
        )

    return db.transaction(work, racing=True)


def remove(db: Database, name: str) -> None:
    """Delete a manager that has stopped."""
    statement = sa.delete(models.console_manager).where(_M.name == name)
    db.single(lambda conn: conn.execute(statement))


def list_alive(db: Database, *, within: int = ALIVE_WITHIN) -> list[Manager]:
    """Return the managers with a heartbeat in the last ``within`` seconds, by name."""
    rows = db.single(lambda conn: conn.execute(_SELECT_ALIVE, {'from_now': -within}).all())
    return [
        Manager(row.name, row.version, row.rpc_version, (row.now - row.seen_at).total_seconds())
        for row in rows
    ]


def delete_silent(db: Database, *, silent_for: int) -> int:
    """Delete the managers whose last heartbeat is more than ``silent_for`` seconds old.

    :returns: the number of deleted managers
    """
    statement = sa.delete(models.console_manager).where(_M.seen_at <= clock.utc_after(-silent_for))
    return int(db.single(lambda conn: conn.execute(statement)).rowcount)
