# SPDX-License-Identifier: Apache-2.0
"""Schema migrations: alembic, run from a checkout or from an installed wheel."""

from __future__ import annotations

import logging
import pathlib

import sqlalchemy as sa
from alembic.runtime import migration as alembic_migration
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError

from alembic import command
from alembic import config as alembic_config
from consoled import exception
from consoled.db import session
from consoled.db.session import Database

LOG = logging.getLogger(__name__)

VERSION_TABLE = 'consoled_alembic_version'

_PACKAGE = pathlib.Path(__file__).resolve().parent
# setup.py installs the checkout's alembic/ as the first of these
_PLACES = (_PACKAGE / 'alembic', _PACKAGE.parent.parent / 'alembic')


def _config(connection: sa.Connection | None = None) -> alembic_config.Config:
    place = next((path for path in _PLACES if (path / 'env.py').is_file()), None)
    if place is None:
        raise FileNotFoundError('the migrations of consoled are not installed')
    config = alembic_config.Config()
    config.set_main_option('script_location', str(place))
    config.attributes['connection'] = connection
    config.attributes['version_table'] = VERSION_TABLE
    return config


def head() -> str:
    """The revision that this release needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise FileNotFoundError('the migrations of consoled are empty')
    return revision


def pending(revision: str | None) -> list[str] | None:
    """What a database at ``revision`` lacks, oldest first; None: a newer release has upgraded it."""
    script = ScriptDirectory.from_config(_config())
    try:
        missing = [each.revision for each in script.iterate_revisions('head', revision or 'base')]
    except ResolutionError:
        return None
    return missing[::-1]


def current(db: Database) -> str | None:
    """The revision the database is at; None if it has none of our tables.

    :raises DatabaseUnavailable: it does not answer
    """
    try:
        with db.transactional_engine.connect() as conn:
            context = alembic_migration.MigrationContext.configure(
                conn, opts={'version_table': VERSION_TABLE}
            )
            return context.get_current_revision()
    except session.TRANSIENT as exc:
        raise exception.DatabaseUnavailable() from exc


def upgrade(db: Database, revision: str = 'head') -> None:
    """Bring the database to a revision; one that is there already is left as it is.

    :raises DatabaseUnavailable: it does not answer
    """
    try:
        with db.transactional_engine.begin() as conn:
            command.upgrade(_config(conn), revision)
    except session.TRANSIENT as exc:
        raise exception.DatabaseUnavailable() from exc


def warn_if_behind(db: Database) -> None:
    """Log if the database is not at this release's revision. It may be ahead while a cell is upgraded."""
    try:
        revision = current(db)
    except exception.DatabaseUnavailable as exc:
        LOG.warning('the schema could not be checked: %s', exc)
        return
    if revision != head():
        LOG.warning(
            'the database is at revision %s and this release is made for %s: run consoled-manage db upgrade',
            revision,
            head(),
        )
