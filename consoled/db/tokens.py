# SPDX-License-Identifier: Apache-2.0
"""Console auth tokens: store, look up, choose the next free console.

The database sees hashes only. Expiry is decided in SQL, by the database's clock.
"""

from __future__ import annotations

import dataclasses
import datetime
import random
import time
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from consoled import backoff, exception, objects
from consoled.db import clock, consoles, models
from consoled.db.session import Database

_I = models.instances.c
_C = models.console_connection.c
_T = models.console_auth_token.c
_S = models.console_session.c

_JOINED = models.console_auth_token.join(
    models.console_connection,
    sa.and_(_C.instance_uuid == _T.instance_uuid, _C.host == _T.host, _C.port == _T.port),
)
_LIVE = (_T.token_hash == sa.bindparam('token_hash'), _T.expires > clock.utc_now())
_SHOWN = (
    _T.instance_uuid,
    _T.host,
    _T.port,
    _T.compute_host,
    _T.user_id,
    _T.project_id,
    _T.expires,
    _C.console_type,
    _C.access_url_base,
    _C.options,
    _T.source,
)
_VALIDATE = sa.select(*_SHOWN).select_from(_JOINED).where(*_LIVE)
_VALIDATE_UNUSED = _VALIDATE.where(_T.used_at.is_(None))

_EXPIRES_OF = sa.select(_T.expires).where(_T.token_hash == sa.bindparam('token_hash'))

_STORED = (
    'token_hash',
    'instance_uuid',
    'host',
    'port',
    'compute_host',
    'user_id',
    'project_id',
    'request_id',
    'expires',
    'created_at',
)
# The grant is made from the console's own row: a console that is unknown, or known as another type, with
# other options or on another compute host, yields no row, and the slow path settles that.
_STORE = (
    sa.insert(models.console_auth_token)
    .from_select(
        _STORED,
        sa.select(
            sa.bindparam('token_hash', type_=sa.String),
            _C.instance_uuid,
            _C.host,
            _C.port,
            _I.compute_host,
            sa.bindparam('user_id', type_=sa.String),
            sa.bindparam('project_id', type_=sa.String),
            sa.bindparam('request_id', type_=sa.String),
            clock.utc_after(sa.bindparam('ttl')),
            clock.utc_now(),
        )
        .select_from(models.console_connection.join(models.instances, _I.uuid == _C.instance_uuid))
        .where(
            _C.instance_uuid == sa.bindparam('instance_uuid'),
            _C.host == sa.bindparam('host'),
            _C.port == sa.bindparam('port'),
            _C.console_type == sa.bindparam('console_type'),
            _C.options == sa.bindparam('options'),
            _C.access_url_base.is_not_distinct_from(sa.bindparam('access_url_base', type_=sa.String)),
            _I.compute_host == sa.bindparam('compute_host'),
            _I.retired_at.is_(None),
        ),
    )
    .execution_options(preserve_rowcount=True)  # of an INSERT it is not kept by default
)
_STORE_RETURNING = _STORE.returning(_T.expires)

_PROMISED = (
    sa.select(_T.id)
    .where(
        _T.instance_uuid == _C.instance_uuid,
        _T.host == _C.host,
        _T.port == _C.port,
        _T.expires > clock.utc_now(),
        sa.or_(
            _T.user_id.is_distinct_from(sa.bindparam('user_id', type_=sa.String)),
            _T.project_id.is_distinct_from(sa.bindparam('project_id', type_=sa.String)),
        ),
    )
    .correlate(models.console_connection)
    .exists()
)
_NEXT_FREE = (
    sa.select(
        _C.host,
        _C.port,
        _C.console_type,
        _C.access_url_base,
        _C.options,
        _I.compute_host,
        consoles.LIVE_SESSION.correlate(models.console_connection).exists().label('connected'),
        _PROMISED.label('promised'),
    )
    .select_from(models.console_connection.join(models.instances, _I.uuid == _C.instance_uuid))
    .where(
        _C.instance_uuid == sa.bindparam('instance_uuid'),
        _C.console_type == sa.bindparam('console_type'),
    )
    .order_by(sa.literal_column('connected'), sa.literal_column('promised'), _C.port, _C.host)
)
_OTHER_PROMISES = (
    sa.select(sa.func.count())
    .select_from(models.console_connection)
    .where(
        _C.instance_uuid == sa.bindparam('instance_uuid'),
        _C.host == sa.bindparam('host'),
        _C.port == sa.bindparam('port'),
        _PROMISED,
    )
)

