# SPDX-License-Identifier: Apache-2.0
"""Engines of the cell's database, and the bounded retry around each piece of work."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import exc as sa_exc

from consoled import backoff, exception

LOG = logging.getLogger(__name__)

T = TypeVar('T')

# Errors that may not happen again: a deadlock or failed certification that was rolled back, a server that is
# restarting, a connection that the server has closed, SQLite locked by another writer.
TRANSIENT = (
    db_exc.DBDeadlock,
    db_exc.DBConnectionError,
    sa_exc.OperationalError,
    sa_exc.InterfaceError,
    sa_exc.TimeoutError,
)

_RACE = (db_exc.DBDuplicateEntry, db_exc.DBReferenceError)

# Operational errors that are permanent: a table, column or key that exists, or does not; a key or row that is
# too large; a statement that is denied. MySQL has numbers for them, SQLite texts.
_PERMANENT = frozenset({1005, 1050, 1051, 1054, 1060, 1061, 1071, 1072, 1091, 1118, 1142, 1143, 1227})
_PERMANENT_TEXT = re.compile('already|duplicate column|no such|syntax error|readonly database')

# The server answers, and a retry helps as little as the last: MySQL's errors for access denied and an unknown
# database; PostgreSQL's texts for a wrong password, an unknown role or database, and pg_hba.conf.
_REFUSED = frozenset({1044, 1045, 1049, 1698})
_REFUSED_TEXT = re.compile(
    r'password authentication failed|no password supplied|(role|database) "[^"]*" does not exist|pg_hba\.conf'
)

_HOST = re.compile(r'[A-Za-z0-9._:-]*', re.ASCII)

# Options in the URL that name files, by the drivers of MySQL and PostgreSQL.
_FILES = ('ssl_ca', 'ssl_cert', 'ssl_key', 'sslrootcert', 'sslcert', 'sslkey')

_OPTION = '[database] connection'

_UNCHECKED_TLS = (
    "the server's certificate is not checked, so others can read and change what is sent to it; set ssl_ca "
    'for MySQL, sslmode=verify-full and sslrootcert for PostgreSQL'
)

# Connections per engine and process. Threads that wait for other services hold none.
_POOL_SIZE = 8

_FIRST_PAUSE = 0.02  # seconds; doubled after each attempt
_LONGEST_PAUSE = 0.5  # seconds


def check_url(text: str, option: str = _OPTION) -> None:
    """Check the URL of a database. The error says nothing of the URL: a part of it is a password.

    :param option: the option that it is from, for errors
    :raises ValueError: it cannot be used
    """
    try:
        url = sa.make_url(text)
        url.get_dialect()
    except (sa_exc.ArgumentError, ValueError):  # NoSuchModuleError is a subclass of the first
        raise ValueError(f'{option} is not the URL of a database') from None
    if url.get_backend_name() == 'sqlite':
        path = url.database
        if path in (None, '', ':memory:'):
            raise ValueError(f'{option}: SQLite needs a file, which several processes can share')
        if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise ValueError(f'{option}: the directory of the SQLite file does not exist')
        return
    # A driver's errors quote hosts, databases and options. An unescaped @ in a password would make it those.
    if text.count('@') > 1 or not _HOST.fullmatch(url.host or ''):
        raise ValueError(
            f'{option}: what is special in a URL (@ : / ? # %) has to be written as %nn in the '
            'user, the password and the options'
        )
    for name in _FILES:
        for path in url.normalized_query.get(name, ()):
            try:
                open(path, 'rb').close()
            except OSError as exc:
                raise ValueError(f'{option}: {name}: {exc.strerror}') from None
    if ('ssl_key' in url.query and 'ssl_cert' not in url.query) or (
        'sslkey' in url.query and 'sslcert' not in url.query
    ):
        raise ValueError(f'{option} has the key of a certificate for TLS, but no certificate')


def unchecked_tls(text: str, option: str = _OPTION) -> list[str]:
    """Return a sentence if the connection is encrypted, but not to a server whose certificate is checked.

    :param text: a URL that ``check_url`` has accepted
    :param option: the option that it is from
    """
    query = sa.make_url(text).query
    mysql = any(name.startswith('ssl_') for name in query) and not {'ssl_ca', 'ssl_capath'} & set(query)
    postgresql = query.get('sslmode') in ('allow', 'prefer', 'require')
    return [f'{option}: {_UNCHECKED_TLS}'] if mysql or postgresql else []


class Database:
    """The cell's database: two engines over one URL.

    Most calls are one statement. They run on an AUTOCOMMIT engine, which saves the BEGIN, the COMMIT and the
    pool's ROLLBACK: three round trips of four. Calls of several statements run in a transaction.

    :param url: SQLAlchemy URL of the database
    :param pool_size: connections per engine; further threads wait for one of them
    :param recycle: seconds after which a pooled connection is replaced
    :param retry_time: total seconds for which work is retried after transient errors
    :param option: the option that the URL is from, for the log
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = _POOL_SIZE,
        recycle: int = 3600,
        retry_time: float = 4.0,
        option: str = _OPTION,
    ) -> None:
        self._retry_time = retry_time
        self._option = option
        # Such a connection has no open transaction, so the ROLLBACK after each statement is left out.
        self._autocommit = _engine(
            url,
            pool_size,
            recycle,
            isolation_level='AUTOCOMMIT',
            skip_autocommit_rollback=True,
            pool_reset_on_return=None,
        )
        isolation = {} if url.startswith('sqlite') else {'isolation_level': 'READ COMMITTED'}
        self._transactional = _engine(url, pool_size, recycle, **isolation)
        if self._transactional.dialect.name == 'sqlite':
            sa.event.listen(self._transactional, 'begin', _begin_immediate)

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> Self:
        """Return the database of ``[database]``.

        :raises cfg.RequiredOptError: ``[database] connection`` is not set
        :raises ValueError: it is not the URL of a database, or of an SQLite database in memory; its driver is
            not installed, or does not know its options
        """
        options = conf.database
        if not options.connection:
            raise cfg.RequiredOptError('connection', cfg.OptGroup('database'))
        return cls.open(
            options.connection,
            pool_size=min(conf.executor_thread_pool_size, _POOL_SIZE),
            recycle=options.connection_recycle_time,
            retry_time=options.retry_time,
        )

    @classmethod
    def open(cls, url: str, *, option: str = _OPTION, **settings: Any) -> Self:
        """Return the database at a URL, without a connection yet. The settings are those of the class.

        :raises ValueError: as ``from_conf``; the text has nothing of the URL
        """
        check_url(url, option)
        try:
            db = cls(url, option=option, **settings)
            _try_options(db.transactional_engine)
        except ImportError as exc:
            raise ValueError(
                f'{option}: its driver {exc.name} is not installed; mysql+pymysql:// is, and '
                'postgresql+psycopg:// after pip install consoled[postgresql]'
            ) from None
        except Exception as exc:  # noqa: BLE001 - any driver's, with any text
            raise ValueError(
                f'{option}: an option after the ? is unknown to the driver, or its value cannot '
                f'be used ({type(exc).__name__})'
            ) from None
        return db

    @property
    def transactional_engine(self) -> sa.Engine:
        """The engine of the transactions, for migrations and checks."""
        return self._transactional

    @property
    def address(self) -> str:
        """Where the database is, for the log: kind, host and port, or the file of SQLite."""
        url = self._transactional.url
        address = url.database if url.host is None else f'{url.host}:{url.port}' if url.port else url.host
        return f'{url.get_backend_name()}:{address}'

    def single(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` on an AUTOCOMMIT connection: each of its statements is committed at once.

        :raises DatabaseUnavailable: the database did not answer within the retry time
        """
        return self._retried(self._autocommit.connect, work, TRANSIENT)

    def transaction(self, work: Callable[[sa.Connection], T], *, racing: bool = False) -> T:
        """Run ``work`` in a transaction. It runs again after a rollback, so it must have no other effect.

        :param racing: other transactions may insert or delete the same rows, so a duplicate key or a missing
            parent is a reason to run ``work`` again
        :raises DatabaseUnavailable: the database did not answer within the retry time
        """
        return self._retried(self._transactional.begin, work, (*TRANSIENT, *_RACE) if racing else TRANSIENT)

    def ping(self) -> None:
        """Check that the database answers, without a retry.

        :raises DatabaseUnavailable: it does not
        """
        try:
            with self._autocommit.connect() as conn:
                conn.execute(sa.select(1)).scalar()
        except (*TRANSIENT, db_exc.DBNonExistentDatabase) as exc:
            raise exception.DatabaseUnavailable() from exc

    def dispose(self) -> None:
        """Close all pooled connections."""
        self._autocommit.dispose()
        self._transactional.dispose()

    def _retried(
        self,
        connect: Callable[[], Any],
        work: Callable[[sa.Connection], T],
        transient: tuple[type[Exception], ...],
    ) -> T:
        deadline = time.monotonic() + self._retry_time
        failures = 0
        while True:
            try:
                with connect() as conn:
                    return work(conn)
            except (*transient, db_exc.DBNonExistentDatabase) as exc:
                if is_refusal(exc):
                    LOG.error(
                        'The database refuses the user, the password or the name of the database in %s',
                        self._option,
                    )
                    raise exception.DatabaseUnavailable() from exc
                if is_permanent(exc):
                    raise
                # Full jitter, so that transactions that collided do not collide again.
                failures += 1
                pause = backoff.anywhere(backoff.doubled(failures, _FIRST_PAUSE, _LONGEST_PAUSE))
                if time.monotonic() + pause > deadline:
                    LOG.error(
                        'The database in %s does not answer: %s', self._option, str(exc).partition('\n')[0]
                    )
                    raise exception.DatabaseUnavailable() from exc
            time.sleep(pause)


def is_refusal(error: Exception) -> bool:
    """Return whether the server refuses the user, the password or the name of the database."""
    if isinstance(error, db_exc.DBNonExistentDatabase):
        return True
    original = getattr(error, 'orig', None) or getattr(error, 'inner_exception', error)
    arguments: tuple[object, ...] = getattr(getattr(original, 'orig', original), 'args', ()) or ('',)
    return arguments[0] in _REFUSED or _REFUSED_TEXT.search(str(arguments[0])) is not None


def is_permanent(error: Exception) -> bool:
    """Return whether an error of a transient class is an answer that will be the same the next time."""
    original = getattr(error, 'orig', None)
    if isinstance(original, sqlite3.Error):
        return _PERMANENT_TEXT.search(str(original)) is not None
    arguments: tuple[object, ...] = getattr(original, 'args', ())
    return bool(arguments) and arguments[0] in _PERMANENT


def answer(error: Exception) -> str:
    """Return what the database itself has said, in one line, without the statement."""
    while inner := getattr(error, 'inner_exception', None) or getattr(error, 'orig', None):
        error = inner
    said = error.args[1] if len(error.args) > 1 else error
    return str(said).strip().partition('\n')[0]


def _engine(url: str, pool_size: int, recycle: int, **kwargs: Any) -> sa.Engine:
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_recycle=recycle,
        pool_use_lifo=True,  # the connection used last is warm, here and in the server
        hide_parameters=True,  # no values in error messages and logs
        enable_from_linting=False,  # it warns of an outer join on a parameter
        **kwargs,
    )
    # Not oslo.db's register_engine: its other listeners serve savepoints, which are not used here, and would
    # cost time at every step of every statement.
    sa.event.listen(engine, 'handle_error', exc_filters.handler, retval=True)
    if engine.dialect.name == 'sqlite':
        sa.event.listen(engine, 'connect', _prepare_sqlite)
    return engine


def _try_options(engine: sa.Engine) -> None:
    """Let the driver look at the options of the URL, without a connection."""
    dbapi, driver = engine.dialect.loaded_dbapi, engine.dialect.driver
    args, options = engine.dialect.create_connect_args(engine.url)
    if driver == 'pymysql':
        dbapi.connect(*args, **options, defer_connect=True)
    elif driver == 'psycopg':
        options.pop('context', None)  # SQLAlchemy's own, of an object and not of the URL
        dbapi.conninfo.make_conninfo(*args, **options)


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    """Enforce foreign keys, let readers and a writer run concurrently, and leave BEGIN to SQLAlchemy."""
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in ('foreign_keys=ON', 'journal_mode=WAL', 'busy_timeout=3000'):
        cursor.execute(f'PRAGMA {pragma}')
    cursor.close()


def _begin_immediate(conn: sa.Connection) -> None:
    """Take SQLite's write lock at the start of a transaction, waiting for it.

    A transaction that reads first and writes later fails at once if another one has written in between.
    """
    conn.exec_driver_sql('BEGIN IMMEDIATE')
