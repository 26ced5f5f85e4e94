# SPDX-License-Identifier: Apache-2.0
"""Instances and their consoles: what exists, and what is free."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from consoled import exception, objects
from consoled.db import clock, models
from consoled.db.session import Database
from consoled.objects import EndReason

_I = models.instances.c
_C = models.console_connection.c
_S = models.console_session.c
_P = models.console_proxy.c


# The compute host of an instance that no agent has named: those who know tell us later.
UNKNOWN_HOST = '(unknown)'

INSTANCE = sa.select(_I.uuid, _I.compute_host, _I.defined, _I.retired_at).where(
    _I.uuid == sa.bindparam('instance_uuid')
)
CONSOLES = (
    sa.select(_C.host, _C.port, _C.console_type, _C.access_url_base, _C.options)
    .where(_C.instance_uuid == sa.bindparam('instance_uuid'))
    .order_by(_C.port, _C.host)
)
# a session whose proxy's lease has ended does not count
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
_FREE = CONSOLES.where(
    _C.console_type == sa.bindparam('console_type'),
    ~LIVE_SESSION.correlate(models.console_connection).exists(),
)


def encode_options(options: dict[str, str | None]) -> str:
    """The one text form of console options: JSON, keys sorted, so that equal options are equal text."""
    return json.dumps(options, sort_keys=True, separators=(',', ':'))


def decode_options(text: str) -> dict[str, str | None]:
    options: dict[str, str | None] = json.loads(text)
    return options


def to_connection(instance_uuid: str, compute_host: str, row: Any) -> objects.ConsoleConnection:
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


def list_free(db: Database, instance_uuid: str, console_type: str) -> list[objects.ConsoleConnection]:
    """The consoles of that type that are not connected, by port.

    :raises InstanceNotFound: the instance has no row
    """

    def work(conn: sa.Connection) -> list[objects.ConsoleConnection]:
        instance = conn.execute(INSTANCE, {'instance_uuid': instance_uuid}).first()
        if instance is None:
            raise exception.InstanceNotFound(instance_uuid=instance_uuid)
        rows = conn.execute(_FREE, {'instance_uuid': instance_uuid, 'console_type': console_type})
        return [to_connection(instance_uuid, instance.compute_host, row) for row in rows]

    return db.single(work)


@dataclasses.dataclass(frozen=True)
class Defined:
    """What ``define`` did: the ids of the sessions to cut, and whether a console lost its tokens."""

    cut: list[str]
    dropped: bool


def define(
    db: Database,
    instance_uuid: str,
    compute_host: str,
    consoles: Iterable[objects.ConsoleConnection],
) -> Defined:
    """Make these, and only these, the instance's consoles.

    A console that vanished, moved to another compute host or changed its type or options loses its tokens,
    and its sessions are marked to be cut. "It has none here any more" from a compute host that the
    instance has left already is late news and changes nothing.
    """
    wanted = {(console.host, console.port): console for console in consoles}

    def work(conn: sa.Connection) -> Defined:
        instance = conn.execute(INSTANCE, {'instance_uuid': instance_uuid}).first()
        if not wanted and (instance is None or instance.compute_host != compute_host):
            return Defined([], False)
        found = instance is not None and instance.compute_host == UNKNOWN_HOST
        dropped = _has_moved(instance, compute_host)
        cut = settle_instance(conn, instance, instance_uuid, compute_host, defined=True)
        existing = conn.execute(CONSOLES, {'instance_uuid': instance_uuid}).all()
        for row in existing:
            if (row.host, row.port) not in wanted:
                cut += drop_console(conn, instance_uuid, row.host, row.port, EndReason.CONSOLE_GONE)
                dropped = True
        by_place = {(row.host, row.port): row for row in existing}
        for place, console in wanted.items():
            there = by_place.get(place)
            dropped |= there is not None and _is_another(there, console, described=not found)
            cut += settle_console(conn, there, console, described=not found)
        return Defined(cut, dropped)

    return db.transaction(work, racing=True)


def settle_instance(
    conn: sa.Connection, instance: Any, instance_uuid: str, compute_host: str, *, defined: bool
) -> list[str]:
    """Make the instance's row say where it is; on another compute host, its old consoles go.

    If it was not known where it is, it has not moved: what it has is found to be there.

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
        for row in conn.execute(CONSOLES, {'instance_uuid': instance_uuid}).all():
            cut += drop_console(conn, instance_uuid, row.host, row.port, EndReason.CONSOLE_MOVED)
    changed = {'compute_host': compute_host, 'defined': defined or instance.defined, 'retired_at': None}
    if any(getattr(instance, name) != value for name, value in changed.items()):
        conn.execute(sa.update(models.instances).where(_I.uuid == instance_uuid).values(**changed))
    if instance.compute_host == UNKNOWN_HOST != compute_host:
        _name_host(conn, instance_uuid, compute_host)
    return cut


