# SPDX-License-Identifier: Apache-2.0
"""The compute agent's RPC endpoint: topic ``consoled-compute``, server = compute host."""

from __future__ import annotations

from consoled import exception, objects
from consoled.compute.drivers.base import Driver
from consoled.context import RequestContext
from consoled.rpc import arguments as arg
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.server import Endpoint, exposed


class ComputeConsoles(Endpoint):
    """Answers for the guests of one hypervisor.

    :param driver: knows the guests
    :param manager: authorizes
    """

    def __init__(self, driver: Driver, manager: ConsoleAuthAPI) -> None:
        self._driver = driver
        self._manager = manager

    @exposed(instance_uuid=arg.uuid(), console_type=arg.console_type())
    def get_console(
        self, context: RequestContext, instance_uuid: str, console_type: str
    ) -> objects.ConsoleAuthToken:
        """A token for a console of the guest, for the user and project of the context.

        A guest's only console of a type is asked for by its place: whether a second user may have it is
        decided when it is opened. Of several the manager chooses, since it knows which are free.

        :raises InstanceNotFound: the guest is not on this host
        :raises InvalidConsole: the guest has no console of this type
        :raises ConsolePortsExhausted: it has several, and all are connected
        """
        consoles = [
            console
            for console in self._driver.list_consoles(instance_uuid)
            if console.console_type == console_type
        ]
        if not consoles:
            raise exception.InvalidConsole(reason=f'the guest has no {console_type} console')
        grant = objects.ConsoleAuthToken(
            instance_uuid=instance_uuid,
            console_type=console_type,
            compute_host=consoles[0].compute_host,
        )
        if len(consoles) == 1:
            (console,) = consoles
            grant.host, grant.port = console.host, console.port
            grant.access_url_base, grant.options = console.access_url_base, console.options
        return self._manager.authorize(context, grant)

    @exposed(instance_uuid=arg.uuid())
    def list_consoles(self, context: RequestContext, instance_uuid: str) -> objects.ConsoleConnectionList:
        """The consoles that the guest has.

        :raises InstanceNotFound: the guest is not on this host
        """
        return objects.ConsoleConnectionList(objects=self._driver.list_consoles(instance_uuid))

    @exposed(instance_uuid=arg.uuid(), host=arg.host(), port=arg.port(), console_type=arg.console_type())
    def check_console(
        self, context: RequestContext, instance_uuid: str, host: str, port: int, console_type: str
    ) -> bool:
        """Whether the console at this place is still that guest's."""
        return self._driver.check_console(instance_uuid, host, port, console_type)
