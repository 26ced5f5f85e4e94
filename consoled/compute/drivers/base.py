# SPDX-License-Identifier: Apache-2.0
"""The driver interface: what the compute agent needs to know from a hypervisor.

Other packages can provide drivers, as entry points in the group ``consoled.compute.drivers``::

    [project.entry-points."consoled.compute.drivers"]
    mine = "my_package.driver:from_conf"

``[compute] driver = mine`` selects it. The entry point is a callable that takes the configuration (an
oslo.config ``ConfigOpts``) and returns a ``Driver``. It must not connect to the hypervisor, which may be down
when the agent starts. If the driver cannot be used as configured or installed, it raises ValueError with a
message for the operator.

These rules apply to all methods:

- They are called from several threads at the same time, and before ``watch``.
- They return the present state of the hypervisor, never a cached one: users are connected on the strength of
  the answer.
- They may block. The agent gives up on a call after ``[compute] hypervisor_timeout`` seconds, and never has
  more than ``[compute] hypervisor_threads`` calls under way.
- They raise errors of ``consoled.exception``. HypervisorUnreachable means that the state cannot be determined
  now; the agent concludes nothing from it. Any other exception is logged as a fault of the driver.
- Consoles are ``objects.ConsoleConnection`` with ``compute_host`` set to ``[DEFAULT] host``.
  ``ConsoleBuilder`` (``console_builder.py``) builds them according to the options of their console type. No
  two instances have a console with the same host and port.

``consoled.testing.driver_contract`` contains the tests that a driver must pass.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

from consoled import exception, objects

# Called with the UUID of an instance that may have changed, or with None if any may have. Returns at once and
# raises nothing.
Changed = Callable[[str | None], None]


class Driver(abc.ABC):
    """One hypervisor: its instances, and where their consoles can be reached now."""

    @abc.abstractmethod
    def list_instances(self) -> list[str]:
        """Return the UUIDs of all instances on this host, running or not, in canonical form.

        An instance that is not in the list has left this host for good: its consoles, tokens and sessions are
        removed.

        :raises HypervisorUnreachable: the list cannot be determined now
        """

    @abc.abstractmethod
    def list_consoles(self, instance_uuid: str) -> list[objects.ConsoleConnection]:
        """Return the consoles of an instance; an empty list if it has none or does not run.

        :raises InstanceNotFound: the instance is not on this host
        :raises InstanceNotReady: the instance is being migrated to or from this host, and it is not decided
            yet which host has it; the callback of ``watch`` is called when it is
        :raises HypervisorUnreachable: the consoles cannot be determined now
        """

    def check_ready(self, instance_uuid: str) -> None:  # noqa: B027 - optional
        """Check that a user can be given a console of the instance. The default implementation accepts all.

        :raises InstanceNotReady: the instance does not run, is being shut down, or is being migrated
        """

    def get_console(self, instance_uuid: str, console_type: str) -> list[objects.ConsoleConnection]:
        """Return the consoles of this type that a user can be given: one or more, each of them usable.

        Raises the errors of ``list_consoles``, and:

        :raises InstanceNotReady: see ``check_ready``
        :raises ConsoleTypeUnavailable: the instance has no console of this type
        """
        consoles = self.list_consoles(instance_uuid)
        self.check_ready(instance_uuid)
        found = [console for console in consoles if console.console_type == console_type]
        if not found:
            raise exception.ConsoleTypeUnavailable(instance_uuid=instance_uuid, console_type=console_type)
        return found

    def check_console(self, instance_uuid: str, host: str, port: int, console_type: str) -> bool:
        """Return whether the instance has a console of this type at this host and port now.

        :returns: False also if the instance is not on this host
        :raises InstanceNotReady: see ``list_consoles``
        :raises HypervisorUnreachable: it cannot be determined now
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
        """Check that the hypervisor answers.

        :raises HypervisorUnreachable: it does not
        """
        self.list_instances()

    def watch(self, changed: Changed) -> None:  # noqa: B027 - optional
        """Start to call ``changed`` for each change, from any thread, until ``close``. Called once at most.

        - ``changed(uuid)``: the instance was started, stopped or deleted, arrived at this host or left it, or
          one of its devices was added or removed.
        - ``changed(None)``: any instance may have changed, because changes may have been missed while there
          was no connection to the hypervisor; also when the first connection is made.

        Superfluous calls are harmless. A driver without notifications does nothing: the agent inspects all
        instances every ``[compute] sync_interval`` seconds.
        """

    def close(self) -> None:  # noqa: B027 - optional
        """Release all resources. No other method is called afterwards; closing twice is harmless."""
