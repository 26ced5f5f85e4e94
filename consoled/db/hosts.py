# SPDX-License-Identifier: Apache-2.0
"""What a compute host says of all its guests at once."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from consoled import objects
from consoled.db import cleanup, consoles, models
from consoled.db.session import Database

_I = models.instances.c
_C = models.console_connection.c

_OF_HOST = (
    sa.select(_I.uuid, _I.defined, _C.host, _C.port, _C.console_type, _C.access_url_base, _C.options)
    .select_from(models.instances.outerjoin(models.console_connection, _C.instance_uuid == _I.uuid))
    .where(_I.compute_host == sa.bindparam('compute_host'))
)


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
    guests: Mapping[str, Sequence[objects.ConsoleConnection] | None],
    reason: str,
) -> Iterator[Change]:
    """Make these, and only these, the guests of a compute host, with these consoles.

    One SELECT, and then a transaction for each instance that differs: ended in its middle and repeated, it
    goes on where it was. Instances that no agent has defined are left to the sweep: the agent may have
    authorized a console of a guest that was not there yet when it made the list.

    :param guests: consoles by instance; None: it is here, and nothing is said of its consoles
    :param reason: why the sessions of those that are not named are cut
    """
    known = _known(db, compute_host)
    for instance_uuid in sorted(known.keys() - guests.keys()):
        if known[instance_uuid].defined:
            # it may be on another host by now, and that one's to forget
            cut = cleanup.forget_instance(db, instance_uuid, reason, compute_host)
            yield Change(instance_uuid, True, cut, True)
    for instance_uuid, wanted in guests.items():
        if wanted is not None and _differs(known.get(instance_uuid), wanted):
            defined = consoles.define(db, instance_uuid, compute_host, wanted)
            yield Change(instance_uuid, False, defined.cut, defined.dropped)


def _known(db: Database, compute_host: str) -> dict[str, _Known]:
    found: dict[str, _Known] = {}
    for row in db.single(lambda conn: conn.execute(_OF_HOST, {'compute_host': compute_host}).all()):
        instance = found.setdefault(row.uuid, _Known(row.defined))
        if row.host is not None:
            instance.consoles[row.host, row.port] = _shown(row, row.options)
    return found


def _shown(console: Any, options: str) -> tuple[str, str | None, str]:
    return console.console_type, console.access_url_base, options


def _differs(known: _Known | None, wanted: Sequence[objects.ConsoleConnection]) -> bool:
    if known is None or not known.defined:
        # none here, and none to be: then it is not worth a row, or it is another host's
        return bool(wanted) or bool(known and known.consoles)
    return known.consoles != {
        (console.host, console.port): _shown(console, consoles.encode_options(console.options))
        for console in wanted
    }


def by_instance(
    instance_uuids: Sequence[str], found: Sequence[objects.ConsoleConnection], unsure: Sequence[str]
) -> dict[str, list[objects.ConsoleConnection] | None]:
    """The form that ``define`` takes, of the form on the wire."""
    grouped = collections.defaultdict(list)
    for console in found:
        grouped[console.instance_uuid].append(console)
    left_out = frozenset(unsure)
    return {uuid: None if uuid in left_out else grouped[uuid] for uuid in instance_uuids}
