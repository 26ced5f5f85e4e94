# SPDX-License-Identifier: Apache-2.0
"""The base of ``consolectl``'s commands: the program, and its way to managers and compute agents."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from consoled.cli import app, arguments, errors
from consoled.consolectl.bus import Bus

if TYPE_CHECKING:
    from consoled import objects
    from consoled.context import RequestContext
    from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI

_PAGE = 1000  # sessions in one call, the most a manager gives
_TIMEOUT = 10  # seconds
_NO_AGENT = (
    'Check the name of the compute host (--host), that consoled-compute runs there, and [DEFAULT] '
    'transport_url.'
)


class ConsolectlApp(app.App):
    """What the commands share; ``main`` adds the commands.

    :param api: the managers; None for those on the bus of the configuration
    :param agents: the same for the compute agents
    """

    NAME = 'consolectl'
    DESCRIPTION = (
        'Open consoles, see and take back what consoled has granted: free ports, tokens, live sessions. '
        'Talks to the managers and compute agents of one cell over its message bus: of the configuration it '
        'needs [DEFAULT] transport_url, and [oslo_messaging_rabbit] ssl* where the bus has TLS. "consolectl '
        'help COMMAND" has the arguments, the columns and an example of a command. Exit codes: 0 done, 1 '
        'refused, 2 wrong usage or configuration, 3 the service does not answer, 4 internal error.'
    )

    def __init__(
        self,
        api: ConsoleAuthAPI | None = None,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        agents: ComputeConsoleAPI | None = None,
    ) -> None:
        super().__init__(stdin, stdout, stderr)
        self._api = api
        self._agents = agents

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(description, version, argparse_kwargs)
        parser.add_argument(
            '--timeout',
            type=arguments.at_least(1),
            default=_TIMEOUT,
            metavar='SECONDS',
            help='How long to wait for each answer of a manager or compute agent, in seconds. '
            f'Default: {_TIMEOUT}.',
        )
        return parser

    @functools.cached_property
    def bus(self) -> Bus:
        """The cell's message bus."""
        bus = Bus(lambda: self.conf, self.options.timeout)
        self.resources.callback(bus.release)
        return bus

    def call(self, method: str, *args: Any, **values: Any) -> Any:
        """Call a method of the managers."""
        return self._reached(self._api or self.bus.managers, method, self.context, *args, **values)

    def call_agent(self, context: RequestContext, method: str, compute_host: str, *args: Any) -> Any:
        """Call a method of the agent of a compute host, on behalf of the user of the context."""
        return self._reached(self._agents or self.bus.agents, method, context, compute_host, *args)

    def _reached(self, peer: Any, method: str, *args: Any, **values: Any) -> Any:
        from consoled import exception

        try:
            return getattr(peer, method)(*args, **values)
        except (exception.ManagerUnreachable, exception.ComputeUnreachable):
            self.bus.forget()  # it may be the broker that could not be reached
            raise

    def explain(self, error: Exception) -> errors.Failed:
        from consoled import exception

        if isinstance(error, exception.ComputeUnreachable):
            return errors.Failed(errors.UNREACHABLE, error.code, str(error), _NO_AGENT)
        if isinstance(error, exception.HypervisorUnreachable):
            hint = 'The log of consoled-compute there has the details.'
            return errors.Failed(errors.UNREACHABLE, error.code, str(error), hint)
        return super().explain(error)

    @functools.cached_property
    def context(self) -> RequestContext:
        """On whose behalf the managers are called: nobody's, under one request id."""
        from consoled.context import RequestContext

        return RequestContext()

    def sessions(self, filters: dict[str, str], total: int | None = None) -> Iterator[objects.ConsoleSession]:
        """The live sessions, page by page; one that comes or goes meanwhile may be among them or not."""
        marker = None
        left = sys.maxsize if total is None else total
        while left:
            asked = min(left, _PAGE)
            page = self.call('list_sessions', limit=asked, marker=marker, **filters).objects
            yield from page
            if len(page) < asked:
                return
            left -= asked
            marker = page[-1].id


class Command(app.Command):
    """Base of the commands."""

    app: ConsolectlApp
