# SPDX-License-Identifier: Apache-2.0
"""Base of ``consolectl`` and its commands: calls to managers and compute agents."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from consoled import exception
from consoled.cli import app, arguments, errors
from consoled.context import RequestContext

if TYPE_CHECKING:  # the bus is loaded when a command uses it: help does not need it
    from consoled import objects
    from consoled.consolectl.bus import Bus
    from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI

_PAGE_SIZE = 1000  # sessions per call, the most that a manager returns
_TIMEOUT = 10  # seconds
_REFUSED_BY_BROKER = ('AccessRefused', 'NotAllowed')  # errors of amqp, as Caller names them
_NO_AGENT_HINT = (
    'Check the name of the compute host (--host), that consoled-compute runs there, and [DEFAULT] '
    'transport_url.'
)


class ConsolectlApp(app.App):
    """Base of the program: it calls managers and compute agents for the commands.

    :param api: client of the managers; default: one on the bus of the configuration
    :param agents: client of the compute agents; default: the same
    """

    NAME = 'consolectl'
    DESCRIPTION = (
        'Open guest consoles, validate and revoke tokens, list and cut live sessions. Calls the managers and '
        'compute agents of one cell over its message bus. Needs [DEFAULT] transport_url, and '
        '[oslo_messaging_rabbit] ssl* if the bus uses TLS. "consolectl help COMMAND" shows the arguments, '
        'the columns and an example of a command. Exit codes: 0 done, 1 refused, 2 wrong usage or '
        'configuration, 3 the service does not answer, 4 internal error.'
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
            help=f'Seconds to wait for each answer of a manager or compute agent. Default: {_TIMEOUT}.',
        )
        return parser

    @functools.cached_property
    def bus(self) -> Bus:
        """The cell's message bus."""
        from consoled.consolectl.bus import Bus

        bus = Bus(lambda: self.conf, self.options.timeout)
        self.resources.callback(bus.release)
        return bus

    def call(self, method: str, *args: Any, **values: Any) -> Any:
        """Call a method of the managers."""
        return self._call(self._api or self.bus.managers, method, self.context, *args, **values)

    def call_agent(self, context: RequestContext, method: str, compute_host: str, *args: Any) -> Any:
        """Call a method of the agent on a compute host, on behalf of the context's user."""
        return self._call(self._agents or self.bus.agents, method, context, compute_host, *args)

    def _call(self, api: Any, method: str, *args: Any, **values: Any) -> Any:
        try:
            return getattr(api, method)(*args, **values)
        except (exception.ManagerUnreachable, exception.ComputeUnreachable):
            self.bus.abandon()  # the broker itself may be unreachable
            raise

    def explain(self, error: Exception) -> errors.Failed:
        if isinstance(error, exception.ManagerUnreachable | exception.ComputeUnreachable) and (
            error.kwargs.get('reason') in _REFUSED_BY_BROKER
        ):
            from consoled.conf import files

            return errors.Failed(
                errors.UNREACHABLE,
                error.code,
                'The message broker refuses the user, the password or the virtual host.',
                f'Check {files.where(self.conf, "DEFAULT", "transport_url")}.',
            )
        if isinstance(error, exception.ComputeUnreachable):
            return errors.Failed(errors.UNREACHABLE, error.code, str(error), _NO_AGENT_HINT)
        if isinstance(error, exception.HypervisorUnreachable):
            hint = 'See the log of consoled-compute on that host for details.'
            return errors.Failed(errors.UNREACHABLE, error.code, str(error), hint)
        return super().explain(error)

    @functools.cached_property
    def context(self) -> RequestContext:
        """The context of all calls to the managers: no user, one request id."""
        return RequestContext()

    def sessions(self, filters: dict[str, str], limit: int | None = None) -> Iterator[objects.ConsoleSession]:
        """Yield the live sessions, page by page.

        A session that starts or ends meanwhile may or may not be included.

        :param filters: arguments of ``list_sessions``
        :param limit: most sessions to yield; None: all
        """
        marker = None
        left = sys.maxsize if limit is None else limit
        while left:
            asked = min(left, _PAGE_SIZE)
            page = self.call('list_sessions', limit=asked, marker=marker, **filters).objects
            yield from page
            if len(page) < asked:
                return
            left -= asked
            marker = page[-1].id


class Command(app.Command):
    """Base of the commands."""

    app: ConsolectlApp
