# SPDX-License-Identifier: Apache-2.0
"""The database's clock in SQL: the only clock that decides expiry (doc/design.md, invariant 2)."""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

from consoled.db.engine import Database

# The text form in which SQLAlchemy stores a DateTime on SQLite.
_SQLITE = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now'%s) || '000'"


class utc_now(expression.FunctionElement[datetime.datetime]):  # noqa: N801 - named like the SQL function
    """When the statement started: UTC, without a zone."""

    type = sa.DateTime()
    inherit_cache = True


class utc_after(expression.FunctionElement[datetime.datetime]):  # noqa: N801
    """A number of seconds after ``utc_now``; before it, if negative."""

    type = sa.DateTime()
    inherit_cache = True

    def __init__(self, seconds: int | sa.BindParameter[Any]) -> None:
        super().__init__(sa.type_coerce(seconds, sa.Integer))


NOW = sa.select(utc_now())


def aware(moment: datetime.datetime) -> datetime.datetime:
    """Return a UTC moment from the database with its zone."""
    return moment.replace(tzinfo=datetime.UTC)


def now(db: Database) -> datetime.datetime:
    """Return the database's time (UTC)."""
    return aware(db.single(lambda conn: conn.execute(NOW).scalar_one()))


def _seconds(element: utc_after, compiler: SQLCompiler, kw: dict[str, Any]) -> str:
    return str(compiler.process(next(iter(element.clauses)), **kw))


@compiles(utc_now, 'mysql')
@compiles(utc_now, 'mariadb')
def _mysql_now(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:
    return 'UTC_TIMESTAMP(6)'


@compiles(utc_after, 'mysql')
@compiles(utc_after, 'mariadb')
def _mysql_after(element: utc_after, compiler: SQLCompiler, **kw: Any) -> str:
    return f'TIMESTAMPADD(SECOND, {_seconds(element, compiler, kw)}, UTC_TIMESTAMP(6))'


@compiles(utc_now, 'postgresql')
def _postgresql_now(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "timezone('UTC', statement_timestamp())"


@compiles(utc_after, 'postgresql')
def _postgresql_after(element: utc_after, compiler: SQLCompiler, **kw: Any) -> str:
    return (
        f"(timezone('UTC', statement_timestamp()) + make_interval(secs => {_seconds(element, compiler, kw)}))"
    )


@compiles(utc_now, 'sqlite')
def _sqlite_now(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:
    return f'({_SQLITE % ""})'


@compiles(utc_after, 'sqlite')
def _sqlite_after(element: utc_after, compiler: SQLCompiler, **kw: Any) -> str:
    modifier = f", ({_seconds(element, compiler, kw)}) || ' seconds'"
    return f'({_SQLITE % modifier})'
