# SPDX-License-Identifier: Apache-2.0
"""RPC client of an unmodified nova-compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import oslo_messaging
from oslo_config import cfg

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.nova import replies
from consoled.rpc import arguments, caller, errors

# Errors of nova.exception by their names. Nothing else is known of them here, and their texts are not shown.
_ERRORS: dict[object, type[exception.ConsoledException]] = {
    'InstanceNotFound': exception.ConsoleGone,
    'ConsoleTypeUnavailable': exception.ConsoleGone,
    'ConsoleTypeInvalid': exception.ConsoleGone,
    'HypervisorUnavailable': exception.HypervisorUnreachable,
}


class NovaComputeAPI(caller.BusClient):
    """Client of nova-compute (topic ``compute``, server = compute host).

    :param exchange: ``control_exchange`` of Nova
    :param version: version of its RPC interface
    """

    unreachable = exception.ComputeUnreachable
    trusted: ClassVar[bool] = False
    refusals: ClassVar[errors.Kinds] = frozenset()
    replies: ClassVar[Mapping[str, arguments.Argument]] = {'validate_console_port': arguments.boolean()}

    def __init__(
        self, transport: oslo_messaging.RPCTransport, *, exchange: str, topic: str, version: str
    ) -> None:
        target = oslo_messaging.Target(exchange=exchange, topic=topic, version=version)
        super().__init__(caller.new_client(transport, target, caller.CALL_TIMEOUT, serializer=_NovaContext()))

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts, transport: oslo_messaging.RPCTransport) -> NovaComputeAPI:
        """Return the client that ``[nova]`` describes.

        :param transport: one that has made no call yet
        """
        replies.accept_old(transport)
        options = conf.nova
        return cls(transport, exchange=options.exchange, topic=options.topic, version=options.rpc_version)

    def validate_console_port(
        self,
        context: RequestContext,
        console: objects.ConsoleConnection,
        instance_id: int,
        timeout: float,
    ) -> bool:
        """Return whether the port is the instance's, for a console of that type.

        For serial consoles Nova knows the first port of an instance only.

        :param instance_id: primary key of the instance: without it nova-compute asks the conductor
        :param timeout: seconds to wait
        :raises ConsoleGone: the instance is not there, or has no console of that type
        :raises ComputeUnreachable: nova-compute does not answer
        :raises HypervisorUnreachable: its hypervisor does not
        """
        instance = {
            'nova_object.name': 'Instance',
            'nova_object.namespace': 'nova',
            'nova_object.version': '2.0',
            'nova_object.data': {'id': instance_id, 'uuid': console.instance_uuid},
            'nova_object.changes': [],
        }
        belongs: bool = self._call(
            context,
            'validate_console_port',
            self._client.prepare(server=console.compute_host, timeout=timeout, retry=0),
            instance=instance,
            port=str(console.port),
            console_type=console.console_type,
        )
        return belongs

    def _foreign(self, method: str, name: object) -> exception.ConsoledException:
        known = _ERRORS.get(name)
        return super()._foreign(method, name) if known is None else known()


class _NovaContext(oslo_messaging.NoOpSerializer):  # type: ignore[misc]  # untyped
    """Sends the context that Nova needs: an administrator's, without a user."""

    def serialize_context(self, context: RequestContext) -> dict[str, Any]:
        return {
            'is_admin': True,
            'read_deleted': 'no',
            'roles': [],
            'request_id': context.request_id,
            'global_request_id': context.global_id,
        }
