# SPDX-License-Identifier: Apache-2.0
"""Revocation: tokens deleted and sessions marked to be cut, on request or because their instance is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from consoled.db import consoles, models
from consoled.db.cleanup import Progress, delete_tokens
from consoled.db.engine import Database

_I = models.instances.c
_T = models.console_auth_token.c
_S = models.console_session.c

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
    tokens = delete_tokens(db, tokens_where(filters))
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
    delete_tokens(db, matching(_T.instance_uuid, _T.compute_host))

    def work(conn: sa.Connection) -> list[str]:
        conn.execute(sa.delete(models.instances).where(*matching(_I.uuid, _I.compute_host)))
        return consoles.mark_cut(conn, matching(_S.instance_uuid, _S.compute_host), reason)

    return db.transaction(work)


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
