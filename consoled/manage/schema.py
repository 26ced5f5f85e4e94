# SPDX-License-Identifier: Apache-2.0
"""``consoled-manage db``: create, upgrade and check the schema of the cell database."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from consoled.cli import app, arguments, errors
from consoled.cli.database_app import DatabaseCommand
from consoled.db import migration
from consoled.db.engine import Database

UPGRADE_HINT = 'Run consoled-manage db upgrade.'


def require_revision(db: Database) -> str:
    """Return the revision of the database.

    :raises Failed: it has no tables of consoled
    """
    current = migration.current(db)
    if current is None:
        message = 'The database has no tables of consoled.'
        raise errors.Failed(errors.REFUSED, 'database_behind', message, UPGRADE_HINT)
    return current


def refuse_foreign(db: Database) -> None:
    """Refuse to work on another program's database.

    :raises Failed: it has tables, but none of consoled's revisions
    """
    tables = migration.foreign_tables(db)
    if tables:
        raise errors.Failed(
            errors.REFUSED,
            'database_foreign',
            f'{migration.describe_foreign(tables)}. Nothing was changed.',
            'Give consoled a database of its own. That of Nova belongs to [nova] connection.',
        )


def refuse_older(revision: str) -> None:
    """Refuse to work on a schema that lacks what this release needs.

    :raises Failed: it has to be upgraded first
    """
    if migration.pending(revision):
        raise errors.Failed(
            errors.REFUSED,
            'database_behind',
            f'The database is at revision {revision}; this release needs {migration.head()}.',
            UPGRADE_HINT,
        )


def refuse_newer(revision: str) -> None:
    """Refuse to work on a schema that this release does not know.

    :raises Failed: a newer release has upgraded the database
    """
    if migration.pending(revision) is None:
        raise errors.Failed(
            errors.REFUSED,
            'database_ahead',
            f'The database is at revision {revision}, which this release does not know: a newer release has '
            'upgraded it.',
            'Managers of the release before that one can keep running on it. For anything else, use the '
            'consoled-manage of the newer release.',
        )


class DbUpgrade(DatabaseCommand):
    """Create the schema, or upgrade it to the revision of this release

    Safe to repeat. An upgrade never removes what the previous release needs, so its managers may keep
    running: upgrade the schema first, then restart the managers one by one.
    """

    example = 'consoled-manage --config-file /etc/consoled/consoled.conf db upgrade'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--revision',
            type=arguments.text(64),
            default='head',
            metavar='ID',
            help='Upgrade to this revision. Default: head, the revision of this release.',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        current = migration.current(self.app.db)
        if current is not None:
            refuse_newer(current)
        migration.upgrade(self.app.db, parsed_args.revision)
        self.app.stdout.write(f'The database is at revision {migration.current(self.app.db)}.\n')


class DbVersion(DatabaseCommand, app.ShowOne):
    """Show the schema revision of the database and the one this release needs"""

    columns = ('current', 'head')
    example = 'consoled-manage db version -f json'

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        return self.columns, (migration.current(self.app.db), migration.head())


class DbCheck(DatabaseCommand):
    """Check that the schema is at the revision this release needs

    Exit code 0 if it is; 1 if it is behind, or ahead of this release; 3 if the database does not answer.
    """

    example = 'consoled-manage db check && systemctl restart consoled'

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        current = require_revision(self.app.db)
        refuse_newer(current)
        refuse_older(current)
        self.app.stdout.write(f'The database is at revision {current}, as this release needs.\n')
