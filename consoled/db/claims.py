# SPDX-License-Identifier: Apache-2.0
"""Claims of a console's slots: a unique key decides them, never a read before the write."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from consoled import exception, objects
from consoled.db import clock, models
from consoled.db.engine import Database
from consoled.db.models import Row
from consoled.db.sessions import BY_ID, OpenRequest, load, to_session

_C = models.console_connection.c
_T = models.console_auth_token.c
_P = models.console_proxy.c
_S = models.console_session.c

_CLAIMED: dict[str, sa.ColumnElement[Any]] = {
    'id': sa.bindparam('session_id', type_=sa.String),
    'proxy_id': _P.id,
    'instance_uuid': _T.instance_uuid,
    'host': sa.bindparam('host', type_=sa.String),
    'port': sa.bindparam('port', type_=sa.Integer),
    'console_type': sa.bindparam('console_type', type_=sa.String),
    'compute_host': _T.compute_host,
    'slot': sa.bindparam('slot', type_=sa.Integer),
    'token_id': _T.id,
    'user_id': _T.user_id,
    'project_id': _T.project_id,
    'client_address': sa.bindparam('client_address', type_=sa.String),
    'connected_at': clock.utc_now(),
    'ends_at': sa.case((sa.bindparam('ends', type_=sa.Boolean), _T.expires), else_=sa.null()),
}


def _insert(columns: dict[str, sa.ColumnElement[Any]]) -> sa.Insert:
    """Return the statement that inserts a session if the proxy's lease and the token are alive."""
    return (
        sa.insert(models.console_session)
        .from_select(
            list(columns),
            sa.select(*columns.values())
            .select_from(models.console_proxy.join(models.console_auth_token, sa.true()))
            .where(
                _P.id == sa.bindparam('proxy_id'),
                _P.lease_expires > clock.utc_now(),
                _T.id == sa.bindparam('token_id'),
                _T.expires > clock.utc_now(),
            ),
        )
        .execution_options(preserve_rowcount=True)  # an INSERT does not keep it by default
    )


_CLAIM = _insert(_CLAIMED)
# A schema of the previous release has no such column. Only what is watched needs it.
_CLAIM_WATCHED = _insert({**_CLAIMED, 'source': _T.source})
_SPEND = (
    sa.update(models.console_auth_token)
    .where(_T.id == sa.bindparam('token'), _T.used_at.is_(None))
    .values(used_at=clock.utc_now())
)
# A session has no foreign key to its console. The lock on the token's row keeps the token's own console until
# the claim is complete. Another console is kept by a lock on its row: whoever drops it waits, and then finds
# the session to cut.
_HOLD = (
    sa.update(models.console_connection)
    .where(
        _C.instance_uuid == sa.bindparam('instance'),
        _C.host == sa.bindparam('at_host'),
        _C.port == sa.bindparam('at_port'),
    )
    .values(updated_at=clock.utc_now())
)
_SCOPE_COLUMNS = {'token': _S.token_id, 'instance': _S.instance_uuid, 'project': _S.project_id}
_PROXY_ALIVE = sa.select(_P.id).where(_P.id == sa.bindparam('proxy_id'), _P.lease_expires > clock.utc_now())
_HOLDERS = (
    sa.select(
        _S.id,
        _S.slot,
        _S.connected_at,
        _S.cut_reason,
        (_P.lease_expires > clock.utc_now()).label('alive'),
    )
    .join(models.console_proxy, _P.id == _S.proxy_id)
    .where(
        _S.instance_uuid == sa.bindparam('instance_uuid'),
        _S.host == sa.bindparam('host'),
        _S.port == sa.bindparam('port'),
        _S.slot.is_not(None),
    )
    .order_by(_S.connected_at, _S.id)
)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Maximum numbers of sessions: of the console, and per token, instance and project. 0 means no limit."""

    console: int
    token: int = 0
    instance: int = 0
    project: int = 0


@dataclasses.dataclass(frozen=True)
class Holder:
    """A session that holds a slot of a console.

    :ivar cut: the session is already marked to be cut
    """

    id: str
    connected_at: datetime.datetime
    cut: bool


class SlotsTaken(Exception):
    """All slots of a console are taken.

    :param holders: the sessions that hold them, the oldest first
    """

    def __init__(self, holders: list[Holder]) -> None:
        super().__init__()
        self.holders = holders


class _NotClaimed(Exception):
    """The proxy's lease or the token was not alive at the moment of the claim."""


def claim(
    db: Database,
    request: OpenRequest,
    limits: Limits,
    *,
    single_use: bool,
    ends_with_token: bool,
    watched: bool = False,
) -> objects.ConsoleSession:
    """Create the session in a free slot of its console, and spend a single-use token, in one transaction.

    If the first slot is taken, slots that are held by proxies whose lease has ended are freed.

    :param single_use: the token opens one session only
    :param ends_with_token: the session ends when the token expires
    :param watched: note the source of the token, so that ``watch.list_watched`` finds the session
    :raises SlotsTaken: all slots of the console are taken
    :raises InvalidArgument: the session id belongs to another session
    :raises InvalidToken: the token was spent or revoked, or has expired, since it was looked up
    :raises ProxyUnknown: the proxy has no live lease
    :raises TooManySessions: a limit per token, instance or project is reached
    :raises ConsoleGone: the console is not the token's, and was dropped since it was looked up
    """
    slot = 0 if limits.console else None
    while True:
        try:
            return _claim_slot(db, request, slot, limits, single_use, ends_with_token, watched)
        except (_NotClaimed, db_exc.DBReferenceError):
            # The token or the lease has ended, or the row of one was deleted during the claim.
            raise _refusal(db, request) from None
        except (db_exc.DBDuplicateEntry, exception.InvalidToken) as exc:
            # The same request may be running twice, and the other one was first.
            repeated = load(db, request)
            if repeated is not None:
                return repeated
            if isinstance(exc, exception.InvalidToken):
                raise
            slot = _free_slot(db, request, limits.console)


