# SPDX-License-Identifier: Apache-2.0
"""The database of Nova's cell, read only: console auth tokens and the instances that they belong to.

Only the columns named here are read. They are the same in all releases since 18 (Rocky), and an account with
SELECT on the two tables is enough.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exc
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

from consoled import exception
from consoled.db.engine import Database, answer, check_url

LOG = logging.getLogger(__name__)

T = TypeVar('T')

OPTION = '[nova] connection'


class _Moment(sa.types.TypeDecorator[datetime.datetime]):
    """A date and time; None for what is none: MySQL may have 0000-00-00, which drivers return as a text."""

    impl = sa.DateTime
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime.datetime | None:
        return value if isinstance(value, datetime.datetime) else None


# A user waits for a lookup. Nova's own URL rarely has time limits, so these are added unless it has.
_RETRY_TIME = 1.0  # seconds
_MYSQL = {'connect_timeout': '2', 'read_timeout': '2', 'write_timeout': '2'}
_POSTGRESQL = {
    'connect_timeout': '2',
    'options': '-c statement_timeout=2000',
    # its client has no limit for an answer, but notices a host that is gone
    'tcp_user_timeout': '2000',
    'keepalives_idle': '1',
    'keepalives_interval': '1',
    'keepalives_count': '2',
}
_TIMEOUTS = {'pymysql': _MYSQL, 'mysqldb': _MYSQL, 'psycopg': _POSTGRESQL, 'psycopg2': _POSTGRESQL}

_POOL_SIZE = 4  # connections: a lookup takes milliseconds, and few threads of a worker may make one at a time

_tokens = sa.table(
    'console_auth_tokens',
    *map(
        sa.column,
        (
            'token_hash',
            'instance_uuid',
            'console_type',
            'host',
            'port',
            'internal_access_path',
            'access_url_base',
            'expires',
        ),
    ),
    sa.column('created_at', _Moment()),
)
_instances = sa.table(
    'instances',
    *map(sa.column, ('id', 'uuid', 'host', 'project_id', 'deleted')),
    sa.column('launched_at', _Moment()),
)
_T, _I = _tokens.c, _instances.c

TABLES = (_tokens, _instances)  # with all columns that are read, and no others


class unix_now(expression.FunctionElement[float]):  # noqa: N801 - named like the SQL function
    """Seconds since 1970 UTC by the database's clock, the clock that decides when a token of Nova expires."""

    type = sa.Float()
    inherit_cache = True


@compiles(unix_now, 'mysql')
@compiles(unix_now, 'mariadb')
def _mysql_now(element: unix_now, compiler: SQLCompiler, **kw: Any) -> str:
    return 'UNIX_TIMESTAMP()'


@compiles(unix_now, 'postgresql')
def _postgresql_now(element: unix_now, compiler: SQLCompiler, **kw: Any) -> str:
    return 'EXTRACT(EPOCH FROM now())'