_MOVES = 8  # times that a grant moves on to another console that is not promised
_MOVE_PAUSE = 0.02  # seconds at most, longer than a move takes: two after the last one must not meet again


@dataclasses.dataclass(frozen=True)
class Grant:
    """What ``store`` did: when the token expires (UTC), and the sessions to cut."""

    expires: datetime.datetime
    cut: list[str]


@dataclasses.dataclass(frozen=True)
class Valid:
    """A live token: without its clear text, and where it came from, if not from ``authorize``."""

    grant: objects.ConsoleAuthToken
    source: str | None


def store(
    db: Database, token_hash: str, grant: objects.ConsoleAuthToken, ttl: int, request_id: str | None
) -> Grant:
    """Store a grant; the console and its instance are made or corrected if need be.

    One INSERT, when the console is known as it is described. Repeating it with the same hash is harmless.

    :param grant: with host and port set
    :param ttl: lifetime in seconds, by the database's clock
    """
    values = _values(token_hash, grant, ttl, request_id)
    try:
        expires = db.single(lambda conn: _insert(conn, values))
    except (db_exc.DBReferenceError, db_exc.DBDuplicateEntry):
        expires = None  # the console was deleted under our hands, or an earlier try was carried out
    if expires is not None:
        return Grant(clock.aware(expires), [])
    return _store_unknown(db, grant, values)


def _values(
    token_hash: str, grant: objects.ConsoleAuthToken, ttl: int, request_id: str | None
) -> dict[str, Any]:
    return {
        'token_hash': token_hash,
        'instance_uuid': grant.instance_uuid,
        'host': grant.host,
        'port': grant.port,
        'console_type': grant.console_type,
        'options': consoles.encode_options(grant.options),
        'access_url_base': grant.access_url_base,
        'compute_host': grant.compute_host,
        'user_id': grant.user_id,
        'project_id': grant.project_id,
        'request_id': request_id,
        'ttl': ttl,
    }


def _insert(conn: sa.Connection, values: dict[str, Any]) -> datetime.datetime | None:
    """Insert the grant; returns its expiry, or None if the console is not known like that."""
    if conn.dialect.insert_returning:
        # all rows are fetched: SQLite commits a statement only when it has run to its end
        rows = conn.execute(_STORE_RETURNING, values).all()
        return rows[0].expires if rows else None
    # MySQL has no RETURNING
    if not conn.execute(_STORE, values).rowcount:
        return None
    return expires_of(conn, values['token_hash'])


def expires_of(conn: sa.Connection, token_hash: str) -> datetime.datetime | None:
    """When a token expires, by the database's clock; None: there is none."""
    return conn.execute(_EXPIRES_OF, {'token_hash': token_hash}).scalar()


def _store_unknown(db: Database, grant: objects.ConsoleAuthToken, values: dict[str, Any]) -> Grant:
    def work(conn: sa.Connection) -> Grant:
        stored = expires_of(conn, values['token_hash'])
        if stored is not None:  # by a try whose answer was lost: it is ours, hashes are not guessed
            return Grant(clock.aware(stored), [])
        where = {'instance_uuid': grant.instance_uuid}
        instance = conn.execute(consoles.INSTANCE, where).first()
        cut = consoles.settle_instance(conn, instance, grant.instance_uuid, grant.compute_host, defined=False)
        row = next(
            (
                row
                for row in conn.execute(consoles.CONSOLES, where)
                if (row.host, row.port) == (grant.host, grant.port)
            ),
            None,
        )
        cut += consoles.settle_console(conn, row, grant)
        expires = _insert(conn, values)
        if expires is None:  # another transaction changed it in between: start again
            raise db_exc.DBDeadlock()
        return Grant(clock.aware(expires), cut)

    return db.transaction(work, racing=True)