def _claim_slot(
    db: Database,
    request: OpenRequest,
    slot: int | None,
    limits: Limits,
    single_use: bool,
    ends_with_token: bool,
    watched: bool,
) -> objects.ConsoleSession:
    console = request.console
    values = {
        'session_id': request.session_id,
        'proxy_id': request.proxy_id,
        'token_id': request.token_id,
        'host': console.host,
        'port': console.port,
        'console_type': console.console_type,
        'client_address': request.client_address,
        'slot': slot,
        'ends': ends_with_token,
    }

    def work(conn: sa.Connection) -> objects.ConsoleSession:
        if request.elsewhere:
            _hold(conn, console)
        if single_use and not conn.execute(_SPEND, {'token': request.token_id}).rowcount:
            raise exception.InvalidToken()
        if not conn.execute(_CLAIM_WATCHED if watched else _CLAIM, values).rowcount:
            raise _NotClaimed  # the rollback leaves the token unspent
        _check_limits(conn, request, limits)
        row = conn.execute(BY_ID, {'session_id': request.session_id}).one()
        return to_session(row, console)

    return db.transaction(work)


def _hold(conn: sa.Connection, console: objects.ConsoleConnection) -> None:
    """Keep a console from being dropped until the transaction ends.

    :raises ConsoleGone: it was dropped
    """
    at = {'instance': console.instance_uuid, 'at_host': console.host, 'at_port': console.port}
    if not conn.execute(_HOLD, at).rowcount:
        raise exception.ConsoleGone()


def _refusal(db: Database, request: OpenRequest) -> exception.ConsoledException:
    values = {'proxy_id': request.proxy_id}
    if db.single(lambda conn: conn.execute(_PROXY_ALIVE, values).first()) is None:
        return exception.ProxyUnknown(proxy_id=request.proxy_id)
    return exception.InvalidToken()


def _check_limits(conn: sa.Connection, request: OpenRequest, limits: Limits) -> None:
    """Check the limits with the new row in place: over a limit, the transaction is rolled back.

    Opens in flight do not see each other, so as many sessions as are opened in the same instant may exceed a
    limit. These limits keep one user from filling a process; the console's own limit is exact.

    :raises TooManySessions: a limit is exceeded
    """
    values = {
        'token': request.token_id,
        'instance': request.console.instance_uuid,
        'project': request.project_id,
    }
    scopes = tuple(scope for scope in _SCOPE_COLUMNS if getattr(limits, scope) and values[scope] is not None)
    if not scopes:
        return
    counts = conn.execute(_count(scopes), values).one()
    for scope, count in zip(scopes, counts, strict=True):
        limit = getattr(limits, scope)
        if count > limit:
            raise exception.TooManySessions(limit=limit, scope=scope)


@functools.cache
def _count(scopes: tuple[str, ...]) -> sa.Select[Any]:
    """Return the statement that counts the live sessions of each scope. Built once: it is on the hot path."""
    live = models.console_session.join(models.console_proxy, _P.id == _S.proxy_id)
    return sa.select(
        *(
            sa.select(sa.func.count())
            .select_from(live)
            .where(_SCOPE_COLUMNS[scope] == sa.bindparam(scope), _P.lease_expires > clock.utc_now())
            .scalar_subquery()
            for scope in scopes
        )
    )


def check_slot(db: Database, console: objects.ConsoleConnection, limit: int) -> None:
    """Check whether a console has a slot that no live session holds.

    :param limit: of its sessions; 0 means no limit
    :raises SlotsTaken: live sessions hold all slots
    """
    if limit:
        _find_free(_holders(db, console), limit)


def _free_slot(db: Database, request: OpenRequest, limit: int) -> int:
    """Return a slot that no live session holds; delete the sessions of proxies whose lease has ended.

    :raises SlotsTaken: live sessions hold all slots
    """
    rows = _holders(db, request.console)
    dead = [row.id for row in rows if not row.alive]
    if dead:
        db.single(lambda conn: conn.execute(_delete_dead(dead)))
    return _find_free(rows, limit)


def _holders(db: Database, console: objects.ConsoleConnection) -> Sequence[Row]:
    values = {'instance_uuid': console.instance_uuid, 'host': console.host, 'port': console.port}
    return db.single(lambda conn: conn.execute(_HOLDERS, values).all())


def _find_free(rows: Sequence[Row], limit: int) -> int:
    taken = {row.slot for row in rows if row.alive}
    free = [slot for slot in range(limit) if slot not in taken]
    if free:
        return free[0]
    raise SlotsTaken(
        [
            Holder(row.id, clock.aware(row.connected_at), row.cut_reason is not None)
            for row in rows
            if row.alive
        ]
    )


def _delete_dead(session_ids: list[str]) -> sa.Delete:
    """Return the statement that deletes these sessions, unless their proxy has renewed its lease since."""
    return sa.delete(models.console_session).where(
        _S.id.in_(session_ids),
        _S.proxy_id.in_(sa.select(_P.id).where(_P.lease_expires <= clock.utc_now())),
    )
