# SPDX-License-Identifier: Apache-2.0
"""Guests that exist as data only: for the demo, which runs servers at their ports, and for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from consoled import exception, objects
from consoled.compute.drivers import base
from consoled.objects import ConsoleType


@dataclasses.dataclass(frozen=True)
class Console:
    """A console of a demo guest: its type, its port, and the page that shows it."""

    console_type: str
    port: int
    access_url_base: str


@dataclasses.dataclass(frozen=True)
class Guest:
    """A demo guest; ``host`` is the address a proxy would connect to."""

    uuid: str
    name: str
    host: str
    consoles: tuple[Console, ...]

    def at(self, host: str, ports: Sequence[int], access_url_base: str) -> Guest:
        """The same guest with its consoles at other places, and another page that shows them."""
        consoles = [
            Console(console.console_type, port, access_url_base)
            for console, port in zip(self.consoles, ports, strict=True)
        ]
        return dataclasses.replace(self, host=host, consoles=tuple(consoles))


# The address is one for documentation (RFC 5737): it can't be anybody's hypervisor.
_HOST = '192.0.2.10'

DESKTOP = Guest(
    uuid='5ca1ab1e-0000-4000-8000-000000000001',
    name='desktop',
    host=_HOST,
    consoles=(Console(ConsoleType.NOVNC, 5900, 'https://consoles.example/vnc.html'),),
)
ROUTER = Guest(
    uuid='5ca1ab1e-0000-4000-8000-000000000002',
    name='router',
    host=_HOST,
    consoles=tuple(
        Console(ConsoleType.SERIAL, port, 'wss://consoles.example/') for port in range(10000, 10004)
    ),
)
GUESTS = (DESKTOP, ROUTER)


class DemoDriver(base.Driver):
    """A hypervisor without guests' processes.

    :param compute_host: name of the compute service, which is not the address of the consoles
    """

    def __init__(self, compute_host: str, guests: Iterable[Guest] = GUESTS) -> None:
        self._compute_host = compute_host
        self._guests = {guest.uuid: guest for guest in guests}

    def list_instances(self) -> list[str]:
        return list(self._guests)

    def list_consoles(self, instance_uuid: str) -> list[objects.ConsoleConnection]:
        guest = self._guests.get(instance_uuid)
        if guest is None:
            raise exception.InstanceNotFound(instance_uuid=instance_uuid)
        return [
            objects.ConsoleConnection(
                instance_uuid=guest.uuid,
                console_type=console.console_type,
                host=guest.host,
                port=console.port,
                compute_host=self._compute_host,
                access_url_base=console.access_url_base,
                options={},
            )
            for console in guest.consoles
        ]
