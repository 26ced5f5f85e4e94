# SPDX-License-Identifier: Apache-2.0
"""RPC endpoint of the compute agent: topic ``consoled-compute``, server = compute host."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from consoled import exception, objects
from consoled.compute.drivers.base import Driver
from consoled.compute.port_conflicts import PortConflicts
from consoled.compute.reconciler import Reconciler
from consoled.context import RequestContext
from consoled.rpc import arguments as arg
from consoled.rpc import versions
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.server import Endpoint, exposed

# Seconds to wait until the managers know an instance that has just started. A user waits for the answer.
_REPORT_TIMEOUT = 2.0

# method, outcome, seconds
Observer = Callable[[str, str, float], None]


class ComputeConsoleEndpoint(Endpoint):
    """Answers calls about the instances of one hypervisor.

    :param driver: knows the instances and their consoles
    :param manager: client that authorizes consoles
    :param reconciler: reports consoles to the managers; None if something else does
    :param port_conflicts: knows which consoles share an address; None if that cannot happen
    :param observer: called after each call with its method, outcome (``ok`` or the code of the error) and
        seconds
    """

    def __init__(
        self,
        driver: Driver,
        manager: ConsoleAuthAPI,
        reconciler: Reconciler | None = None,
        port_conflicts: PortConflicts | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._driver = driver
        self._manager = manager
        self._reconciler = reconciler
        self._port_conflicts = port_conflicts
        self._observer = observer

    def observe(self, method: str, code: str, seconds: float) -> None:
        """Pass the outcome of a call to the observer, if there is one."""
        if self._observer is not None:
            self._observer(method, code, seconds)

    @exposed(instance_uuid=arg.uuid(), console_type=arg.console_type())
    def get_console(
        self, context: RequestContext, instance_uuid: str, console_type: str
    ) -> objects.ConsoleAuthToken:
        """Return a token for a console of the instance, for the user and project of the context.

        If the instance has only one console of the type, that one is authorized; whether a second user may
        open it is decided when it is opened. If it has several, the manager chooses a free one.

        :raises InstanceNotFound: the instance is not on this host
        :raises InstanceNotReady: it does not run, is being shut down, or is being migrated
        :raises ConsoleTypeUnavailable: the instance has no console of this type
        :raises ConsolePortsExhausted: it has several, and all are connected
        :raises ConsoleContested: an instance of another compute host has the console's address too
        :raises HypervisorUnreachable: the hypervisor does not answer
        """
        consoles = self._exclude_shared(self._driver.get_console(instance_uuid, console_type))
        if not consoles:
            raise exception.ConsoleTypeUnavailable(instance_uuid=instance_uuid, console_type=console_type)
        self._ensure_reported(instance_uuid)
        try:
            granted = self._manager.authorize(context, _build_grant(consoles))
            if self._reconciler is None or granted.compute_host == consoles[0].compute_host:
                return granted
        except (exception.InstanceNotFound, exception.ConsolePortsExhausted):
            if self._reconciler is None:
                raise
        # The managers may have carried out a late report of another host, as if the instance were there.
        self._ensure_reported(instance_uuid, force=True)
        return self._manager.authorize(context, _build_grant(consoles))

    def _ensure_reported(self, instance_uuid: str, *, force: bool = False) -> None:
        """Wait until the managers know the consoles of the instance.

        For a console that they know from ``authorize`` alone they would not call ``check_console`` when it is
        opened.
        """
        if self._reconciler is not None:
            consoles = self._exclude_shared(self._driver.list_consoles(instance_uuid))
            self._reconciler.ensure_reported(instance_uuid, consoles, _REPORT_TIMEOUT, force=force)

    def _exclude_shared(
        self, consoles: Sequence[objects.ConsoleConnection]
    ) -> list[objects.ConsoleConnection]:
        if self._port_conflicts is None:
            return list(consoles)
        return self._port_conflicts.exclude_shared(consoles)

    @exposed(instance_uuid=arg.uuid())
    def list_consoles(self, context: RequestContext, instance_uuid: str) -> objects.ConsoleConnectionList:
        """Return the consoles of the instance; none if it does not run.

        :raises InstanceNotFound: the instance is not on this host
        :raises InstanceNotReady: it is being migrated to or from this host
        :raises HypervisorUnreachable: the hypervisor does not answer
        """
        consoles = self._exclude_shared(self._driver.list_consoles(instance_uuid))
        return objects.ConsoleConnectionList(objects=consoles)

    @exposed(instance_uuid=arg.uuid(), host=arg.host(), port=arg.port(), console_type=arg.console_type())
    def check_console(
        self, context: RequestContext, instance_uuid: str, host: str, port: int, console_type: str
    ) -> bool:
        """Return whether the instance, and no other, still has this console at this host and port.

        :raises InstanceNotReady: the instance is being migrated to or from this host
        :raises HypervisorUnreachable: the hypervisor does not answer
        """
        if not self._driver.check_console(instance_uuid, host, port, console_type):
            return False
        return self._port_conflicts is None or not self._port_conflicts.is_shared(instance_uuid, host, port)

    @exposed()
    def ping(self, context: RequestContext) -> str:
        """Return the version of the RPC contract."""
        return versions.RPC_VERSION


def _build_grant(consoles: Sequence[objects.ConsoleConnection]) -> objects.ConsoleAuthToken:
    """Build the argument of ``authorize``: with host and port if there is only one console to choose."""
    first = consoles[0]
    grant = objects.ConsoleAuthToken(
        instance_uuid=first.instance_uuid,
        console_type=first.console_type,
        compute_host=first.compute_host,
    )
    if len(consoles) == 1:
        grant.host, grant.port = first.host, first.port
        grant.access_url_base, grant.options = first.access_url_base, first.options
    return grant
