# SPDX-License-Identifier: Apache-2.0
"""Console auth tokens: storing them, looking them up, and choosing the next free console.

The database has hashes of tokens only. Expiry is decided in SQL, by the database's clock.
"""

from __future__ import annotations

import dataclasses
import datetime
import random
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc
from sqlalchemy.sql.dml import ReturningInsert

from consoled import backoff, exception, objects
from consoled.db import clock, consoles, contests, models
from consoled.db.engine import Database
from consoled.db.models import Row

_I = models.instances.c
_C = models.console_connection.c
_T = models.console_auth_token.c
_S = models.console_session.c

_JOINED = models.console_auth_token.join(
    models.console_connection,
    sa.and_(_C.instance_uuid == _T.instance_uuid, _C.host == _T.host, _C.port == _T.port),
)
_LIVE = (_T.token_hash == sa.bindparam('token_hash'), _T.expires > clock.utc_now())
_GRANT_COLUMNS = (
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
    contests.SUSPECT.label('suspect'),
)
_VALIDATE = sa.select(*_GRANT_COLUMNS).select_from(_JOINED).where(*_LIVE)
_VALIDATE_UNUSED = _VALIDATE.where(_T.used_at.is_(None))

_SELECT_EXPIRY = sa.select(_T.expires).where(_T.token_hash == sa.bindparam('token_hash'))

_STORED_COLUMNS = (
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


def _insert_where(*conditions: sa.ColumnElement[bool]) -> tuple[sa.Insert, ReturningInsert[Any]]:
    """Return the statement that stores a token, without and with RETURNING its expiry.

    It inserts the token from the console's own row. If the console is unknown, or known with another type,
    other options or another compute host, no row is inserted.
    """
    plain = (
        sa.insert(models.console_auth_token)
        .from_select(
            _STORED_COLUMNS,
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
                *conditions,
            ),
        )
        .execution_options(preserve_rowcount=True)  # an INSERT does not keep it by default
    )
    return plain, plain.returning(_T.expires)


# Where nothing is inserted, the slow path settles it.
_STORE = _insert_where(~contests.SHARED)
_STORE_IN_ANY_CASE = _insert_where()

# Another user has a live token for the console.
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
        *consoles.CONSOLE_COLUMNS,
        _I.compute_host,
        contests.SUSPECT.label('suspect'),
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

_MAX_RETRIES = 8  # choices of another console after a collision with another user
_MAX_PAUSE = 0.02  # seconds; longer than a retry takes, so that those who collided once do not collide again


@dataclasses.dataclass(frozen=True)
class Stored:
    """Result of storing a token: when it expires (UTC), and the ids of the sessions to cut."""

    expires: datetime.datetime
    cut: list[str]


@dataclasses.dataclass(frozen=True)
class ValidToken:
    """A live token, without its clear text.

    :ivar source: where it was issued, if not by ``authorize``
    :ivar contested: the address of its console is also that of another compute host's instance
    """

    grant: objects.ConsoleAuthToken
    source: str | None
    contested: bool


def store(
    db: Database, token_hash: str, grant: objects.ConsoleAuthToken, ttl: int, request_id: str | None
) -> Stored:
    """Store a token; insert or correct its console and instance if necessary.

    This is one INSERT if the console is known as the grant describes it. A repetition with the same hash is
    harmless.

    :param grant: with host and port set
    :param ttl: lifetime in seconds, by the database's clock
    :raises ConsoleContested: the address of the console is also that of another compute host's instance
    """
    values = _values(token_hash, grant, ttl, request_id)
    try:
        expires = db.single(lambda conn: _insert(conn, values, _STORE))
    except (db_exc.DBReferenceError, db_exc.DBDuplicateEntry):
        expires = None  # the console was deleted meanwhile, or an earlier attempt has stored the token
    if expires is not None and 'tls_port' not in grant.options:
        return Stored(clock.aware(expires), [])
    stored, contested = _store_unknown(db, grant, values)
    if contested:
        raise exception.ConsoleContested()
    return stored


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


def _insert(
    conn: sa.Connection, values: dict[str, Any], statements: tuple[sa.Insert, ReturningInsert[Any]]
) -> datetime.datetime | None:
    """Insert the token and return its expiry; None if the statement inserts nothing."""
    plain, returning = statements
    if conn.dialect.insert_returning:
        # Fetch all rows: SQLite commits a statement only when it has run to its end.
        rows = conn.execute(returning, values).all()
        return rows[0].expires if rows else None
    # MySQL has no RETURNING.
    if not conn.execute(plain, values).rowcount:
        return None
    return load_expiry(conn, values['token_hash'])


def load_expiry(conn: sa.Connection, token_hash: str) -> datetime.datetime | None:
    """Return when a token expires (UTC, without a zone); None if there is no such token."""
    return conn.execute(_SELECT_EXPIRY, {'token_hash': token_hash}).scalar()