def _has_moved(instance: Any, compute_host: str) -> bool:
    return instance is not None and instance.compute_host not in (compute_host, UNKNOWN_HOST)


def _name_host(conn: sa.Connection, instance_uuid: str, compute_host: str) -> None:
    """Tokens and sessions of the instance are of that compute host, which was not known.

    The instance's row has been changed by now: who adds a token waits for that, or was waited for there.
    """
    for table in (models.console_auth_token, models.console_session):
        conn.execute(
            sa.update(table)
            .where(table.c.instance_uuid == instance_uuid, table.c.compute_host == UNKNOWN_HOST)
            .values(compute_host=compute_host)
        )


def _is_another(
    row: Any, console: objects.ConsoleConnection | objects.ConsoleAuthToken, *, described: bool = True
) -> bool:
    """Whether it is another console that has the place of ``row`` now.

    :param described: the row was described by somebody who knew all of the console's options
    """
    options = encode_options(console.options) if described else row.options
    return (row.console_type, row.options) != (console.console_type, options)


def settle_console(
    conn: sa.Connection,
    row: Any,
    console: objects.ConsoleConnection | objects.ConsoleAuthToken,
    *,
    described: bool = True,
) -> list[str]:
    """Make the console's row equal ``console``.

    :param row: the row at that place as read in this transaction, or None
    :param described: the row was described by somebody who knew all of the console's options
    :returns: ids of the sessions to cut
    """
    place = (_C.instance_uuid == console.instance_uuid, _C.host == console.host, _C.port == console.port)
    options = encode_options(console.options)
    cut: list[str] = []
    if row is not None and _is_another(row, console, described=described):
        cut = drop_console(conn, console.instance_uuid, console.host, console.port, EndReason.CONSOLE_GONE)
        row = None
    if row is None:
        conn.execute(sa.insert(models.console_connection).values(row_of(console, clock.utc_now())))
    elif (row.access_url_base, row.options) != (console.access_url_base, options):
        conn.execute(
            sa.update(models.console_connection)
            .where(*place)
            .values(access_url_base=console.access_url_base, options=options, updated_at=clock.utc_now())
        )
    return cut


def row_of(console: objects.ConsoleConnection | objects.ConsoleAuthToken, now: Any) -> dict[str, Any]:
    """The row of a new console."""
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

    The order matters: the deletion waits for an open in flight (it holds the token's row), so the session
    of that open is there to be marked.

    :returns: ids of the sessions to cut
    """
    conn.execute(
        sa.delete(models.console_connection).where(
            _C.instance_uuid == instance_uuid, _C.host == host, _C.port == port
        )
    )
    return mark_cut(conn, [_S.instance_uuid == instance_uuid, _S.host == host, _S.port == port], reason)


def mark_cut(conn: sa.Connection, where: list[sa.ColumnElement[bool]], reason: str) -> list[str]:
    """Mark the matching sessions that are not marked yet.

    :returns: their ids
    """
    matching = [*where, _S.cut_reason.is_(None)]
    ids = list(conn.execute(sa.select(_S.id).where(*matching)).scalars())
    if ids:
        conn.execute(sa.update(models.console_session).where(*matching).values(cut_reason=reason))
    return ids