def store_next_free(
    db: Database,
    token_hash: str,
    grant: objects.ConsoleAuthToken,
    ttl: int,
    request_id: str | None,
    *,
    unlimited: bool,
) -> tuple[objects.ConsoleAuthToken, Grant]:
    """Store a grant for the next console of the type that is not connected.

    One not promised to somebody else's live token is preferred. Users who ask at the same moment may choose
    the same console: who sees that after storing the grant moves on, while there is one to move to.

    :param unlimited: consoles of this type may have any number of sessions, so a connected one will do
    :returns: the grant with its place filled in, and what was stored
    :raises InstanceNotFound: no such instance
    :raises ConsolePortsExhausted: all are connected
    """
    wanted = {
        'instance_uuid': grant.instance_uuid,
        'console_type': grant.console_type,
        'user_id': grant.user_id,
        'project_id': grant.project_id,
    }
    for move in range(_MOVES + 1):
        rows = db.single(lambda conn: conn.execute(_NEXT_FREE, wanted).all())
        rows = [row for row in rows if unlimited or not row.connected]
        if not rows:
            _raise_none_free(db, grant)
        unpromised = [row for row in rows if not (row.connected or row.promised)]
        # those who moved on together must not choose the same one again
        chosen = random.choice(unpromised) if move and unpromised else rows[0]
        placed = _placed(grant, chosen)
        stored = store(db, token_hash, placed, ttl, request_id)
        if move == _MOVES or not unpromised or not _is_promised_to_others(db, placed):
            break
        forget(db, token_hash)
        time.sleep(backoff.anywhere(_MOVE_PAUSE))
    return placed, stored


def _raise_none_free(db: Database, grant: objects.ConsoleAuthToken) -> None:
    consoles.list_free(db, grant.instance_uuid, grant.console_type)  # raises InstanceNotFound
    raise exception.ConsolePortsExhausted(instance_uuid=grant.instance_uuid, console_type=grant.console_type)


def _placed(grant: objects.ConsoleAuthToken, row: Any) -> objects.ConsoleAuthToken:
    placed: objects.ConsoleAuthToken = grant.obj_clone()
    placed.host, placed.port, placed.compute_host = row.host, row.port, row.compute_host
    placed.options = consoles.decode_options(row.options)
    # the console's own base stands, unless the caller says otherwise
    placed.access_url_base = grant.access_url_base or row.access_url_base
    return placed


def _is_promised_to_others(db: Database, placed: objects.ConsoleAuthToken) -> bool:
    names = ('instance_uuid', 'host', 'port', 'user_id', 'project_id')
    values = {name: getattr(placed, name) for name in names}
    return bool(db.single(lambda conn: conn.execute(_OTHER_PROMISES, values).scalar()))


def forget(db: Database, token_hash: str) -> None:
    """Delete a token; one that is not there is deleted already."""
    db.single(
        lambda conn: conn.execute(sa.delete(models.console_auth_token).where(_T.token_hash == token_hash))
    )


def validate(db: Database, token_hash: str, *, single_use: bool) -> Valid | None:
    """Look a live token up, without side effect."""
    statement = _VALIDATE_UNUSED if single_use else _VALIDATE
    row = db.single(lambda conn: conn.execute(statement, {'token_hash': token_hash}).first())
    if row is None:
        return None
    grant = objects.ConsoleAuthToken(
        instance_uuid=row.instance_uuid,
        console_type=row.console_type,
        host=row.host,
        port=row.port,
        compute_host=row.compute_host,
        access_url_base=row.access_url_base,
        options=consoles.decode_options(row.options),
        token=None,
        access_url=None,
        expires=clock.aware(row.expires),
        user_id=row.user_id,
        project_id=row.project_id,
    )
    return Valid(grant, row.source)
