# SPDX-License-Identifier: Apache-2.0
"""Taking back: revocation, instances that are gone, and what time has made worthless."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from consoled.db import clock, consoles, models
from consoled.db.session import Database

_I = models.instances.c
_C = models.console_connection.c
_T = models.console_auth_token.c
_P = models.console_proxy.c
_S = models.console_session.c

# A proxy that is still alive has this many leases to come back after an outage of the bus or database.
LEASES_TO_COME_BACK = 10

BATCH = 1000  # rows a transaction: short locks, and small write sets on Galera

# columns a revocation can select by, where both tables have them
REVOCABLE = ('instance_uuid', 'project_id', 'user_id', 'compute_host')

Progress = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class Revoked:
    """Tokens deleted, and the ids of the sessions to cut."""

    tokens: int
    sessions: list[str]


def tokens_where(filters: Mapping[str, str]) -> list[sa.ColumnElement[bool]]:
    """The condition on tokens that ``revoke`` takes by these filters."""
    if 'session_id' in filters:
        token = sa.select(_S.token_id).where(_S.id == filters['session_id'], _S.token_id.is_not(None))
        return [_T.id.in_(token)]
    return [models.console_auth_token.c[name] == value for name, value in filters.items()]


def revoke(db: Database, filters: dict[str, str], reason: str) -> Revoked:
    """Delete the matching tokens, then mark the matching sessions to be cut.

    The order matters: a deletion waits for an open in flight on its token, so that open's session is there
    to be marked; an open that comes later finds no token.

    :param filters: equality on ``REVOCABLE`` columns, or ``session_id`` alone: that session, and the token
        it was opened with (with the token left, its user would just open the next one)
    """
    if 'session_id' in filters:
        sessions_where: list[sa.ColumnElement[bool]] = [_S.id == filters['session_id']]
    else:
        sessions_where = [models.console_session.c[name] == value for name, value in filters.items()]
    tokens = _delete_tokens(db, tokens_where(filters))
    cut = db.transaction(lambda conn: consoles.mark_cut(conn, sessions_where, reason))
    return Revoked(tokens, cut)


def forget_instance(
    db: Database, instance_uuid: str, reason: str, compute_host: str | None = None
) -> list[str]:
    """Delete an instance with its consoles and tokens; mark its sessions to be cut.

    :param compute_host: only what it has there; None: wherever it is. A guest that has moved is deleted where
        it was, and lives on.
    :returns: ids of the sessions to cut
    """

    def of(columns: Any, instance: Any) -> list[sa.ColumnElement[bool]]:
        there = [] if compute_host is None else [columns.compute_host == compute_host]
        return [instance == instance_uuid, *there]

    _delete_tokens(db, of(_T, _T.instance_uuid))  # in batches; what comes meanwhile goes below

    def work(conn: sa.Connection) -> list[str]:
        conn.execute(sa.delete(models.instances).where(*of(_I, _I.uuid)))
        return consoles.mark_cut(conn, of(_S, _S.instance_uuid), reason)

    return db.transaction(work)


def delete_expired_of_host(db: Database, compute_host: str) -> int:
    """Delete the expired tokens of a compute host.

    :returns: how many
    """
    return _delete_tokens(db, [_T.compute_host == compute_host, _T.expires <= clock.utc_now()])


def delete_expired(db: Database, *, older_than: int = 0, progress: Progress | None = None) -> int:
    """Delete all tokens that expired more than ``older_than`` seconds ago.

    :param progress: called with the number of rows after each batch
    :returns: how many
    """
    return _delete_tokens(db, [_T.expires <= clock.utc_after(-older_than)], progress)


def count_expired(db: Database, *, older_than: int = 0) -> int:
    """How many tokens ``delete_expired`` would delete."""
    statement = sa.select(sa.func.count()).where(_T.expires <= clock.utc_after(-older_than))
    return int(db.single(lambda conn: conn.execute(statement)).scalar_one())


def _delete_tokens(
    db: Database, where: list[sa.ColumnElement[bool]], progress: Progress | None = None
) -> int:
    """Delete matching tokens in batches, by primary key so that no gap is locked."""
    chosen = sa.select(_T.id).where(*where).order_by(_T.id).limit(BATCH)
    total = 0
    while True:
        ids = db.single(lambda conn: conn.execute(chosen).scalars().all())
        if not ids:
            return total
        delete = sa.delete(models.console_auth_token).where(_T.id.in_(ids))
        deleted = db.single(lambda conn: conn.execute(delete)).rowcount  # noqa: B023 - run at once
        total += deleted
        if progress is not None:
            progress(deleted)


def delete_dead_proxies(db: Database, *, ended_for: int) -> int:
    """Delete proxies whose lease ended more than ``ended_for`` seconds ago, with their sessions.

    :returns: how many proxies
    """
    statement = sa.delete(models.console_proxy).where(_P.lease_expires <= clock.utc_after(-ended_for))
    return int(db.single(lambda conn: conn.execute(statement)).rowcount)


def retire_instances(db: Database, *, unused_for: int) -> int:
    """Forget instances that no agent defined and that have no token and no session any more.

    Two steps, ``unused_for`` seconds apart: mark, then delete what is still marked and unused. An
    authorize that meets the mark takes it away before it stores its token, so the deletion and the new
    token can't miss each other, without a lock that would have to be held meanwhile.

    :returns: how many were deleted
    """
    unused = (
        _I.defined == sa.false(),
        ~sa.exists().where(_T.instance_uuid == _I.uuid),
        ~sa.exists().where(_S.instance_uuid == _I.uuid),
    )
    mark = (
        sa.update(models.instances)
        .where(_I.retired_at.is_(None), _I.created_at <= clock.utc_after(-unused_for), *unused)
        .values(retired_at=clock.utc_now())
    )
    delete = sa.delete(models.instances).where(_I.retired_at <= clock.utc_after(-unused_for), *unused)
    deleted = int(db.single(lambda conn: conn.execute(delete)).rowcount)
    db.single(lambda conn: conn.execute(mark))
    return deleted


def count_instances(db: Database, compute_host: str) -> int:
    """How many instances ``forget_compute_host`` would forget."""
    statement = sa.select(sa.func.count()).where(_I.compute_host == compute_host)
    return int(db.single(lambda conn: conn.execute(statement).scalar_one()))


def forget_compute_host(
    db: Database, compute_host: str, reason: str, progress: Progress | None = None
) -> int:
    """Forget all instances of a compute host that is gone for good.

    :returns: how many
    """
    statement = sa.select(_I.uuid).where(_I.compute_host == compute_host)
    uuids = db.single(lambda conn: conn.execute(statement).scalars().all())
    for uuid in uuids:
        forget_instance(db, uuid, reason)
        if progress is not None:
            progress(1)
    return len(uuids)
