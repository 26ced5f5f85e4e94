# SPDX-License-Identifier: Apache-2.0
"""The contract of drivers: what a compute agent needs to know of its hypervisor.

A driver of another package is an entry point in the group ``consoled.compute.drivers``::

    [project.entry-points."consoled.compute.drivers"]
    mine = "my_package.driver:from_conf"

``[compute] driver = mine`` chooses it. The entry point is a callable that takes the options (an oslo.config
``ConfigOpts``) and returns a ``Driver``. It connects to nothing: the hypervisor may be away when the agent
starts. It raises ValueError, with a text for the operator, if it can't be used as configured or installed.

What holds for all methods:

- They may be called from several threads at a time, and before ``watch``.
- They look at the hypervisor as it is now. Nobody is shown a console on the word of an old answer.
- They may block: the agent waits for each call for ``[compute] hypervisor_timeout`` and lets go of it. It
  never has more than ``[compute] hypervisor_threads`` of them under way.
- They raise errors of ``consoled.exception``. HypervisorUnreachable says that the truth can't be had now;
  nothing is concluded from it. Any other exception is logged as a fault of the driver.
- Consoles are ``objects.ConsoleConnection`` with ``compute_host`` = ``[DEFAULT] host``;
  ``ConsoleBuilder`` (console_builder.py) makes them from the operator's options. No two guests share a host
  and port.

``consoled.testing.driver_contract`` has the tests that a driver must pass.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

from consoled import exception, objects

# Takes the UUID of a guest that may have changed, or None: any may have. Returns at once, raises nothing.
Changed = Callable[[str | None], None]


class Driver(abc.ABC):
    """One hypervisor: its guests, and where their consoles can be reached now."""

    @abc.abstractmethod
    def list_instances(self) -> list[str]:
        """UUIDs of the guests on this host, running or not.

        A guest that this leaves out is gone for good from this host: its consoles, tokens and sessions go.

        :raises HypervisorUnreachable: it can't be said now
        """

    @abc.abstractmethod
    def list_consoles(self, instance_uuid: str) -> list[objects.ConsoleConnection]:
        """The consoles of a guest; none if it has none, or does not run.

        :raises InstanceNotFound: the guest is not on this host
        :raises InstanceNotReady: the guest is on its way to this host or from it, and it can't be said yet
            whose it is; ``watch`` tells when it can
        :raises HypervisorUnreachable: it can't be said now
        """

    def check_ready(self, instance_uuid: str) -> None:  # noqa: B027 - for those that can
        """Whether a user can be given a console of the guest. For drivers that can say why not.

        :raises InstanceNotReady: it does not run, is being shut down, or is being migrated
        """

    def get_console(self, instance_uuid: str, console_type: str) -> list[objects.ConsoleConnection]:
        """The consoles of that type that a user can be given: at least one, of which any will do.

        Errors as of ``list_consoles``, and:

        :raises InstanceNotReady: as of ``check_ready``
        :raises ConsoleTypeUnavailable: the guest has none of this type
        """
        consoles = self.list_consoles(instance_uuid)
        self.check_ready(instance_uuid)
        found = [console for console in consoles if console.console_type == console_type]
        if not found:
            raise exception.ConsoleTypeUnavailable(instance_uuid=instance_uuid, console_type=console_type)
        return found

    def check_console(self, instance_uuid: str, host: str, port: int, console_type: str) -> bool:
        """Whether a console of this type at this place is that guest's now.

        :raises InstanceNotReady: as of ``list_consoles``
        :raises HypervisorUnreachable: it can't be said now
        """
        try:
            consoles = self.list_consoles(instance_uuid)
        except exception.InstanceNotFound:
            return False
        return any(
            (console.host, console.port, console.console_type) == (host, port, console_type)
            for console in consoles
        )

    def ping(self) -> None:
        """Ask the hypervisor whether it answers.

        :raises HypervisorUnreachable: it does not
        """
        self.list_instances()

    def watch(self, changed: Changed) -> None:  # noqa: B027 - for those that can
        """Begin to tell of changes, from any thread, until ``close``. Called once.

        ``changed(uuid)``: the guest was started or stopped, came or left, got or lost a device, or was
        deleted. ``changed(None)``: whatever may have changed, as after a time without a connection; also the
        first time that there is one. Too often is harmless. A driver that can't tell does nothing: the agent
        looks every ``[compute] sync_interval``.
        """

    def close(self) -> None:  # noqa: B027 - for those that hold something
        """Let go of everything. Nothing else is called afterwards; twice is harmless."""
