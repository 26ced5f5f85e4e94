# SPDX-License-Identifier: Apache-2.0
"""What a compute agent needs to know of its hypervisor."""

from __future__ import annotations

import abc

from consoled import exception, objects


class Driver(abc.ABC):
    """One hypervisor: its guests, and where their consoles can be reached now."""

    @abc.abstractmethod
    def list_instances(self) -> list[str]:
        """UUIDs of the guests on this host."""

    @abc.abstractmethod
    def list_consoles(self, instance_uuid: str) -> list[objects.ConsoleConnection]:
        """The consoles of a guest; none if it has none.

        :raises InstanceNotFound: the guest is not on this host
        """

    def check_console(self, instance_uuid: str, host: str, port: int, console_type: str) -> bool:
        """Whether a console of this type at this place is that guest's now."""
        try:
            consoles = self.list_consoles(instance_uuid)
        except exception.InstanceNotFound:
            return False
        return any(
            (console.host, console.port, console.console_type) == (host, port, console_type)
            for console in consoles
        )
