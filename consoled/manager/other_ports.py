# SPDX-License-Identifier: Apache-2.0
"""Other serial ports of the instance of a token, for a user whose port is taken.

A token is for one console. What more its holder may open is decided here: by ``[serial_console]
other_ports``, serial ports of the same instance that its compute agent has defined, and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from oslo_config import cfg

from consoled import exception, objects
from consoled.db import ports
from consoled.db.engine import Database
from consoled.db.ports import Port
from consoled.db.sessions import OpenRequest
from consoled.manager.tokens import TokenService

_MOST_TRIED = 8  # ports for one open: a compute agent is asked about each


class OtherPorts:
    """Finds the serial ports that a token may open besides its own."""

    def __init__(self, conf: cfg.ConfigOpts, db: Database, token_service: TokenService) -> None:
        self._conf = conf
        self._db = db
        self._token_service = token_service

    def resolve(self, request: OpenRequest, number: int | None) -> OpenRequest:
        """Return the request for the console that it means.

        A request that was carried out before means the console that it has opened.

        :param number: of the serial port that the user has chosen; None for the token's own
        :raises ConsoleContested: that port is contested, or the token's own is
        :raises ConsoleGone: there is no such port, or it is not defined any more
        :raises InvalidArgument: the user may not choose
        """
        if request.opened_at is not None:
            if request.opened_at == (request.console.host, request.console.port):
                return request
            return self._at(request, ports.find(self._db, request.console.instance_uuid, *request.opened_at))
        if number is None:
            return request
        if request.contested:
            self._token_service.refuse_contested(request.console)
        port = next((each for each in self._defined(request) if each.number == number), None)
        if port is not None and _is_at(port, request.console):
            return request
        if not self._allowed(request):
            raise exception.InvalidArgument(argument='serial_port', reason='cannot be chosen')
        return self._at(request, port)

    def next_free(self, request: OpenRequest) -> Iterator[OpenRequest]:
        """Return requests for the free ports to try, in turn, when the token's own is taken.

        The first is the one after the token's own. There is none if users have to choose, or have chosen.
        """
        if self._conf.serial_console.other_ports != 'next' or request.elsewhere:
            return iter(())
        found = self._defined(request)
        own = next((each.number for each in found if _is_at(each, request.console)), 0)
        free = [each for each in found if each.free and each.number != own]
        free.sort(key=lambda each: (each.number < own, each.number))
        return (self._at(request, each) for each in free[:_MOST_TRIED])

    def offer(self, request: OpenRequest) -> dict[str, Any]:
        """Return what the refusal of a console in use says of other ports: nothing if none is free.

        :returns: values of ``ConsoleInUse``: how many ports there are, and the numbers of the free ones
        """
        if not self._allowed(request):
            return {}
        found = self._defined(request)
        free = [each.number for each in found if each.free and not _is_at(each, request.console)]
        return {'serial_ports': len(found), 'free_ports': free} if free else {}

    def _allowed(self, request: OpenRequest) -> bool:
        return self._conf.serial_console.other_ports != 'refuse' and _is_defined(request)

    def _defined(self, request: OpenRequest) -> list[Port]:
        return ports.list_ports(self._db, request.console.instance_uuid) if _is_defined(request) else []

    def _at(self, request: OpenRequest, port: Port | None) -> OpenRequest:
        if port is None:
            raise exception.ConsoleGone()
        if port.contested:
            self._token_service.refuse_contested(port.console)
        return dataclasses.replace(request, console=port.console, elsewhere=True)


def _is_defined(request: OpenRequest) -> bool:
    """Return whether a compute agent has defined the serial ports of the instance."""
    return request.defined and request.console.console_type == objects.ConsoleType.SERIAL


def _is_at(port: Port, console: objects.ConsoleConnection) -> bool:
    return (port.console.host, port.console.port) == (console.host, console.port)
