# SPDX-License-Identifier: Apache-2.0
"""A driver for guests that exist as data only.

The demo runs servers at the ports of these guests; tests use them without.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
import threading
from collections.abc import Iterable, Sequence

from oslo_config import cfg

from consoled import exception, objects
from consoled.compute.drivers import base
from consoled.objects import ConsoleType

LOG = logging.getLogger(__name__)

_JOIN_TIMEOUT = 5.0  # seconds; a file system that hangs must not keep the agent from stopping
_POLL_INTERVAL = 0.1  # seconds between two reads of the file of guests


@dataclasses.dataclass(frozen=True)
class Console:
    """A console of a demo guest: its type, its port, and the URL of the page that shows it."""

    console_type: str
    port: int
    access_url_base: str


@dataclasses.dataclass(frozen=True)
class Guest:
    """A demo guest; ``host`` is the address that proxies connect to."""

    uuid: str
    name: str
    host: str
    consoles: tuple[Console, ...]
    running: bool = True

    def moved_to(self, host: str, ports: Sequence[int], access_url_base: str) -> Guest:
        """Return the same guest with another address, ports and page for its consoles.

        :param ports: one for each console
        """
        consoles = [
            Console(console.console_type, port, access_url_base)
            for console, port in zip(self.consoles, ports, strict=True)
        ]
        return dataclasses.replace(self, host=host, consoles=tuple(consoles))


# An address for documentation (RFC 5737), which cannot belong to a real hypervisor.
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


def from_conf(conf: cfg.ConfigOpts) -> DemoDriver:
    """Return a driver with the guests in the file ``[compute] demo_guests``, or with ``GUESTS``."""
    path = conf.compute.demo_guests
    return DemoDriver(conf.host) if path is None else DemoDriver(conf.host, (), pathlib.Path(path))


def read_guests(path: pathlib.Path) -> list[Guest]:
    """Return the guests in a file: a JSON list of objects with the fields of ``Guest`` and ``Console``.

    :raises OSError: the file cannot be read
    :raises ValueError: it is not such a list
    """
    try:
        return [
            Guest(**{**item, 'consoles': tuple(Console(**console) for console in item['consoles'])})
            for item in json.loads(path.read_text())
        ]
    except (TypeError, KeyError):
        raise ValueError('not a list of guests') from None


class DemoDriver(base.Driver):
    """A hypervisor whose guests have no processes.

    :param compute_host: name of the compute host, which is not the address of the consoles
    :param guests: the guests at the start, if there is no file
    :param path: a file of guests, read again when it changes; while it cannot be read, the hypervisor is
        unreachable
    """

    def __init__(
        self, compute_host: str, guests: Iterable[Guest] = GUESTS, path: pathlib.Path | None = None
    ) -> None:
        self._compute_host = compute_host
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._lock = threading.Lock()
        self._guests = {guest.uuid: guest for guest in guests}
        self._changed: base.Changed = lambda instance_uuid: None
        self._closed = threading.Event()
        self._poller: threading.Thread | None = None

    def put(self, guest: Guest) -> None:
        """Add a guest, or replace the one with its UUID."""
        with self._lock:
            self._guests[guest.uuid] = guest
        self._changed(guest.uuid)

    def remove(self, instance_uuid: str) -> None:
        """Delete a guest."""
        with self._lock:
            self._guests.pop(instance_uuid, None)
        self._changed(instance_uuid)

    def list_instances(self) -> list[str]:
        return list(self._current_guests())

    def list_consoles(self, instance_uuid: str) -> list[objects.ConsoleConnection]:
        guest = self._find_guest(instance_uuid)
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
            if guest.running
        ]

    def check_ready(self, instance_uuid: str) -> None:
        if not self._find_guest(instance_uuid).running:
            raise exception.InstanceNotReady(instance_uuid=instance_uuid, reason='it is not running')

    def _find_guest(self, instance_uuid: str) -> Guest:
        guest = self._current_guests().get(instance_uuid)
        if guest is None:
            raise exception.InstanceNotFound(instance_uuid=instance_uuid)
        return guest

    def _current_guests(self) -> dict[str, Guest]:
        """Return the guests by UUID; read the file first, if there is one.

        :raises HypervisorUnreachable: the file cannot be read
        """
        with self._lock:
            if self._path is not None:
                self._reload(self._path)
            return dict(self._guests)

    def _reload(self, path: pathlib.Path) -> None:
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            if version != self._version:
                self._guests = {guest.uuid: guest for guest in read_guests(path)}
                self._version = version
        except (OSError, ValueError) as exc:
            LOG.warning('Could not read the guests from %s: %s', path, exc)
            raise exception.HypervisorUnreachable() from None

    def watch(self, changed: base.Changed) -> None:
        self._changed = changed
        if self._path is None:
            changed(None)
        else:
            self._poller = threading.Thread(target=self._poll, name='demo-guests', daemon=True)
            self._poller.start()

    def _poll(self) -> None:
        known: dict[str, Guest] | None = None
        while not self._closed.is_set():
            try:
                guests = self._current_guests()
            except exception.HypervisorUnreachable:
                known = None
            else:
                if known is None:
                    self._changed(None)
                else:
                    for instance_uuid in known.keys() | guests.keys():
                        if known.get(instance_uuid) != guests.get(instance_uuid):
                            self._changed(instance_uuid)
                known = guests
            self._closed.wait(_POLL_INTERVAL)

    def close(self) -> None:
        self._changed = lambda instance_uuid: None
        self._closed.set()
        if self._poller is not None:
            self._poller.join(_JOIN_TIMEOUT)  # it may be reporting a change
