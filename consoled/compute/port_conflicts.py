# SPDX-License-Identifier: Apache-2.0
"""Console addresses that two instances share.

Such an address leads to either instance, so it is offered for neither.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence

from consoled import exception, objects
from consoled.compute.drivers.base import Driver

LOG = logging.getLogger(__name__)


class PortConflicts:
    """The console addresses (host, port) of the instances, as last observed. Thread-safe.

    Two instances can share an address without a conflict in the hypervisor: one listens on a loopback
    address, the other on the address that proxies use instead of it (see ``console_builder``).

    :param driver: asked whether an observed conflict still exists
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._lock = threading.Lock()
        self._addresses: dict[str, frozenset[tuple[str, int]]] = {}

    def record(self, instance_uuid: str, consoles: Iterable[objects.ConsoleConnection]) -> set[str]:
        """Record the consoles of an instance; no consoles if it is gone.

        :returns: UUIDs of the other instances that have one of the addresses that were gained or lost
        """
        addresses = frozenset((console.host, console.port) for console in consoles)
        with self._lock:
            changed = addresses ^ self._addresses.get(instance_uuid, frozenset())
            if addresses:
                self._addresses[instance_uuid] = addresses
            else:
                self._addresses.pop(instance_uuid, None)
            return {
                uuid for uuid, others in self._addresses.items() if uuid != instance_uuid and others & changed
            }

    def retain(self, instance_uuids: Iterable[str]) -> None:
        """Forget all instances except these."""
        with self._lock:
            retained = frozenset(instance_uuids)
            self._addresses = {
                uuid: addresses for uuid, addresses in self._addresses.items() if uuid in retained
            }

    def is_shared(self, instance_uuid: str, host: str, port: int) -> bool:
        """Return whether another instance has this address of an instance's console too.

        :raises HypervisorUnreachable: it cannot be determined now
        """
        for other in self._observed_at(host, port) - {instance_uuid}:
            try:
                consoles = self._driver.list_consoles(other)
            except (exception.InstanceNotFound, exception.InstanceNotReady):
                continue
            if any((console.host, console.port) == (host, port) for console in consoles):
                LOG.error('Instances %s and %s have the same console address', instance_uuid, other)
                return True
        return False

    def exclude_shared(
        self, consoles: Sequence[objects.ConsoleConnection]
    ) -> list[objects.ConsoleConnection]:
        """Return those of an instance's consoles whose address no other instance has.

        :raises HypervisorUnreachable: it cannot be determined now
        """
        return [
            console
            for console in consoles
            if not self.is_shared(console.instance_uuid, console.host, console.port)
        ]

    def _observed_at(self, host: str, port: int) -> set[str]:
        with self._lock:
            return {uuid for uuid, addresses in self._addresses.items() if (host, port) in addresses}
