# SPDX-License-Identifier: Apache-2.0
"""Sessions: lookups, listing and closing. ``claims`` creates them."""

from __future__ import annotations

import dataclasses

import sqlalchemy as sa

from consoled import exception, objects
from consoled.db import clock, consoles, contests, models, ports
from consoled.db.engine import Database
from consoled.db.models import Row

_I = models.instances.c
_C = models.console_connection.c
_T = models.console_auth_token.c
_P = models.console_proxy.c
_S = models.console_session.c

SESSION_COLUMNS = (
    _S.id,
    _S.proxy_id,
    _S.instance_uuid,
    _S.host,
    _S.port,
    _S.console_type,
    _S.compute_host,
    _S.user_id,
    _S.project_id,
    _S.client_address,
    _S.connected_at,
    _S.ends_at,
    _S.cut_reason,
    _S.slot,
)

# Seconds after its first use for which the session of a single-use token gets further channels (SPICE). A
# proxy that is slow to connect asks again, too.
_OPENS_FOR = 60

# Everything that the decision to open a session needs, in one statement.
_FOR_OPEN = (
    sa.select(
        _T.id.label('token_id'),
        _T.instance_uuid,
        _T.host,
        _T.port,
        _I.compute_host,  # the token's own may have been unknown when it was stored
        _T.user_id,
        _T.project_id,
        _T.used_at,
        (_T.used_at < clock.utc_after(-_OPENS_FOR)).label('used_before'),
        _T.source,
        _C.console_type,
        _C.access_url_base,
        _C.options,
        _I.defined,
        _S.id.label('session_id'),
        _S.host.label('session_host'),
        _S.port.label('session_port'),
        _S.token_id.label('session_token'),
        contests.SUSPECT.label('suspect'),
    )
    .select_from(
        models.console_auth_token.join(
            models.console_connection,
            sa.and_(_C.instance_uuid == _T.instance_uuid, _C.host == _T.host, _C.port == _T.port),
        )
        .join(models.instances, _I.uuid == _T.instance_uuid)
        .outerjoin(models.console_session, _S.id == sa.bindparam('session_id'))
    )
    .where(_T.token_hash == sa.bindparam('token_hash'), _T.expires > clock.utc_now())
)
BY_ID = sa.select(*SESSION_COLUMNS, _S.token_id).where(_S.id == sa.bindparam('session_id'))
_CLOSE = sa.delete(models.console_session).where(_S.id == sa.bindparam('session_id'))
_CLOSE_OWN = _CLOSE.where(_S.proxy_id == sa.bindparam('proxy_id'))


@dataclasses.dataclass(frozen=True)
class OpenRequest:
    """A request to open a session, with the console and the user of its token.

    :ivar spent: the token has been used
    :ivar used_before: that was so long ago that it is no part of this open
    :ivar defined: a compute agent has defined the console
    :ivar already_open: the same request was carried out before
    :ivar contested: the address of the console is also that of another compute host's instance
    :ivar source: where the token was issued, if not by ``authorize``
    :ivar opened_at: host and port of the session, if this token has opened it already
    :ivar elsewhere: the console is another one than the token's
    """

    session_id: str
    proxy_id: str
    client_address: str | None
    token_id: int
    console: objects.ConsoleConnection
    user_id: str | None
    project_id: str | None
    spent: bool
    used_before: bool
    defined: bool
    already_open: bool
    contested: bool
    source: str | None
    opened_at: tuple[str, int] | None = None
    elsewhere: bool = False


