# SPDX-License-Identifier: Apache-2.0
"""Connection of ``consolectl`` to the managers and compute agents of a cell."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import oslo_messaging
from oslo_config import cfg

from consoled.cli import errors
from consoled.conf import files
from consoled.rpc import transport
from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI


class Bus:
    """The cell's message bus; connects on first use.

    :param conf: returns the options; called on first use
    :param timeout: seconds to wait for each answer
    :raises Failed: on first use, if the configuration is wrong
    """

    def __init__(self, conf: Callable[[], cfg.ConfigOpts], timeout: float) -> None:
        self._conf = conf
        self._timeout = timeout

    @functools.cached_property
    def _transport(self) -> oslo_messaging.RPCTransport:
        try:
            transport.check(self._conf())
            return transport.get_transport(self._conf())
        except ValueError as exc:
            message = f'{files.located(self._conf(), str(exc))}.'
            raise errors.Failed(errors.USAGE, 'configuration_error', message) from None

    @functools.cached_property
    def managers(self) -> ConsoleAuthAPI:
        """Client of the managers."""
        managers: ConsoleAuthAPI = self._client(ConsoleAuthAPI, 'consoled')
        return managers

    @functools.cached_property
    def agents(self) -> ComputeConsoleAPI:
        """Client of the compute agents."""
        agents: ComputeConsoleAPI = self._client(ComputeConsoleAPI, 'compute')
        return agents

    def _client(self, factory: Any, level: str) -> Any:
        connection = self._transport
        try:
            return factory(connection, level=self._conf().upgrade_levels[level], timeout=self._timeout)
        except ValueError as exc:
            raise errors.invalid_option(f'[upgrade_levels] {level}', exc) from exc

    def release(self) -> None:
        """Close the connections to the broker. The next use connects again."""
        connection = self.__dict__.get('_transport')
        self.abandon()
        if connection is not None:
            connection.cleanup()

    def abandon(self) -> None:
        """Drop the connections without closing them: closing one that is still connecting would block."""
        for name in ('_transport', 'managers', 'agents'):
            self.__dict__.pop(name, None)
