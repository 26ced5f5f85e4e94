# SPDX-License-Identifier: Apache-2.0
"""What a compute host says of all its guests at once."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from consoled import objects
from consoled.db import cleanup, clock, consoles, models
from consoled.db.session import Database

Consoles = Sequence[objects.ConsoleConnection]

_I = models.instances.c
_C = models.console_connection.c

_OF_HOST = (
    sa.select(_I.uuid, _I.defined, _C.host, _C.port, _C.console_type, _C.access_url_base, _C.options)
    .select_from(models.instances.outerjoin(models.console_connection, _C.instance_uuid == _I.uuid))
    .where(_I.compute_host == sa.bindparam('compute_host'))
)

_BATCH = 100  # new guests in a transaction


@dataclasses.dataclass(frozen=True)
class Change:
    """What was changed of an instance, which is gone if it is ``retired``; ids of the sessions to cut, and
    whether it lost tokens."""

    instance_uuid: str
    retired: bool
    cut: list[str]
    dropped: bool


@dataclasses.dataclass
class _Known:
    defined: bool
    consoles: dict[tuple[str, int], tuple[str, str | None, str]] = dataclasses.field(default_factory=dict)


def define(
    db: Database,
    compute_host: str,
    guests: Mapping[str, Consoles | None],
    reason: str,
) -> Iterator[Change]:
    """Make these, and only these, the guests of a compute host, with these consoles.

    One SELECT, and then a transaction for each instance that differs, or for many that are new: ended in its
    middle and repeated, it goes on where it was. Instances that no agent has defined are left to the sweep:
    the agent may have authorized a console of a guest that was not there yet when it made the list.

    :param guests: consoles by instance; None: it is here, and nothing is said of its consoles
    :param reason: why the sessions of those that are not named are cut
    """
    known = _known(db, compute_host)
    for instance_uuid in sorted(known.keys() - guests.keys()):
        if known[instance_uuid].defined:
            # it may be on another host by now, and that one's to forget
            cut = cleanup.forget_instance(db, instance_uuid, reason, compute_host)
            yield Change(instance_uuid, True, cut, True)
    new: dict[str, Consoles] = {}
    for instance_uuid, wanted in guests.items():
        if wanted is None or not _differs(known.get(instance_uuid), wanted):
            continue
        if instance_uuid in known:
            yield _changed(instance_uuid, consoles.define(db, instance_uuid, compute_host, wanted))
        else:
            new[instance_uuid] = wanted
    added = _add(db, compute_host, new)
    for instance_uuid, wanted in new.items():
        if instance_uuid in added:
            yield Change(instance_uuid, False, [], False)
        else:  # it is another host's so far
            yield _changed(instance_uuid, consoles.define(db, instance_uuid, compute_host, wanted))


def _changed(instance_uuid: str, defined: consoles.Defined) -> Change:
    return Change(instance_uuid, False, defined.cut, defined.dropped)


def _add(db: Database, compute_host: str, new: Mapping[str, Consoles]) -> set[str]:
    """Insert the instances that have no row, with their consoles.

    Many at a time: when a whole cell starts, the transactions and round trips of each guest add up.

    :returns: those that were inserted
    """
    added: set[str] = set()
    uuids = sorted(new)
    for start in range(0, len(uuids), _BATCH):
        batch = {uuid: new[uuid] for uuid in uuids[start : start + _BATCH]}
        added |= db.transaction(lambda conn: _insert(conn, compute_host, batch), racing=True)  # noqa: B023
    return added


def _insert(conn: sa.Connection, compute_host: str, batch: Mapping[str, Consoles]) -> set[str]:
    there = set(conn.execute(sa.select(_I.uuid).where(_I.uuid.in_(list(batch)))).scalars())
    new = {uuid: found for uuid, found in batch.items() if uuid not in there}
    if not new:
        return set()
    now = conn.execute(clock.NOW).scalar_one()  # with plain values only, the driver sends all rows at once
    conn.execute(
        sa.insert(models.instances),
        [{'uuid': uuid, 'compute_host': compute_host, 'defined': True, 'created_at': now} for uuid in new],
    )
    rows = {
        (uuid, console.host, console.port): consoles.row_of(console, now)
        for uuid, found in new.items()
        for console in found
    }
    conn.execute(sa.insert(models.console_connection), list(rows.values()))
    return set(new)


def _known(db: Database, compute_host: str) -> dict[str, _Known]:
    found: dict[str, _Known] = {}
    for row in db.single(lambda conn: conn.execute(_OF_HOST, {'compute_host': compute_host}).all()):
        instance = found.setdefault(row.uuid, _Known(row.defined))
        if row.host is not None:
            instance.consoles[row.host, row.port] = _shown(row, row.options)
    return found


def _shown(console: Any, options: str) -> tuple[str, str | None, str]:
    return console.console_type, console.access_url_base, options


def _differs(known: _Known | None, wanted: Consoles) -> bool:
    if known is None or not known.defined:
        # none here, and none to be: then it is not worth a row, or it is another host's
        return bool(wanted) or bool(known and known.consoles)
    return known.consoles != {
        (console.host, console.port): _shown(console, consoles.encode_options(console.options))
        for console in wanted
    }


def by_instance(
    instance_uuids: Sequence[str], found: Sequence[objects.ConsoleConnection], unknown: Sequence[str]
) -> dict[str, list[objects.ConsoleConnection] | None]:
    """The form that ``define`` takes, of the form on the wire."""
    grouped = collections.defaultdict(list)
    for console in found:
        grouped[console.instance_uuid].append(console)
    left_out = frozenset(unknown)
    return {uuid: None if uuid in left_out else grouped[uuid] for uuid in instance_uuids}
