# SPDX-License-Identifier: Apache-2.0
"""Interrupts an upgrade after each of its statements, and runs it again to the end.

MariaDB and MySQL commit each statement that changes a table, so an upgrade that was killed has left behind
what it had done. The next one has to begin there.
"""

import re

import sqlalchemy as sa
from alembic.runtime import migration as alembic_migration

from alembic import autogenerate
from consoled.db import migration

_READ = re.compile(r'\s*(SELECT|SHOW|DESC|DESCRIBE|PRAGMA|SET)\b', re.IGNORECASE)
_INDEX_IF_NOT_EXISTS = re.compile(r'(CREATE INDEX) IF NOT EXISTS', re.IGNORECASE)


class Interruption:
    """Kills an upgrade after a number of statements that change something.

    :param number: 1 for the first statement; 0 kills nothing
    :ivar statement: the last one of those
    :ivar happened: the upgrade was killed
    """

    def __init__(self, db, number=0):
        self.statement, self.happened = None, False
        self._left = number
        sa.event.listen(db.transactional_engine, 'after_cursor_execute', self._executed)

    def _executed(self, conn, cursor, statement, parameters, context, executemany):
        if _READ.match(statement):
            return
        self.statement = statement
        self._left -= 1
        if self._left == 0:
            self.happened = True
            raise RuntimeError('killed')


def like_mysql(db):
    """Let CREATE INDEX fail if the index exists, as on MySQL, which has no IF NOT EXISTS there."""

    def without(conn, cursor, statement, parameters, context, executemany):
        return _INDEX_IF_NOT_EXISTS.sub(r'\1', statement), parameters

    sa.event.listen(db.transactional_engine, 'before_cursor_execute', without, retval=True)


def failures(new_database, start=None):
    """Return the statements after which an interrupted upgrade cannot be run again to the same end.

    :param new_database: returns an empty ``Database``
    :param start: the revision before those that are interrupted; None: all are
    :returns: (statement, what went wrong), in order
    """
    expected = sa.MetaData()
    reference = new_database()
    migration.upgrade(reference)
    expected.reflect(reference.transactional_engine)
    found = []
    for number in range(1, 1000):
        db = new_database()
        if start:
            migration.upgrade(db, start)
        interruption = Interruption(db, number)
        try:
            migration.upgrade(db)
        except Exception:
            if not interruption.happened:
                raise
        else:
            return found
        wrong = _run_again(db, expected)
        if wrong:
            found.append((interruption.statement, wrong))
    raise AssertionError('The upgrade has no end.')


def _run_again(db, expected):
    """Return what goes wrong; '' if the result is right."""
    try:
        migration.upgrade(db)
    except Exception as exc:
        return str(exc.__cause__ or exc)
    with db.transactional_engine.connect() as conn:
        context = alembic_migration.MigrationContext.configure(
            conn, opts={'version_table': migration.VERSION_TABLE, 'compare_type': True}
        )
        differences = autogenerate.compare_metadata(context, expected)
    return str(differences) if differences else ''
