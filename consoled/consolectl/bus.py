# SPDX-License-Identifier: Apache-2.0
"""``consolectl``'s way to the managers and compute agents of a cell."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from consoled.cli import errors

if TYPE_CHECKING:
    from oslo_config import cfg
    from oslo_messaging import RPCTransport

    from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI


class Bus:
    """The cell's message bus, connected to when somebody is first asked.

    :param conf: the options, asked for then
    :param timeout: seconds to wait for each answer
    :raises Failed: from any use: the configuration is wrong
    """

    def __init__(self, conf: Callable[[], cfg.ConfigOpts], timeout: float) -> None:
        self._conf = conf
        self._timeout = timeout

    @functools.cached_property
    def _transport(self) -> RPCTransport:
        import oslo_messaging

        from consoled.rpc.transport import get_transport

        try:
            return get_transport(self._conf())
        except (oslo_messaging.InvalidTransportURL, oslo_messaging.DriverLoadFailure) as exc:
            raise errors.misconfigured('[DEFAULT] transport_url', exc) from exc

    @functools.cached_property
    def managers(self) -> ConsoleAuthAPI:
        """The managers."""
        from consoled.rpc.client import ConsoleAuthAPI

        managers: ConsoleAuthAPI = self._client(ConsoleAuthAPI, 'consoled')
        return managers

    @functools.cached_property
    def agents(self) -> ComputeConsoleAPI:
        """The compute agents."""
        from consoled.rpc.client import ComputeConsoleAPI

        agents: ComputeConsoleAPI = self._client(ComputeConsoleAPI, 'compute')
        return agents

    def _client(self, factory: Any, level: str) -> Any:
        transport = self._transport
        try:
            return factory(transport, level=self._conf().upgrade_levels[level], timeout=self._timeout)
        except ValueError as exc:
            raise errors.misconfigured(f'[upgrade_levels] {level}', exc) from exc

    def release(self) -> None:
        """Let go of the connections to the broker. They are made again when they are needed."""
        transport = self.__dict__.get('_transport')
        self.forget()
        if transport is not None:
            transport.cleanup()

    def forget(self) -> None:
        """Leave the connections as they are: letting go of one that could not be made waits until it is."""
        for name in ('_transport', 'managers', 'agents'):
            self.__dict__.pop(name, None)
