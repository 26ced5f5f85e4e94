# SPDX-License-Identifier: Apache-2.0
"""The serial ports of an instance: their numbers, and which of them are free."""

from __future__ import annotations

import dataclasses

import sqlalchemy as sa

from consoled import objects
from consoled.db import consoles, contests, models
from consoled.db.engine import Database

_I = models.instances.c
_C = models.console_connection.c

# Option of a console in an answer, not in the database: the number of a port, for the user.
NUMBER = 'serial_port'

_SELECT_PORTS = (
    sa.select(
        *consoles.CONSOLE_COLUMNS,
        _I.compute_host,
        consoles.LIVE_SESSION.correlate(models.console_connection).exists().label('connected'),
        contests.SUSPECT.label('suspect'),
    )
    .select_from(models.console_connection.join(models.instances, _I.uuid == _C.instance_uuid))
    .where(
        _C.instance_uuid == sa.bindparam('instance_uuid'),
        _C.console_type == objects.ConsoleType.SERIAL,
        _I.defined.is_(True),
    )
    .order_by(_C.port, _C.host)
)


@dataclasses.dataclass(frozen=True)
class Port:
    """A serial port of an instance.

    :ivar number: counted from 1, in the order of the TCP ports
    :ivar console: its options have the number too, as ``NUMBER``
    :ivar contested: an instance of another compute host has its address too
    :ivar free: it has no live session, and is not contested
    """

    number: int
    console: objects.ConsoleConnection
    contested: bool
    free: bool


def list_ports(db: Database, instance_uuid: str) -> list[Port]:
    """Return the serial ports of an instance, by number; none if no compute agent has defined them."""

    def work(conn: sa.Connection) -> list[Port]:
        found = []
        rows = conn.execute(_SELECT_PORTS, {'instance_uuid': instance_uuid}).all()
        for number, row in enumerate(rows, start=1):
            console = consoles.to_connection(instance_uuid, row.compute_host, row)
            console.options = {**console.options, NUMBER: str(number)}
            contested = bool(row.suspect) and contests.is_contested(conn, instance_uuid, row.host, row.port)
            found.append(Port(number, console, contested, free=not (row.connected or contested)))
        return found

    return db.single(work)


def find(db: Database, instance_uuid: str, host: str, port: int) -> Port | None:
    """Return the serial port of an instance at a host and port, or None."""
    ports = list_ports(db, instance_uuid)
    return next((each for each in ports if (each.console.host, each.console.port) == (host, port)), None)
