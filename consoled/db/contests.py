# SPDX-License-Identifier: Apache-2.0
"""Contested addresses: consoles at a host and port that an instance of another compute host has too.

Such an address leads to one of the two instances, and nobody can say here to which.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

from consoled.db import clock, models
from consoled.db.engine import Database
from consoled.db.models import UNKNOWN_HOST

_I = models.instances.c
_C = models.console_connection.c
_T = models.console_auth_token.c
_OTHER = models.console_connection.alias('other_console')
_OTHER_INSTANCE = models.instances.alias('other_instance')
_O = _OTHER.c
_OI = _OTHER_INSTANCE.c
_UNKNOWN = sa.literal_column(f"'{UNKNOWN_HOST}'", sa.String)  # in the text: it is sent with every call


class _Option(expression.FunctionElement[Any]):
    """The value of an option in a column of options; NULL if it is not set."""

    inherit_cache = True
    option: str

    def __init__(self, options: sa.ColumnElement[str]) -> None:
        super().__init__(options)


class access_path(_Option):  # noqa: N801 - named like an SQL function
    """``internal_access_path``, which tells consoles apart that share an address."""

    type = sa.String()
    inherit_cache = True
    option = 'internal_access_path'


class tls_port(_Option):  # noqa: N801
    """``tls_port``, which a proxy may connect to instead of the port."""

    type = sa.Integer()
    inherit_cache = True
    option = 'tls_port'


def _text(element: _Option, compiler: SQLCompiler, kw: dict[str, Any]) -> str:
    column = compiler.process(next(iter(element.clauses)), **kw)
    match compiler.dialect.name:
        case 'postgresql':
            return f"(CAST({column} AS json) ->> '{element.option}')"
        case 'sqlite':
            return f"json_extract({column}, '$.{element.option}')"
        case _:
            # Where no row was found, MariaDB tries the condition on an empty text, which is no JSON and ends
            # an INSERT. A JSON null would be the text null.
            value = f"NULLIF(JSON_UNQUOTE(JSON_EXTRACT({column}, '$.{element.option}')), 'null')"
            return f'(CASE WHEN LOCATE(\'"{element.option}"\', {column}) > 0 THEN {value} END)'


@compiles(access_path)
def _access_path(element: access_path, compiler: SQLCompiler, **kw: Any) -> str:
    return _text(element, compiler, kw)


@compiles(tls_port)
def _tls_port(element: tls_port, compiler: SQLCompiler, **kw: Any) -> str:
    # Not a plain CAST: on a text that is no number, some databases end the whole statement.
    text = _text(element, compiler, kw)
    match compiler.dialect.name:
        case 'postgresql':
            return f"(CASE WHEN {text} ~ '^[0-9]{{1,5}}$' THEN CAST({text} AS integer) END)"
        case 'sqlite':
            return f'CAST({text} AS INTEGER)'
        case _:
            return f"(CASE WHEN {text} REGEXP '^[0-9]{{1,5}}$' THEN CAST({text} AS SIGNED) END)"


# The other instance's claim counts: an agent has defined it, or a token for it is alive. What is left of
# other claims opens nothing.
_CLAIMED = sa.or_(
    _OI.defined,
    # Not EXISTS: MariaDB would read all tokens first.
    sa.select(sa.func.count())
    .select_from(models.console_auth_token)
    .where(
        _T.instance_uuid == _O.instance_uuid,
        _T.host == _O.host,
        _T.port == _O.port,
        _T.expires > clock.utc_now(),
    )
    .correlate(_OTHER)
    .scalar_subquery()
    > 0,
)
# Consoles at one address that have different paths are different ones: a server on the way tells them apart.
_SAME_PATH = sa.or_(
    access_path(_C.options).is_(None),
    access_path(_O.options).is_(None),
    access_path(_C.options) == access_path(_O.options),
)
# An instance that migrates is one instance. Two on one compute host are told apart by its agent. If the
# compute host of one is not known (its token comes from an old consoleauth), what an agent has defined is
# believed.
_RIVAL = sa.and_(
    _O.host == _C.host,
    _O.instance_uuid != _C.instance_uuid,
    sa.or_(
        sa.and_(
            _I.compute_host != _UNKNOWN,
            _OI.compute_host != _UNKNOWN,
            _OI.compute_host != _I.compute_host,
            _CLAIMED,
        ),
        sa.and_(_I.compute_host == _UNKNOWN, _OI.defined),
    ),
    _SAME_PATH,
)
_OTHERS = _OTHER.join(_OTHER_INSTANCE, _OI.uuid == _O.instance_uuid)
# By the index of addresses. A console is not contested by one that has its port as the TLS port: that other
# one is refused, which is enough.
_AT_ITS_PORT = sa.select(_O.instance_uuid).select_from(_OTHERS).where(_O.port == _C.port, _RIVAL)
_AT_ITS_TLS_PORT = (
    sa.select(_O.instance_uuid)
    .select_from(_OTHERS)
    .where(sa.or_(_O.port == tls_port(_C.options), tls_port(_O.options) == tls_port(_C.options)), _RIVAL)
)


def _exists(others: sa.Select[Any]) -> sa.ColumnElement[bool]:
    return others.correlate(models.console_connection, models.instances).exists()


# Whether another instance has the address, or a row of ``console_connection`` needs a closer look for another
# reason. This is on the hot path: one lookup in the index of addresses, which mostly finds nothing.
SHARED = (
    sa.select(_O.instance_uuid)
    .where(_O.host == _C.host, _O.port == _C.port, _O.instance_uuid != _C.instance_uuid)
    .correlate(models.console_connection)
    .exists()
)
SUSPECT = sa.or_(SHARED, _C.options.contains('"tls_port"'))

# Whether a row of ``console_connection``, joined with its row of ``instances``, is contested.
_CONTESTED = sa.and_(
    SUSPECT,
    sa.or_(_exists(_AT_ITS_PORT), sa.and_(tls_port(_C.options).is_not(None), _exists(_AT_ITS_TLS_PORT))),
)

_JOINED = models.console_connection.join(models.instances, _I.uuid == _C.instance_uuid)
_CONTESTED_CONSOLES = (
    sa.select(_C.instance_uuid, _C.host, _C.port, _I.compute_host)
    .select_from(_JOINED)
    .where(_CONTESTED)
    .order_by(_C.host, _C.port, _C.instance_uuid)
)
_IS_CONTESTED = _CONTESTED_CONSOLES.where(
    _C.instance_uuid == sa.bindparam('instance_uuid'),
    _C.host == sa.bindparam('host'),
    _C.port == sa.bindparam('port'),
)
_RIVALS = (
    sa.select(_O.instance_uuid, _OI.compute_host)
    .select_from(_JOINED.join(_OTHERS, _O.host == _C.host))
    .where(
        _C.instance_uuid == sa.bindparam('instance_uuid'),
        _C.host == sa.bindparam('host'),
        _C.port == sa.bindparam('port'),
        _RIVAL,
        sa.or_(
            _O.port == _C.port,
            _O.port == tls_port(_C.options),
            tls_port(_O.options) == tls_port(_C.options),
        ),
    )
    .order_by(_O.instance_uuid)
)
_MOST = 100  # contests that one query returns


@dataclasses.dataclass(frozen=True)
class Contest:
    """A console whose address an instance of another compute host has too."""

    instance_uuid: str
    compute_host: str
    host: str
    port: int
    other_instance: str
    other_compute_host: str

    def __str__(self) -> str:
        host = f'[{self.host}]' if ':' in self.host else self.host
        return (
            f'{host}:{self.port} of instance {self.instance_uuid} on {self.compute_host} is also of '
            f'instance {self.other_instance} on {self.other_compute_host}'
        )


def is_contested(conn: sa.Connection, instance_uuid: str, host: str | None, port: int | None) -> bool:
    """Return whether a console is contested."""
    console = {'instance_uuid': instance_uuid, 'host': host, 'port': port}
    return conn.execute(_IS_CONTESTED, console).first() is not None


def find(db: Database, **filters: Any) -> list[Contest]:
    """Return contested consoles, by address; of the first hundred.

    :param filters: values of ``instance_uuid``, ``host``, ``port`` and ``compute_host`` that must match
    """
    columns = {
        'instance_uuid': _C.instance_uuid,
        'host': _C.host,
        'port': _C.port,
        'compute_host': _I.compute_host,
    }
    statement = _CONTESTED_CONSOLES.where(*(columns[name] == value for name, value in filters.items()))

    def work(conn: sa.Connection) -> list[Contest]:
        found = []
        for row in conn.execute(statement.limit(_MOST)).all():
            console = {'instance_uuid': row.instance_uuid, 'host': row.host, 'port': row.port}
            other = conn.execute(_RIVALS, console).first()
            if other is not None:
                found.append(
                    Contest(
                        **console,
                        compute_host=row.compute_host,
                        other_instance=other.instance_uuid,
                        other_compute_host=other.compute_host,
                    )
                )
        return found

    return db.single(work)