def _store_unknown(
    db: Database, grant: objects.ConsoleAuthToken, values: dict[str, Any]
) -> tuple[Stored, bool]:
    """Store a token, its console and its instance; return also whether the console is contested.

    The token of a contested console is stored although nobody gets it: until it expires, it keeps the other
    instance from being believed.
    """

    def work(conn: sa.Connection) -> tuple[Stored, bool]:
        stored = load_expiry(conn, values['token_hash'])
        if stored is not None:  # by an earlier attempt whose answer was lost: nobody else has this hash
            return Stored(clock.aware(stored), []), contests.is_contested(
                conn, grant.instance_uuid, grant.host, grant.port
            )
        instance = conn.execute(consoles.SELECT_INSTANCE, {'instance_uuid': grant.instance_uuid}).first()
        cut = consoles.ensure_instance(conn, instance, grant.instance_uuid, grant.compute_host, defined=False)
        row = consoles.load_console(conn, grant.instance_uuid, grant.host, grant.port)
        cut += consoles.ensure_console(conn, row, grant.console())
        expires = _insert(conn, values, _STORE_IN_ANY_CASE)
        if expires is None:  # another transaction has changed it in between, so start again
            raise db_exc.DBDeadlock()
        return Stored(clock.aware(expires), cut), contests.is_contested(
            conn, grant.instance_uuid, grant.host, grant.port
        )

    return db.transaction(work, racing=True)


def store_next_free(
    db: Database,
    token_hash: str,
    grant: objects.ConsoleAuthToken,
    ttl: int,
    request_id: str | None,
    *,
    unlimited: bool,
) -> tuple[objects.ConsoleAuthToken, Stored]:
    """Store a token for the next console of the type that has no live session.

    A console without a live token of another user is preferred. Concurrent calls may choose the same console:
    a call that finds this out after storing its token chooses again, while there is another console.

    :param unlimited: consoles of this type may have any number of sessions, so one with a session will do
    :returns: the grant with its console filled in, and the result of storing it
    :raises InstanceNotFound: there is no such instance
    :raises ConsolePortsExhausted: all consoles of the type have a session
    :raises ConsoleContested: the addresses of all free ones are also those of other compute hosts' instances
    """
    wanted = {
        'instance_uuid': grant.instance_uuid,
        'console_type': grant.console_type,
        'user_id': grant.user_id,
        'project_id': grant.project_id,
    }
    for attempt in range(_MAX_RETRIES + 1):
        rows = db.single(lambda conn: conn.execute(_NEXT_FREE, wanted).all())
        rows = [row for row in rows if unlimited or not row.connected]
        if not rows:
            _raise_none_free(db, grant)
        free = _uncontested(db, grant.instance_uuid, rows)
        if not free:
            raise exception.ConsoleContested()
        unclaimed = [row for row in free if not (row.connected or row.promised)]
        # Chosen at random after a collision, or those who collided would choose the same console again.
        chosen = random.choice(unclaimed) if attempt and unclaimed else free[0]
        completed = _with_console(grant, chosen)
        stored = store(db, token_hash, completed, ttl, request_id)
        if attempt == _MAX_RETRIES or not unclaimed or not _is_promised_to_others(db, completed):
            break
        delete(db, token_hash)
        time.sleep(backoff.anywhere(_MAX_PAUSE))
    return completed, stored


def _uncontested(db: Database, instance_uuid: str, rows: Sequence[Row]) -> list[Row]:
    def work(conn: sa.Connection) -> list[Row]:
        return [
            row
            for row in rows
            if not (row.suspect and contests.is_contested(conn, instance_uuid, row.host, row.port))
        ]

    return db.single(work) if any(row.suspect for row in rows) else list(rows)


def _raise_none_free(db: Database, grant: objects.ConsoleAuthToken) -> None:
    consoles.list_free(db, grant.instance_uuid, grant.console_type)  # raises InstanceNotFound
    raise exception.ConsolePortsExhausted(instance_uuid=grant.instance_uuid, console_type=grant.console_type)


def _with_console(grant: objects.ConsoleAuthToken, row: Row) -> objects.ConsoleAuthToken:
    completed = grant.copy()
    completed.host, completed.port, completed.compute_host = row.host, row.port, row.compute_host
    completed.options = consoles.decode_options(row.options)
    # The caller may replace the console's own base URL.
    completed.access_url_base = grant.access_url_base or row.access_url_base
    return completed


def _is_promised_to_others(db: Database, grant: objects.ConsoleAuthToken) -> bool:
    names = ('instance_uuid', 'host', 'port', 'user_id', 'project_id')
    values = {name: getattr(grant, name) for name in names}
    return bool(db.single(lambda conn: conn.execute(_OTHER_PROMISES, values).scalar()))


def delete(db: Database, token_hash: str) -> None:
    """Delete a token; one that does not exist is deleted already."""
    db.single(
        lambda conn: conn.execute(sa.delete(models.console_auth_token).where(_T.token_hash == token_hash))
    )


def validate(db: Database, token_hash: str, *, single_use: bool) -> ValidToken | None:
    """Look up a live token, without side effect.

    :param single_use: whether a token that was used is no longer live
    :returns: None if there is no such live token
    """
    statement = _VALIDATE_UNUSED if single_use else _VALIDATE

    def work(conn: sa.Connection) -> tuple[Row | None, bool]:
        row = conn.execute(statement, {'token_hash': token_hash}).first()
        return row, row is not None and bool(row.suspect) and contests.is_contested(conn, *row[:3])

    row, contested = db.single(work)
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
    return ValidToken(grant, row.source, contested)
