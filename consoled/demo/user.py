# SPDX-License-Identifier: Apache-2.0
"""A user of the demo: the browser side of the websockets."""

from __future__ import annotations

import json
import logging
from typing import Any

from websockets import exceptions as ws_exceptions
from websockets.sync import client

from consoled.demo.cell import Cell

TIMEOUT = 10.0  # seconds that anything may take before a step fails

# The library would log the traffic, and the URL with the token.
_NULL_LOGGER = logging.Logger('consoled-demo', level=logging.CRITICAL + 1)


def websocket(cell: Cell, token: str) -> client.ClientConnection:
    """Open a websocket with a token."""
    return client.connect(
        f'ws://{cell.proxy.address}/?token={token}',
        additional_headers={'Accept': 'application/json'},
        proxy=None,
        open_timeout=TIMEOUT,
        close_timeout=TIMEOUT,
        logger=_NULL_LOGGER,
    )


def receive(connection: client.ClientConnection) -> bytes:
    """Return the next message."""
    data = connection.recv(TIMEOUT)
    return data if isinstance(data, bytes) else data.encode()


class Reader:
    """Reads a byte stream from the messages of a websocket."""

    def __init__(self, connection: client.ClientConnection) -> None:
        self._connection = connection
        self._buffer = b''

    def read(self, length: int) -> bytes:
        """Return the next ``length`` bytes."""
        while len(self._buffer) < length:
            self._buffer += receive(self._connection)
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return data


def refusal(cell: Cell, token: str) -> tuple[int, dict[str, Any]]:
    """Return HTTP status and body of a refused websocket; status 101 if it was accepted."""
    try:
        websocket(cell, token).close()
    except ws_exceptions.InvalidStatus as exc:
        return exc.response.status_code, json.loads(exc.response.body or b'{}')
    return 101, {}


def wait_closed(connection: client.ClientConnection) -> tuple[int, str]:
    """Read until the websocket is closed; return close code and reason."""
    try:
        while True:
            receive(connection)
    except ws_exceptions.ConnectionClosed as exc:
        return (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (1006, '')