@compiles(unix_now, 'sqlite')
def _sqlite_now(element: unix_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "CAST(strftime('%s', 'now') AS INTEGER)"


_SELECT_TOKEN = (
    sa.select(
        _T.instance_uuid,
        _T.console_type,
        _T.host,
        _T.port,
        _T.internal_access_path,
        _T.access_url_base,
        _T.created_at,
        (_T.expires - unix_now()).label('expires_in'),
        _I.id.label('instance_id'),
        _I.host.label('compute_host'),
        _I.project_id,
        _I.launched_at,
    )
    .select_from(_tokens.join(_instances, sa.and_(_I.uuid == _T.instance_uuid, _I.deleted == 0)))
    .where(_T.token_hash == sa.bindparam('token_hash'), _T.expires > unix_now())
)

# A text that differs when the instance is on another host or was launched again; NULL if either is unknown.
_STATE = sa.type_coerce(_I.id, sa.String) + ' ' + _I.host + ' ' + sa.type_coerce(_I.launched_at, sa.String)
_SELECT_INSTANCES = sa.select(_I.id, _I.uuid, _I.host, _I.launched_at, _STATE.label('state')).where(
    _I.deleted == 0, _I.uuid.in_(sa.bindparam('uuids', expanding=True))
)
_COUNT_UNCHANGED = (
    sa.select(sa.func.count())
    .select_from(_instances)
    .where(
        _I.deleted == 0,
        _I.id.in_(sa.bindparam('ids', expanding=True)),  # numbers make a shorter statement than UUIDs
        _STATE.in_(sa.bindparam('states', expanding=True)),
    )
)
_SELECT_ISSUED = sa.select(_T.token_hash, _T.created_at).where(
    _T.token_hash.in_(sa.bindparam('hashes', expanding=True))
)
_COUNT_TOKENS = (
    sa.select(sa.func.count())
    .select_from(_tokens)
    .where(_T.token_hash.in_(sa.bindparam('hashes', expanding=True)))
)
SOME_HOSTS = (
    sa.select(_I.host).where(_I.deleted == 0, _I.host.is_not(None)).distinct().limit(sa.bindparam('n'))
)


@dataclasses.dataclass(frozen=True)
class Instance:
    """Where an instance is, and since when.

    :ivar host: its compute host; None while it is on none
    :ivar launched_at: when it last started on a host (UTC)
    :ivar state: a text that changes with the other values; None if one of them is
    """

    id: int
    uuid: str
    host: str | None
    launched_at: datetime.datetime | None
    state: str | None


@dataclasses.dataclass(frozen=True)
class Token:
    """A live token of an instance that exists.

    :ivar expires_in: seconds until it expires
    :ivar instance_id: primary key of the instance
    :ivar compute_host: None while the instance is on none (shelved, or being scheduled)
    :ivar launched_at: when the instance last started on a host (UTC); an older token is for a former host
    """

    instance_uuid: str
    console_type: str
    host: str
    port: int
    internal_access_path: str | None
    access_url_base: str | None
    created_at: datetime.datetime | None
    expires_in: float
    instance_id: int
    compute_host: str | None
    project_id: str | None
    launched_at: datetime.datetime | None


class NovaDatabase:
    """Queries of Nova's cell database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> NovaDatabase:
        """Return the database of ``[nova] connection``, without a connection yet.

        :raises ValueError: it is not the URL of a database; its driver is not installed, or does not know its
            options
        """
        return cls(connect(conf))

    def find_token(self, token_hash: str) -> Token | None:
        """Return a live token by the SHA-256 of its clear text in hex; None if there is none.

        :raises DatabaseUnavailable: the database does not answer in time, refuses the account, or is not a
            database of Nova
        """
        row = self._run(lambda conn: conn.execute(_SELECT_TOKEN, {'token_hash': token_hash}).first())
        return None if row is None else Token(**row._mapping)

    def find_instances(self, uuids: Collection[str]) -> dict[str, Instance]:
        """Return those of the instances that exist, by UUID. Raises what ``find_token`` raises."""
        rows = self._run(lambda conn: conn.execute(_SELECT_INSTANCES, {'uuids': list(uuids)}).all())
        return {row.uuid: Instance(*row) for row in rows}

    def are_unchanged(self, instances: Collection[Instance]) -> bool:
        """Return whether all these instances are as they were. Raises what ``find_token`` raises.

        :param instances: different ones; if the ``state`` of one is None, the answer is False
        """
        values = {'ids': [each.id for each in instances], 'states': [each.state for each in instances]}
        count = self._run(lambda conn: conn.execute(_COUNT_UNCHANGED, values).scalar_one())
        return bool(count == len(instances))

    def find_issued(self, token_hashes: Collection[str]) -> dict[str, datetime.datetime | None]:
        """Return when those of the tokens that exist were made (UTC), by hash.

        Expired ones exist until Nova deletes them. Raises what ``find_token`` raises.
        """
        rows = self._run(lambda conn: conn.execute(_SELECT_ISSUED, {'hashes': list(token_hashes)}).all())
        return {row.token_hash: row.created_at for row in rows}

    def have_all(self, token_hashes: Collection[str]) -> bool:
        """Return whether all these tokens exist. Raises what ``find_token`` raises."""
        values = {'hashes': list(token_hashes)}
        count = self._run(lambda conn: conn.execute(_COUNT_TOKENS, values).scalar_one())
        return bool(count == len(token_hashes))

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            return self._db.single(work)
        except (db_exc.DBError, sa_exc.SQLAlchemyError) as exc:  # no such table, no grant
            LOG.error('The database in [nova] connection refuses a statement: %s', answer(exc))
            raise exception.DatabaseUnavailable() from exc

    def dispose(self) -> None:
        """Close all connections."""
        self._db.dispose()


def connect(conf: cfg.ConfigOpts) -> Database:
    """Return the engines of ``[nova] connection``. Raises what ``NovaDatabase.from_conf`` raises."""
    check_url(conf.nova.connection, OPTION)
    return Database.from_url(
        _adapted(conf.nova.connection),
        option=OPTION,
        pool_size=_POOL_SIZE,
        recycle=conf.database.connection_recycle_time,
        retry_time=_RETRY_TIME,
    )


def _adapted(connection: str) -> str:
    """Return Nova's URL with time limits, and without what extends Nova's own SQLAlchemy.

    Devstack writes ``plugin=dbcounter``, a package that is installed for its services only.
    """
    url = sa.make_url(connection).difference_update_query(['plugin'])
    limits = _TIMEOUTS.get(url.get_dialect().driver, {})
    missing = {name: value for name, value in limits.items() if name not in url.query}
    return url.update_query_dict(missing).render_as_string(hide_password=False)
