# SPDX-License-Identifier: Apache-2.0
"""The program ``consoled-manage``: its commands, and the errors of the database."""

from __future__ import annotations

import functools

from alembic.util import CommandError
from oslo_db import exception as db_exc
from sqlalchemy import exc as sa_exc

from consoled import exception
from consoled.cli import database_app, errors
from consoled.db import engine
from consoled.db.engine import Database
from consoled.manage import purge, schema


class Manage(database_app.DatabaseApp):
    """The program."""

    NAME = 'consoled-manage'
    DESCRIPTION = (
        'Manage a cell database: create and upgrade its schema, and purge expired data. Connects directly '
        'to the database of [database] connection; needs neither message bus nor manager. "consoled-manage '
        'help COMMAND" shows the arguments and an example of a command. Exit codes: 0 done, 1 refused, 2 '
        'wrong usage or configuration, 3 the database does not answer, 4 internal error.'
    )
    COMMANDS = {
        'db upgrade': schema.DbUpgrade,
        'db version': schema.DbVersion,
        'db check': schema.DbCheck,
        'purge': purge.Purge,
    }

    @functools.cached_property
    def db(self) -> Database:
        """The database of ``[database] connection``.

        :raises Failed: the option cannot be used, or the database is another program's
        """
        db = super().db
        schema.refuse_foreign(db)
        return db

    def explain(self, error: Exception) -> errors.Failed:
        if isinstance(error, CommandError):
            hint = 'consoled-manage db version shows the revision of this release.'
            return errors.Failed(errors.REFUSED, 'migration_refused', f'{error}.', hint)
        if engine.lacks_table(error) or engine.lacks_table(error.__cause__):
            return errors.Failed(
                errors.REFUSED, 'database_behind', 'A table is missing.', schema.UPGRADE_HINT
            )
        if isinstance(error, exception.DatabaseUnavailable | db_exc.DBNonExistentDatabase):
            return errors.Failed(
                errors.UNREACHABLE,
                exception.DatabaseUnavailable.code,
                'The database does not answer, does not exist, or refuses this user.',
                'Check [database] connection and the server; --debug shows what the server answers.',
            )
        if isinstance(error, db_exc.DBError | sa_exc.DBAPIError):
            message = f'The database refuses a statement: {engine.answer(error)}.'
            return errors.Failed(errors.REFUSED, 'database_error', message, 'See --debug.')
        return super().explain(error)
