# SPDX-License-Identifier: Apache-2.0
"""The managers of the cell: each tells from time to time that it lives, and of which release it is.

Nothing depends on a manager being in this table; it is for operators.
"""

from __future__ import annotations

import dataclasses

import sqlalchemy as sa

from consoled.db import clock, models
from consoled.db.session import Database

ALIVE_WITHIN = 180  # seconds since its last sign of life

_M = models.console_manager.c

_NOTE = (
    sa.update(models.console_manager)
    .where(_M.name == sa.bindparam('of'))
    .values(version=sa.bindparam('version'), rpc_version=sa.bindparam('rpc_version'), seen_at=clock.utc_now())
)
_SEEN = (
    sa.select(_M.name, _M.version, _M.rpc_version, _M.seen_at, clock.utc_now().label('now'))
    .where(_M.seen_at > clock.utc_after(sa.bindparam('from_now')))
    .order_by(_M.name)
)


@dataclasses.dataclass(frozen=True)
class Manager:
    """A manager and its release.

    :param name: its ``[DEFAULT] host``
    :param rpc_version: the newest version of the RPC contract it speaks
    :param age: seconds since it was last seen
    """

    name: str
    version: str
    rpc_version: str
    age: float


def is_kept(db: Database) -> bool:
    """Whether the schema has the table: a manager may run with that of the release before."""
    return db.single(lambda conn: bool(sa.inspect(conn).has_table(models.console_manager.name)))


def note(db: Database, name: str, version: str, rpc_version: str) -> None:
    """Note that a manager lives.

    :param version: of its release
    """
    values = {'version': version, 'rpc_version': rpc_version}

    def work(conn: sa.Connection) -> None:
        if not conn.execute(_NOTE, {'of': name, **values}).rowcount:
            conn.execute(
                sa.insert(models.console_manager).values(name=name, seen_at=clock.utc_now(), **values)
            )

    db.transaction(work, racing=True)


def gone(db: Database, name: str) -> None:
    """Forget a manager that has stopped."""
    statement = sa.delete(models.console_manager).where(_M.name == name)
    db.single(lambda conn: conn.execute(statement))


def seen(db: Database, *, within: int = ALIVE_WITHIN) -> list[Manager]:
    """The managers that were seen within the last so many seconds, by name."""
    rows = db.single(lambda conn: conn.execute(_SEEN, {'from_now': -within}).all())
    return [
        Manager(row.name, row.version, row.rpc_version, (row.now - row.seen_at).total_seconds())
        for row in rows
    ]


def forget(db: Database, *, not_seen_for: int) -> int:
    """Forget the managers that were last seen more than so many seconds ago.

    :returns: how many
    """
    statement = sa.delete(models.console_manager).where(_M.seen_at <= clock.utc_after(-not_seen_for))
    return int(db.single(lambda conn: conn.execute(statement)).rowcount)
