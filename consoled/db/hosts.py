# SPDX-License-Identifier: Apache-2.0
"""All instances of a compute host, as its agent defines them at once."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa

from consoled import objects
from consoled.db import clock, consoles, models, revocation
from consoled.db.engine import Database
from consoled.db.models import Row

Consoles = Sequence[objects.ConsoleConnection]

_I = models.instances.c
_C = models.console_connection.c

_SELECT_BY_HOST = (
    sa.select(_I.uuid, _I.defined, _C.host, _C.port, _C.console_type, _C.access_url_base, _C.options)
    .select_from(models.instances.outerjoin(models.console_connection, _C.instance_uuid == _I.uuid))
    .where(_I.compute_host == sa.bindparam('compute_host'))
)

_BATCH = 100  # new instances in one transaction


@dataclasses.dataclass(frozen=True)
class Change:
    """A change that ``define`` made to an instance.

    :ivar retired: the instance is gone from the compute host, and was deleted
    :ivar cut: ids of the sessions to cut
    :ivar dropped: whether the instance lost a console, with the console's tokens
    """

    instance_uuid: str
    retired: bool
    cut: list[str]
    dropped: bool


@dataclasses.dataclass
class _KnownInstance:
    """An instance of the compute host as the database has it; its consoles by host and port."""

    defined: bool
    consoles: dict[tuple[str, int], tuple[str, str | None, str]] = dataclasses.field(default_factory=dict)


def define(
    db: Database,
    compute_host: str,
    guests: Mapping[str, Consoles | None],
    reason: str,
) -> Iterator[Change]:
    """Make the instances of a compute host, and their consoles, those of ``guests``.

    This takes one SELECT, one transaction for each instance that differs, and one for each batch of new
    instances. A call that was interrupted and is repeated continues where it stopped. Instances that no agent
    has defined are left to the sweep: the agent may have authorized a console of a guest that started after
    the list was made.

    :param guests: consoles by instance; None leaves the consoles of that instance as they are
    :param reason: why the sessions of instances that are not in ``guests`` are cut
    """
    known = _load_known(db, compute_host)
    for instance_uuid in sorted(known.keys() - guests.keys()):
        if known[instance_uuid].defined:
            # Only what is left of it on this host: it may have moved to another one since the SELECT.
            cut = revocation.forget_instance(db, instance_uuid, reason, compute_host)
            yield Change(instance_uuid, True, cut, True)
    new: dict[str, Consoles] = {}
    for instance_uuid, wanted in guests.items():
        if wanted is None or not _differs(known.get(instance_uuid), wanted):
            continue
        if instance_uuid in known:
            yield _change(instance_uuid, consoles.define(db, instance_uuid, compute_host, wanted))
        else:
            new[instance_uuid] = wanted
    added = _add(db, compute_host, new)
    for instance_uuid, wanted in new.items():
        if instance_uuid in added:
            yield Change(instance_uuid, False, [], False)
        else:  # the database has it on another host
            yield _change(instance_uuid, consoles.define(db, instance_uuid, compute_host, wanted))


def _change(instance_uuid: str, defined: consoles.Defined) -> Change:
    return Change(instance_uuid, False, defined.cut, defined.dropped)


def _add(db: Database, compute_host: str, new: Mapping[str, Consoles]) -> set[str]:
    """Insert those of the instances that have no row, with their consoles.

    They are inserted in batches: when a whole cell starts, a transaction for each would add up.

    :returns: the instances that were inserted
    """
    added: set[str] = set()
    uuids = sorted(new)
    for start in range(0, len(uuids), _BATCH):
        batch = {uuid: new[uuid] for uuid in uuids[start : start + _BATCH]}
        added |= db.transaction(lambda conn: _insert(conn, compute_host, batch), racing=True)  # noqa: B023
    return added


def _insert(conn: sa.Connection, compute_host: str, batch: Mapping[str, Consoles]) -> set[str]:
    present = set(conn.execute(sa.select(_I.uuid).where(_I.uuid.in_(list(batch)))).scalars())
    new = {uuid: found for uuid, found in batch.items() if uuid not in present}
    if not new:
        return set()
    # A plain value instead of an SQL function lets the driver send all rows at once.
    now = conn.execute(clock.NOW).scalar_one()
    conn.execute(
        sa.insert(models.instances),
        [{'uuid': uuid, 'compute_host': compute_host, 'defined': True, 'created_at': now} for uuid in new],
    )
    rows = {
        (uuid, console.host, console.port): consoles.new_row(console, now)
        for uuid, found in new.items()
        for console in found
    }
    conn.execute(sa.insert(models.console_connection), list(rows.values()))
    return set(new)


def _load_known(db: Database, compute_host: str) -> dict[str, _KnownInstance]:
    found: dict[str, _KnownInstance] = {}
    for row in db.single(lambda conn: conn.execute(_SELECT_BY_HOST, {'compute_host': compute_host}).all()):
        instance = found.setdefault(row.uuid, _KnownInstance(row.defined))
        if row.host is not None:
            instance.consoles[row.host, row.port] = _comparable(row, row.options)
    return found


def _comparable(console: Row | objects.ConsoleConnection, options: str) -> tuple[str, str | None, str]:
    return console.console_type, console.access_url_base, options


def _differs(known: _KnownInstance | None, wanted: Consoles) -> bool:
    if known is None or not known.defined:
        # An instance that has no console and shall have none needs no row; its row may be another host's.
        return bool(wanted) or bool(known and known.consoles)
    return known.consoles != {
        (console.host, console.port): _comparable(console, consoles.encode_options(console.options))
        for console in wanted
    }


def group_by_instance(
    instance_uuids: Sequence[str], found: Sequence[objects.ConsoleConnection], unknown: Sequence[str]
) -> dict[str, list[objects.ConsoleConnection] | None]:
    """Return the ``guests`` argument of ``define`` for the arguments of the RPC.

    :param instance_uuids: the instances of the compute host
    :param found: the consoles of them all
    :param unknown: those of the instances whose consoles the agent could not determine
    """
    grouped = collections.defaultdict(list)
    for console in found:
        grouped[console.instance_uuid].append(console)
    left_out = frozenset(unknown)
    return {uuid: None if uuid in left_out else grouped[uuid] for uuid in instance_uuids}
