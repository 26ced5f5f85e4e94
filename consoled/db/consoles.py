# SPDX-License-Identifier: Apache-2.0
"""Instances and their consoles: definitions, and which consoles are free."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from consoled import exception, objects
from consoled.db import clock, contests, models
from consoled.db.engine import Database
from consoled.db.models import UNKNOWN_HOST, Row
from consoled.objects import EndReason

_I = models.instances.c
_C = models.console_connection.c
_S = models.console_session.c
_P = models.console_proxy.c

SELECT_INSTANCE = sa.select(_I.uuid, _I.compute_host, _I.defined, _I.retired_at).where(
    _I.uuid == sa.bindparam('instance_uuid')
)
CONSOLE_COLUMNS = (_C.host, _C.port, _C.console_type, _C.access_url_base, _C.options)
_SELECT_CONSOLES = (
    sa.select(*CONSOLE_COLUMNS)
    .where(_C.instance_uuid == sa.bindparam('instance_uuid'))
    .order_by(_C.port, _C.host)
)
_SELECT_CONSOLE = _SELECT_CONSOLES.where(_C.host == sa.bindparam('host'), _C.port == sa.bindparam('port'))
# Sessions of a proxy whose lease has ended do not count.
LIVE_SESSION = (
    sa.select(_S.id)
    .join(models.console_proxy, _P.id == _S.proxy_id)
    .where(
        _S.instance_uuid == _C.instance_uuid,
        _S.host == _C.host,
        _S.port == _C.port,
        _P.lease_expires > clock.utc_now(),
    )
)
_SELECT_FREE = _SELECT_CONSOLES.add_columns(contests.SUSPECT.label('suspect')).where(
    _C.console_type == sa.bindparam('console_type'),
    ~LIVE_SESSION.correlate(models.console_connection).exists(),
)


def encode_options(options: dict[str, str | None]) -> str:
    """Return console options as JSON with sorted keys, so that equal options are equal text in SQL."""
    return json.dumps(options, sort_keys=True, separators=(',', ':'))


def decode_options(text: str) -> dict[str, str | None]:
    """Return the console options that ``encode_options`` wrote."""
    options: dict[str, str | None] = json.loads(text)
    return options


def to_connection(instance_uuid: str, compute_host: str, row: Row) -> objects.ConsoleConnection:
    """Build the object of a row with host, port, console_type, access_url_base and options."""
    return objects.ConsoleConnection(
        instance_uuid=instance_uuid,
        compute_host=compute_host,
        host=row.host,
        port=row.port,
        console_type=row.console_type,
        access_url_base=row.access_url_base,
        options=decode_options(row.options),
    )


def load_console(conn: sa.Connection, instance_uuid: str, host: str | None, port: int | None) -> Row | None:
    """Return the row of the instance's console at a host and port, or None."""
    values = {'instance_uuid': instance_uuid, 'host': host, 'port': port}
    return conn.execute(_SELECT_CONSOLE, values).first()


def list_free(db: Database, instance_uuid: str, console_type: str) -> list[objects.ConsoleConnection]:
    """Return the instance's consoles of a type that have no live session and are not contested, by port.

    :raises InstanceNotFound: the instance has no row
    """

    def work(conn: sa.Connection) -> list[objects.ConsoleConnection]:
        instance = conn.execute(SELECT_INSTANCE, {'instance_uuid': instance_uuid}).first()
        if instance is None:
            raise exception.InstanceNotFound(instance_uuid=instance_uuid)
        values = {'instance_uuid': instance_uuid, 'console_type': console_type}
        return [
            to_connection(instance_uuid, instance.compute_host, row)
            for row in conn.execute(_SELECT_FREE, values).all()
            if not (row.suspect and contests.is_contested(conn, instance_uuid, row.host, row.port))
        ]

    return db.single(work)


@dataclasses.dataclass(frozen=True)
class Defined:
    """Result of ``define``.

    :ivar cut: ids of the sessions to cut
    :ivar dropped: whether the instance lost a console, with the console's tokens
    """

    cut: list[str]
    dropped: bool


def define(
    db: Database,
    instance_uuid: str,
    compute_host: str,
    consoles: Iterable[objects.ConsoleConnection],
) -> Defined:
    """Replace the instance's consoles by these.

    A console that vanished, moved to another compute host, or changed its type or options loses its tokens,
    and its sessions are marked to be cut. An empty list from a compute host that the instance has already
    left is late news and changes nothing.
    """
    wanted = {(console.host, console.port): console for console in consoles}

    def work(conn: sa.Connection) -> Defined:
        instance = conn.execute(SELECT_INSTANCE, {'instance_uuid': instance_uuid}).first()
        if not wanted and (instance is None or instance.compute_host != compute_host):
            return Defined([], False)
        options_known = instance is None or instance.compute_host != UNKNOWN_HOST
        dropped = _has_moved(instance, compute_host)
        cut = ensure_instance(conn, instance, instance_uuid, compute_host, defined=True)
        rows = conn.execute(_SELECT_CONSOLES, {'instance_uuid': instance_uuid}).all()
        for row in rows:
            if (row.host, row.port) not in wanted:
                cut += drop_console(conn, instance_uuid, row.host, row.port, EndReason.CONSOLE_GONE)
                dropped = True
        row_at = {(row.host, row.port): row for row in rows}
        for endpoint, console in wanted.items():
            known = row_at.get(endpoint)
            dropped |= known is not None and _differs(known, console, options_known=options_known)
            cut += ensure_console(conn, known, console, options_known=options_known)
        return Defined(cut, dropped)

    return db.transaction(work, racing=True)


