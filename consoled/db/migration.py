# SPDX-License-Identifier: Apache-2.0
"""Schema migrations with alembic, from a checkout or an installed wheel."""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from alembic.runtime import migration as alembic_migration
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from oslo_db import exception as db_exc
from sqlalchemy import exc as sa_exc

from alembic import command
from alembic import config as alembic_config
from consoled import exception
from consoled.db import engine, models
from consoled.db.engine import Database

LOG = logging.getLogger(__name__)

VERSION_TABLE = 'consoled_alembic_version'

_MAX_SHOWN = 4  # tables

_PACKAGE = pathlib.Path(__file__).resolve().parent
# The first is where setup.py installs the checkout's alembic/, the second is the checkout.
_SCRIPT_DIRECTORIES = (_PACKAGE / 'alembic', _PACKAGE.parent.parent / 'alembic')


def _config(connection: sa.Connection | None = None) -> alembic_config.Config:
    directory = next((path for path in _SCRIPT_DIRECTORIES if (path / 'env.py').is_file()), None)
    if directory is None:
        raise FileNotFoundError('The migrations of consoled are not installed.')
    config = alembic_config.Config()
    config.set_main_option('script_location', str(directory))
    config.attributes['connection'] = connection
    config.attributes['version_table'] = VERSION_TABLE
    return config


def head() -> str:
    """Return the revision of this release."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise FileNotFoundError('The installed migrations of consoled have no revision.')
    return revision


def pending(revision: str | None) -> list[str] | None:
    """Return the revisions that a database at ``revision`` lacks, oldest first.

    :param revision: as ``current`` returns it
    :returns: None if this release does not know the revision: a newer one has upgraded the database
    """
    script = ScriptDirectory.from_config(_config())
    try:
        missing = [each.revision for each in script.iterate_revisions('head', revision or 'base')]
    except ResolutionError:
        return None
    return missing[::-1]


def current(db: Database) -> str | None:
    """Return the revision of the database; None if it has none of consoled's tables.

    :raises DatabaseUnavailable: the database does not answer
    """
    with _unavailable(), db.transactional_engine.connect() as conn:
        context = alembic_migration.MigrationContext.configure(conn, opts={'version_table': VERSION_TABLE})
        return context.get_current_revision()


def foreign_tables(db: Database) -> list[str]:
    """Return the names of all tables that are none of consoled's, sorted; [] if there is a cell beside them.

    Then the database is another program's, as that of Nova, which has a table ``instances`` too. Nothing must
    be created in it: its own migrations would meet what is left there.

    :raises DatabaseUnavailable: the database does not answer
    """
    if current(db) is not None:
        return []
    with _unavailable(), db.transactional_engine.connect() as conn:
        names = sa.inspect(conn).get_table_names()
    return sorted(set(names) - set(models.metadata.tables) - {VERSION_TABLE})


def describe_foreign(tables: Sequence[str]) -> str:
    """Return a sentence that says whose database it is, if ``foreign_tables`` has found any."""
    shown = ', '.join(tables[:_MAX_SHOWN])
    more = f' and {len(tables) - _MAX_SHOWN} more' if len(tables) > _MAX_SHOWN else ''
    return (
        f'[database] connection is the database of another program: it has the tables {shown}{more}, and no '
        'cell of consoled'
    )


def upgrade(db: Database, revision: str = 'head') -> None:
    """Upgrade the database to a revision. One that already has it stays unchanged.

    :raises DatabaseUnavailable: the database does not answer
    """
    with _unavailable(), db.transactional_engine.begin() as conn:
        command.upgrade(_config(conn), revision)


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    """Raise ``DatabaseUnavailable`` for what may go away. Other answers of the database stay as they are."""
    try:
        yield
    except (*engine.TRANSIENT, db_exc.DBNonExistentDatabase) as exc:
        if engine.is_permanent(exc):
            raise
        raise exception.DatabaseUnavailable() from exc


def warn_if_behind(db: Database) -> None:
    """Log a warning unless the database is at this release's revision.

    It may well be ahead of it while a cell is being upgraded.
    """
    try:
        revision, foreign = current(db), foreign_tables(db)
    except exception.DatabaseUnavailable as exc:
        LOG.warning('Cannot check the database schema: %s', exc)
        return
    except (db_exc.DBError, sa_exc.DBAPIError) as exc:
        LOG.error('Cannot check the database schema: %s', engine.answer(exc))
        return
    if foreign:
        LOG.error('%s', describe_foreign(foreign))
    elif revision is None:
        LOG.error('The database has no tables of consoled: run consoled-manage db upgrade')
    elif pending(revision) is None:
        LOG.warning(
            'The database is at revision %s, which this release does not know: a newer release has upgraded '
            'it. Upgrade this manager too',
            revision,
        )
    elif revision != head():
        LOG.warning(
            'The database is at revision %s, this release needs %s: run consoled-manage db upgrade',
            revision,
            head(),
        )
