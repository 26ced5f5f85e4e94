# SPDX-License-Identifier: Apache-2.0
"""State of a cell, as its database has it."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

from oslo_db import exception as db_exc
from sqlalchemy import exc as sa_exc

from consoled import deadline, exception
from consoled.db import clock, contests, legacy, managers, migration
from consoled.db.contests import Contest
from consoled.db.engine import Database
from consoled.db.legacy import Use
from consoled.db.managers import Manager
from consoled.sources import CHECKED

# Seconds for all queries together. A database driver may wait forever for a server that went silent.
_TIMEOUT = 15.0

# The revisions that created the tables.
_LEGACY_REVISION = '0003'
_MANAGERS_REVISION = '0004'

_ADVICE = 'Check [database] connection and the server.'


@dataclasses.dataclass(frozen=True)
class Cell:
    """State of a cell.

    :param revision: of the schema; None: it has no tables of consoled
    :param pending: revisions not applied yet; None: this release does not know the schema's revision
    :param now: time of the database, UTC
    :param managers: those that sent a heartbeat recently; None: the schema has no table of managers yet
    :param usage: of the old service, by source; None: the schema does not count it yet
    :param contests: consoles at an address that another host's instance has too; None: there are no tables
    :param foreign: tables of another program, if it has none of consoled's
    :param last_expiry: when the last live token of the old service expires; None: there is none
    """

    revision: str | None
    pending: Sequence[str] | None
    now: datetime.datetime
    managers: Sequence[Manager] | None
    usage: Sequence[Use] | None
    last_expiry: datetime.datetime | None
    contests: Sequence[Contest] | None = None
    foreign: Sequence[str] = ()


def inspect_database(db: Database) -> Cell | str:
    """Return the state of the cell, or a sentence that says why it is unknown."""
    try:
        return deadline.call(lambda: _query(db), _TIMEOUT)
    except deadline.DeadlineExceeded:
        return f'The database has not answered within {_TIMEOUT:.0f} s. {_ADVICE}'
    except (exception.DatabaseUnavailable, db_exc.DBNonExistentDatabase):
        return f'The database does not answer, does not exist, or refuses this user. {_ADVICE}'
    except (db_exc.DBError, sa_exc.DBAPIError) as exc:
        # the text of the error itself may contain a secret
        return f'The database answers with an error ({type(exc).__name__}): see --debug.'


def _query(db: Database) -> Cell:
    revision = migration.current(db)
    pending = migration.pending(revision)
    counts_usage = _LEGACY_REVISION not in (pending or ())
    return Cell(
        revision=revision,
        pending=pending,
        now=clock.now(db),
        managers=managers.list_alive(db) if _MANAGERS_REVISION not in (pending or ()) else None,
        usage=legacy.usage(db) if counts_usage else None,
        last_expiry=legacy.last_expiry(db, CHECKED) if counts_usage else None,
        contests=None if revision is None else contests.find(db),
        foreign=migration.foreign_tables(db),
    )
