# SPDX-License-Identifier: Apache-2.0
"""The compute agent's RPC endpoint: topic ``consoled-compute``, server = compute host."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from consoled import exception, objects
from consoled.compute.drivers.base import Driver
from consoled.compute.reconciler import Reconciler
from consoled.context import RequestContext
from consoled.rpc import arguments as arg
from consoled.rpc import versions
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.server import Endpoint, exposed

# A user waits: longest time, in seconds, until the managers know of a guest that was started just now.
_KNOWN_WITHIN = 2.0

Observer = Callable[[str, str, float], None]


class ComputeConsoleEndpoint(Endpoint):
    """Answers for the guests of one hypervisor.

    :param driver: knows the guests
    :param manager: authorizes
    :param sync: keeps the managers' knowledge of the guests true; None: somebody else does
    :param observer: told of each call: method, outcome, seconds
    """

    def __init__(
        self,
        driver: Driver,
        manager: ConsoleAuthAPI,
        sync: Reconciler | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._driver = driver
        self._manager = manager
        self._sync = sync
        self._observer = observer

    def observe(self, method: str, code: str, seconds: float) -> None:
        if self._observer is not None:
            self._observer(method, code, seconds)

    @exposed(instance_uuid=arg.uuid(), console_type=arg.console_type())
    def get_console(
        self, context: RequestContext, instance_uuid: str, console_type: str
    ) -> objects.ConsoleAuthToken:
        """A token for a console of the guest, for the user and project of the context.

        A guest's only console of a type is asked for by its place: whether a second user may have it is
        decided when it is opened. Of several the manager chooses, since it knows which are free.

        :raises InstanceNotFound: the guest is not on this host
        :raises InstanceNotReady: it does not run, is being shut down, or is being migrated
        :raises ConsoleTypeUnavailable: the guest has no console of this type
        :raises ConsolePortsExhausted: it has several, and all are connected
        :raises HypervisorUnreachable: the hypervisor does not answer
        """
        consoles = self._offered(self._driver.get_console(instance_uuid, console_type))
        if not consoles:
            raise exception.ConsoleTypeUnavailable(instance_uuid=instance_uuid, console_type=console_type)
        self._ensure_known(instance_uuid)
        try:
            granted = self._manager.authorize(context, _grant(consoles))
            if self._sync is None or granted.compute_host == consoles[0].compute_host:
                return granted
        except (exception.InstanceNotFound, exception.ConsolePortsExhausted):
            if self._sync is None:
                raise
        # The managers may believe late news of another host, that the guest has gone there.
        self._ensure_known(instance_uuid, anew=True)
        return self._manager.authorize(context, _grant(consoles))

    def _ensure_known(self, instance_uuid: str, *, anew: bool = False) -> None:
        """Have the managers know the guest's consoles first: of what they only learn from ``authorize`` they
        do not ask the agent when it is opened."""
        if self._sync is not None:
            consoles = self._offered(self._driver.list_consoles(instance_uuid))
            self._sync.ensure(instance_uuid, consoles, _KNOWN_WITHIN, anew=anew)

    def _offered(self, consoles: Sequence[objects.ConsoleConnection]) -> list[objects.ConsoleConnection]:
        return list(consoles) if self._sync is None else self._sync.without_contested(consoles)

    @exposed(instance_uuid=arg.uuid())
    def list_consoles(self, context: RequestContext, instance_uuid: str) -> objects.ConsoleConnectionList:
        """The consoles that the guest has; none if it does not run.

        :raises InstanceNotFound: the guest is not on this host
        :raises InstanceNotReady: it is on its way to this host or from it
        :raises HypervisorUnreachable: the hypervisor does not answer
        """
        consoles = self._offered(self._driver.list_consoles(instance_uuid))
        return objects.ConsoleConnectionList(objects=consoles)

    @exposed(instance_uuid=arg.uuid(), host=arg.host(), port=arg.port(), console_type=arg.console_type())
    def check_console(
        self, context: RequestContext, instance_uuid: str, host: str, port: int, console_type: str
    ) -> bool:
        """Whether the console at this place is still that guest's, and no other's.

        :raises InstanceNotReady: the guest is on its way to this host or from it
        :raises HypervisorUnreachable: the hypervisor does not answer
        """
        if not self._driver.check_console(instance_uuid, host, port, console_type):
            return False
        return self._sync is None or not self._sync.contested(instance_uuid, host, port)

    @exposed()
    def ping(self, context: RequestContext) -> str:
        return versions.RPC_VERSION


def _grant(consoles: Sequence[objects.ConsoleConnection]) -> objects.ConsoleAuthToken:
    """What to authorize: the only one by its place, else any of the type."""
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
