# SPDX-License-Identifier: Apache-2.0
"""Deletions of what is no longer used: expired tokens, dead proxies, instances without consoles."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from consoled.db import clock, models
from consoled.db.engine import Database

_I = models.instances.c
_T = models.console_auth_token.c
_P = models.console_proxy.c
_S = models.console_session.c

# For this many leases a proxy stays known after its lease has ended, so that a proxy that is still alive can
# renew it after an outage of the bus or the database.
GRACE_LEASES = 10

BATCH = 1000  # rows per transaction: short locks, and small write sets on Galera

Progress = Callable[[int], object]


def delete_expired_of_host(db: Database, compute_host: str) -> int:
    """Delete the expired tokens of a compute host, and return their number."""
    return delete_tokens(db, [_T.compute_host == compute_host, _T.expires <= clock.utc_now()])


def delete_expired(db: Database, *, older_than: int = 0, progress: Progress | None = None) -> int:
    """Delete all tokens that expired more than ``older_than`` seconds ago.

    :param progress: called after each batch with the number of tokens in it
    :returns: the number of deleted tokens
    """
    return delete_tokens(db, [_T.expires <= clock.utc_after(-older_than)], progress)


def count_expired(db: Database, *, older_than: int = 0) -> int:
    """Return the number of tokens that ``delete_expired`` would delete."""
    statement = sa.select(sa.func.count()).where(_T.expires <= clock.utc_after(-older_than))
    return int(db.single(lambda conn: conn.execute(statement)).scalar_one())


def delete_tokens(db: Database, where: list[sa.ColumnElement[bool]], progress: Progress | None = None) -> int:
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
