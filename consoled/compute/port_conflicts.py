# SPDX-License-Identifier: Apache-2.0
"""Which guest has which place. One that two guests have leads to either of them: neither gets it."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from consoled import objects


class PortConflicts:
    """The places (host, port) of the guests, as they were seen last; from any thread.

    Two guests can have one place although the hypervisor has no conflict: one listens on a loopback address
    and the other on the address that stands for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, frozenset[tuple[str, int]]] = {}

    def put(self, instance_uuid: str, consoles: Iterable[objects.ConsoleConnection]) -> set[str]:
        """Note a guest's consoles, none if it is gone.

        :returns: the other guests for which something has changed by that
        """
        places = frozenset((console.host, console.port) for console in consoles)
        with self._lock:
            changed = places ^ self._places.get(instance_uuid, frozenset())
            if places:
                self._places[instance_uuid] = places
            else:
                self._places.pop(instance_uuid, None)
            return {
                uuid for uuid, others in self._places.items() if uuid != instance_uuid and others & changed
            }

    def keep(self, instance_uuids: Iterable[str]) -> None:
        """Forget all guests but these."""
        with self._lock:
            known = frozenset(instance_uuids)
            self._places = {uuid: places for uuid, places in self._places.items() if uuid in known}

    def others(self, instance_uuid: str, host: str, port: int) -> set[str]:
        """The guests besides this one that were seen with that place."""
        with self._lock:
            return {
                uuid
                for uuid, places in self._places.items()
                if uuid != instance_uuid and (host, port) in places
            }