def ensure_instance(
    conn: sa.Connection, instance: Row | None, instance_uuid: str, compute_host: str, *, defined: bool
) -> list[str]:
    """Insert or update the instance's row; drop its consoles if it has moved to another compute host.

    An instance whose compute host was unknown has not moved: its consoles stay.

    :param instance: its row as read in this transaction, or None
    :returns: ids of the sessions to cut
    """
    if instance is None:
        conn.execute(
            sa.insert(models.instances).values(
                uuid=instance_uuid, compute_host=compute_host, defined=defined, created_at=clock.utc_now()
            )
        )
        return []
    cut = []
    if _has_moved(instance, compute_host):
        for row in conn.execute(_SELECT_CONSOLES, {'instance_uuid': instance_uuid}).all():
            cut += drop_console(conn, instance_uuid, row.host, row.port, EndReason.CONSOLE_MOVED)
    changed = {'compute_host': compute_host, 'defined': defined or instance.defined, 'retired_at': None}
    if any(getattr(instance, name) != value for name, value in changed.items()):
        conn.execute(sa.update(models.instances).where(_I.uuid == instance_uuid).values(**changed))
    if instance.compute_host == UNKNOWN_HOST != compute_host:
        _fill_in_host(conn, instance_uuid, compute_host)
    return cut


def _has_moved(instance: Row | None, compute_host: str) -> bool:
    return instance is not None and instance.compute_host not in (compute_host, UNKNOWN_HOST)


def _fill_in_host(conn: sa.Connection, instance_uuid: str, compute_host: str) -> None:
    """Name the compute host in the instance's tokens and sessions that were stored without it.

    The instance's row is changed before this: a transaction that adds a token waits for that lock, or this
    one has waited for it.
    """
    for table in (models.console_auth_token, models.console_session):
        conn.execute(
            sa.update(table)
            .where(table.c.instance_uuid == instance_uuid, table.c.compute_host == UNKNOWN_HOST)
            .values(compute_host=compute_host)
        )


def _differs(row: Row, console: objects.ConsoleConnection, *, options_known: bool) -> bool:
    """Return whether ``console`` is another console than the one at its host and port so far.

    :param options_known: whoever described ``row`` knew all options of the console, so they are compared too
    """
    options = encode_options(console.options) if options_known else row.options
    return (row.console_type, row.options) != (console.console_type, options)


def ensure_console(
    conn: sa.Connection,
    row: Row | None,
    console: objects.ConsoleConnection,
    *,
    options_known: bool = True,
) -> list[str]:
    """Insert or update the console's row; a different console at its host and port is dropped first.

    :param row: the row at that host and port as read in this transaction, or None
    :param options_known: as for ``_differs``
    :returns: ids of the sessions to cut
    """
    options = encode_options(console.options)
    cut: list[str] = []
    if row is not None and _differs(row, console, options_known=options_known):
        cut = drop_console(conn, console.instance_uuid, console.host, console.port, EndReason.CONSOLE_GONE)
        row = None
    if row is None:
        conn.execute(sa.insert(models.console_connection).values(new_row(console, clock.utc_now())))
    elif (row.access_url_base, row.options) != (console.access_url_base, options):
        conn.execute(
            sa.update(models.console_connection)
            .where(
                _C.instance_uuid == console.instance_uuid, _C.host == console.host, _C.port == console.port
            )
            .values(access_url_base=console.access_url_base, options=options, updated_at=clock.utc_now())
        )
    return cut


def new_row(console: objects.ConsoleConnection, now: datetime.datetime | clock.utc_now) -> dict[str, Any]:
    """Return the values of a new console's row."""
    return {
        'instance_uuid': console.instance_uuid,
        'host': console.host,
        'port': console.port,
        'console_type': console.console_type,
        'access_url_base': console.access_url_base,
        'options': encode_options(console.options),
        'created_at': now,
        'updated_at': now,
    }


def drop_console(conn: sa.Connection, instance_uuid: str, host: str, port: int, reason: str) -> list[str]:
    """Delete a console with its tokens, and mark its sessions to be cut.

    The order matters: an open in flight holds its token's row, so the deletion waits for it and its session
    is in time to be marked.

    :returns: ids of the sessions to cut
    """
    conn.execute(
        sa.delete(models.console_connection).where(
            _C.instance_uuid == instance_uuid, _C.host == host, _C.port == port
        )
    )
    return mark_cut(conn, [_S.instance_uuid == instance_uuid, _S.host == host, _S.port == port], reason)


def mark_cut(conn: sa.Connection, where: list[sa.ColumnElement[bool]], reason: str) -> list[str]:
    """Mark those of the matching sessions to be cut that are not marked yet.

    :returns: their ids
    """
    matching = [*where, _S.cut_reason.is_(None)]
    ids = list(conn.execute(sa.select(_S.id).where(*matching)).scalars())
    if ids:
        conn.execute(sa.update(models.console_session).where(*matching).values(cut_reason=reason))
    return ids
