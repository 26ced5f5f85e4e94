# SPDX-License-Identifier: Apache-2.0
"""Deletions: revoked tokens, instances that are gone, and whatever has expired."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from consoled.db import clock, consoles, models
from consoled.db.session import Database

_I = models.instances.c
_T = models.console_auth_token.c
_P = models.console_proxy.c
_S = models.console_session.c

# For this many leases a proxy stays known after its lease has ended, so that a proxy that is still alive can
# renew it after an outage of the bus or the database.
GRACE_LEASES = 10

BATCH = 1000  # rows per transaction: short locks, and small write sets on Galera

Progress = Callable[[int], object]

_Column = sa.ColumnElement[Any]


@dataclasses.dataclass(frozen=True)
class Revoked:
    """Result of ``revoke``: the number of deleted tokens, and the ids of the sessions to cut."""

    tokens: int
    sessions: list[str]


def tokens_where(filters: Mapping[str, str]) -> list[sa.ColumnElement[bool]]:
    """Return the condition for the tokens that ``revoke`` deletes with these filters."""
    if 'session_id' in filters:
        token = sa.select(_S.token_id).where(_S.id == filters['session_id'], _S.token_id.is_not(None))
        return [_T.id.in_(token)]
    return [models.console_auth_token.c[name] == value for name, value in filters.items()]


def revoke(db: Database, filters: dict[str, str], reason: str) -> Revoked:
    """Delete the matching tokens, then mark the matching sessions to be cut.

    The order matters: the deletion waits for an open in flight on its token, so the session of that open is
    in time to be marked; a later open finds no token.

    :param filters: values of ``instance_uuid``, ``project_id``, ``user_id`` or ``compute_host`` that all must
        match; or ``session_id`` alone, for that session and the token it was opened with (which would open
        the next session otherwise)
    :param reason: the ``cut_reason`` of the sessions
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

    :param compute_host: delete only what the instance has on this compute host: a guest that has moved is
        deleted on its former host and lives on. None: delete all of it.
    :returns: ids of the sessions to cut
    """

    def matching(instance: _Column, host: _Column) -> list[sa.ColumnElement[bool]]:
        on_host = [] if compute_host is None else [host == compute_host]
        return [instance == instance_uuid, *on_host]

    # Most tokens go in batches; the cascade deletes those that are added meanwhile.
    _delete_tokens(db, matching(_T.instance_uuid, _T.compute_host))

    def work(conn: sa.Connection) -> list[str]:
        conn.execute(sa.delete(models.instances).where(*matching(_I.uuid, _I.compute_host)))
        return consoles.mark_cut(conn, matching(_S.instance_uuid, _S.compute_host), reason)

    return db.transaction(work)


def delete_expired_of_host(db: Database, compute_host: str) -> int:
    """Delete the expired tokens of a compute host, and return their number."""
    return _delete_tokens(db, [_T.compute_host == compute_host, _T.expires <= clock.utc_now()])


def delete_expired(db: Database, *, older_than: int = 0, progress: Progress | None = None) -> int:
    """Delete all tokens that expired more than ``older_than`` seconds ago.

    :param progress: called after each batch with the number of tokens in it
    :returns: the number of deleted tokens
    """
    return _delete_tokens(db, [_T.expires <= clock.utc_after(-older_than)], progress)


def count_expired(db: Database, *, older_than: int = 0) -> int:
    """Return the number of tokens that ``delete_expired`` would delete."""
    statement = sa.select(sa.func.count()).where(_T.expires <= clock.utc_after(-older_than))
    return int(db.single(lambda conn: conn.execute(statement)).scalar_one())


def _delete_tokens(
    db: Database, where: list[sa.ColumnElement[bool]], progress: Progress | None = None
) -> int:
    """Delete matching tokens in batches: by primary key, which locks no gaps."""
    chosen = sa.select(_T.id).where(*where).order_by(_T.id).limit(BATCH)
    total = 0
    while True:
        ids = db.single(lambda conn: conn.execute(chosen).scalars().all())
        if not ids:
            return total
        delete = sa.delete(models.console_auth_token).where(_T.id.in_(ids))
        deleted = db.single(lambda conn: conn.execute(delete)).rowcount  # noqa: B023 - called at once
        total += deleted
        if progress is not None:
            progress(deleted)


def delete_dead_proxies(db: Database, *, ended_for: int) -> int:
    """Delete proxies whose lease ended more than ``ended_for`` seconds ago, with their sessions.

    :returns: the number of deleted proxies
    """
    statement = sa.delete(models.console_proxy).where(_P.lease_expires <= clock.utc_after(-ended_for))
    return int(db.single(lambda conn: conn.execute(statement)).rowcount)


def retire_instances(db: Database, *, unused_for: int) -> int:
    """Delete instances that no agent has defined and that have no token and no session left.

    This takes two calls at least ``unused_for`` seconds apart: one marks an instance, the other deletes it if
    it is still marked and unused. An authorize removes the mark before it stores its token, so a deletion
    never misses a new token, and no lock is held in between.

    :returns: the number of deleted instances
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
    """Return the number of instances that ``forget_compute_host`` would delete."""
    statement = sa.select(sa.func.count()).where(_I.compute_host == compute_host)
    return int(db.single(lambda conn: conn.execute(statement).scalar_one()))


def forget_compute_host(
    db: Database, compute_host: str, reason: str, progress: Progress | None = None
) -> int:
    """Delete all instances of a compute host that is gone for good.

    :param reason: the ``cut_reason`` of their sessions
    :param progress: called with 1 after each instance
    :returns: the number of deleted instances
    """
    statement = sa.select(_I.uuid).where(_I.compute_host == compute_host)
    uuids = db.single(lambda conn: conn.execute(statement).scalars().all())
    for uuid in uuids:
        forget_instance(db, uuid, reason)
        if progress is not None:
            progress(1)
    return len(uuids)
