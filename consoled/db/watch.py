# SPDX-License-Identifier: Apache-2.0
"""Sessions that are watched because their tokens are another service's, and whose turn it is to do so."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection

import sqlalchemy as sa

from consoled.db import clock, consoles, models
from consoled.db.engine import Database

_S = models.console_session.c
_T = models.console_auth_token.c
_W = models.session_watch.c

_TAKE = (
    sa.update(models.session_watch)
    .where(
        _W.source == sa.bindparam('of_source'),
        sa.or_(_W.manager == sa.bindparam('by'), _W.expires <= clock.utc_now()),
    )
    .values(manager=sa.bindparam('by'), expires=clock.utc_after(sa.bindparam('turn')))
)
_EXISTS = sa.select(_W.source).where(_W.source == sa.bindparam('of_source'))
_RELEASE = (
    sa.update(models.session_watch)
    .where(_W.source == sa.bindparam('of_source'), _W.manager == sa.bindparam('by'))
    .values(expires=clock.utc_now())
)

# Sessions of proxies whose lease has ended too: unlimited ones go on if their proxy comes back.
_SELECT_ALL = (
    sa.select(
        _S.id,
        _S.instance_uuid,
        _S.compute_host,
        _S.connected_at,
        _T.token_hash,
        _T.expires,
        clock.utc_now().label('now'),
    )
    .outerjoin(models.console_auth_token, _T.id == _S.token_id)
    .where(_S.source == sa.bindparam('of_source'), _S.cut_reason.is_(None))
)
_SELECT_NEW = _SELECT_ALL.where(_S.connected_at > clock.utc_after(sa.bindparam('from_now')))


@dataclasses.dataclass(frozen=True)
class Watched:
    """A live session with what has to stay true of it.

    :ivar compute_host: where the instance was when the session began
    :ivar connected_at: UTC, without a zone
    :ivar token_hash: None if the copy of the token was deleted here
    :ivar token_life: seconds until its token expires
    """

    id: str
    instance_uuid: str
    compute_host: str
    connected_at: datetime.datetime
    token_hash: str | None
    token_life: float


def has_tables(db: Database) -> bool:
    """Return whether the schema has what is needed to watch: it may be that of an earlier release."""
    return db.single(lambda conn: bool(sa.inspect(conn).has_table(models.session_watch.name)))


def take_turn(db: Database, source: str, manager: str, seconds: int) -> bool:
    """Take or prolong a manager's turn to watch the sessions of a source. One manager at a time has it.

    :param seconds: length of the turn, by the database's clock
    :returns: whether this manager has it now
    """
    values = {'of_source': source, 'by': manager, 'turn': seconds}

    def work(conn: sa.Connection) -> bool:
        if conn.execute(_TAKE, values).rowcount:
            return True
        if conn.execute(_EXISTS, {'of_source': source}).first() is None:
            row = {'source': source, 'manager': manager, 'expires': clock.utc_after(seconds)}
            conn.execute(sa.insert(models.session_watch).values(row))
            return True
        return False

    return db.transaction(work, racing=True)


def end_turn(db: Database, source: str, manager: str) -> None:
    """End the manager's turn, if it has it."""
    db.single(lambda conn: conn.execute(_RELEASE, {'of_source': source, 'by': manager}))


def list_watched(db: Database, source: str, *, within: int | None = None) -> list[Watched]:
    """Return the live sessions whose tokens are from a source.

    :param within: only those that began in the last so many seconds
    """
    values: dict[str, str | int] = {'of_source': source}
    statement = _SELECT_ALL
    if within is not None:
        statement, values = _SELECT_NEW, values | {'from_now': -within}
    rows = db.single(lambda conn: conn.execute(statement, values).all())
    return [
        Watched(
            id=row.id,
            instance_uuid=row.instance_uuid,
            compute_host=row.compute_host,
            connected_at=row.connected_at,
            token_hash=row.token_hash,
            token_life=0.0 if row.expires is None else (row.expires - row.now).total_seconds(),
        )
        for row in rows
    ]


def mark(db: Database, session_ids: Collection[str], reason: str) -> list[str]:
    """Mark sessions to be cut. Their tokens stay.

    :returns: ids of those that were not marked yet
    """
    return db.transaction(lambda conn: consoles.mark_cut(conn, [_S.id.in_(session_ids)], reason))