def find_for_open(
    db: Database, token_hash: str, session_id: str, proxy_id: str, client_address: str | None
) -> OpenRequest | None:
    """Look up a live token for a session to open.

    :param session_id: chosen by the proxy
    :returns: None if there is no such live token
    """
    values = {'token_hash': token_hash, 'session_id': session_id}

    def work(conn: sa.Connection) -> tuple[Row | None, bool]:
        row = conn.execute(_FOR_OPEN, values).first()
        contested = row is not None and bool(row.suspect) and contests.is_contested(conn, *row[1:4])
        return row, contested

    row, contested = db.single(work)
    if row is None:
        return None
    return OpenRequest(
        session_id=session_id,
        proxy_id=proxy_id,
        client_address=client_address,
        token_id=row.token_id,
        console=consoles.to_connection(row.instance_uuid, row.compute_host, row),
        user_id=row.user_id,
        project_id=row.project_id,
        spent=row.used_at is not None,
        used_before=bool(row.used_before),
        defined=bool(row.defined),
        already_open=row.session_id is not None,
        contested=contested,
        source=row.source,
        opened_at=(row.session_host, row.session_port) if row.session_token == row.token_id else None,
    )


def load(db: Database, request: OpenRequest) -> objects.ConsoleSession | None:
    """Return the session of a request that was carried out before; None if there is no session of that id.

    :raises InvalidArgument: the session id belongs to another session
    :raises ConsoleGone: the console that it opened is not defined any more
    """
    row = db.single(lambda conn: conn.execute(BY_ID, {'session_id': request.session_id}).first())
    if row is None:
        return None
    # A revocation deletes the token, which clears token_id, and marks the session to be cut.
    if row.proxy_id != request.proxy_id or row.token_id not in (request.token_id, None):
        raise exception.InvalidArgument(argument='session_id', reason='is in use for another session')
    console = request.console
    if (row.host, row.port) != (console.host, console.port):
        opened = ports.find(db, console.instance_uuid, row.host, row.port)
        if opened is None:
            raise exception.ConsoleGone()
        console = opened.console
    return to_session(row, console)


def mark_taken_over(db: Database, session_id: str, reason: str) -> None:
    """Mark a session to be cut, because another user takes its slot over."""
    db.single(lambda conn: consoles.mark_cut(conn, [_S.id == session_id], reason))


def close(db: Database, session_id: str, proxy_id: str | None = None) -> bool:
    """Delete a session, which frees its slot. A session that does not exist is closed already.

    :param proxy_id: close the session only if it is this proxy's
    :returns: whether a session was closed
    """
    statement = _CLOSE if proxy_id is None else _CLOSE_OWN
    values = {'session_id': session_id, 'proxy_id': proxy_id}
    return bool(db.single(lambda conn: conn.execute(statement, values).rowcount))


def list_live(
    db: Database, filters: dict[str, str], *, limit: int, marker: str | None = None
) -> list[objects.ConsoleSession]:
    """Return live sessions in the order of their ids.

    :param filters: values of columns of ``console_session``, which must all match
    :param limit: number of sessions at most
    :param marker: return sessions after this id only
    """
    statement = (
        sa.select(*SESSION_COLUMNS)
        .join(models.console_proxy, _P.id == _S.proxy_id)
        .where(_P.lease_expires > clock.utc_now())
        .where(*(models.console_session.c[name] == value for name, value in filters.items()))
        .order_by(_S.id)
        .limit(limit)
    )
    if marker is not None:
        statement = statement.where(_S.id > marker)
    rows = db.single(lambda conn: conn.execute(statement).all())
    return [to_session(row, None) for row in rows]


def to_session(row: Row, console: objects.ConsoleConnection | None) -> objects.ConsoleSession:
    """Build the object of a row with ``SESSION_COLUMNS``.

    :param console: None: build it from the session's row, without the options and the base URL
    """
    if console is None:
        console = objects.ConsoleConnection(
            instance_uuid=row.instance_uuid,
            console_type=row.console_type,
            host=row.host,
            port=row.port,
            compute_host=row.compute_host,
            access_url_base=None,
            options={},
        )
    return objects.ConsoleSession(
        id=row.id,
        proxy_id=row.proxy_id,
        console=console,
        user_id=row.user_id,
        project_id=row.project_id,
        client_address=row.client_address,
        limited=row.slot is not None,
        connected_at=clock.aware(row.connected_at),
        ends_at=None if row.ends_at is None else clock.aware(row.ends_at),
        cut_reason=row.cut_reason,
    )
