# SPDX-License-Identifier: Apache-2.0
"""The guests of the simulated hosts. Each is a function of its number, so that the users know them too."""

from __future__ import annotations

import hashlib
import uuid

from consoled import objects
from consoled.compute.drivers import demo
from consoled.objects import ConsoleType

# type, first port on a host, page of each console of a guest
_CONSOLES = (
    (ConsoleType.NOVNC, 5900, 'https://console.example.org/novnc.html'),
    (ConsoleType.SERIAL, 10000, 'https://console.example.org/serial.html'),
)
CONSOLES = len(_CONSOLES)


def compute_host(host: int) -> str:
    """Return the name of a compute host."""
    return f'compute-{host:06d}.example.org'


def guest(host: int, slot: int) -> demo.Guest:
    """Return the guest that is in this slot of a host at first."""
    digest = hashlib.md5(f'guest-{host}-{slot}'.encode(), usedforsecurity=False).hexdigest()
    return demo.Guest(
        uuid=str(uuid.UUID(digest)),
        name=f'guest-{host}-{slot}',
        host=f'10.{host // 65536}.{host // 256 % 256}.{host % 256}',
        consoles=tuple(demo.Console(kind, port + slot, page) for kind, port, page in _CONSOLES),
    )


def is_stationary(slot: int, guests: int) -> bool:
    """Return whether the guest in this slot is never stopped or moved. Users open only these."""
    return slot < (guests + 1) // 2


def grant(host: int, slot: int) -> objects.ConsoleAuthToken:
    """Return the argument of ``authorize`` for a console of this guest."""
    wanted = guest(host, slot)
    console = wanted.consoles[0]
    return objects.ConsoleAuthToken(
        instance_uuid=wanted.uuid,
        console_type=console.console_type,
        host=wanted.host,
        port=console.port,
        compute_host=compute_host(host),
        access_url_base=console.access_url_base,
        options={},
        user_id=f'user-{host}',
        project_id=f'project-{host % 500}',
    )
