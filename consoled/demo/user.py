# SPDX-License-Identifier: Apache-2.0
"""A user of the demo: the browser's side of its websockets."""

from __future__ import annotations

import json
import logging
from typing import Any

from websockets import exceptions as ws_exceptions
from websockets.sync import client

from consoled.demo.cell import Cell

PATIENCE = 10.0  # seconds that anything may take before a step has failed

# The library would log what goes over the websocket, and the URL with the token.
_SILENT = logging.Logger('consoled-demo', level=logging.CRITICAL + 1)


def websocket(cell: Cell, token: str) -> client.ClientConnection:
    return client.connect(
        f'ws://{cell.proxy.place}/?token={token}',
        additional_headers={'Accept': 'application/json'},
        proxy=None,
        open_timeout=PATIENCE,
        close_timeout=PATIENCE,
        logger=_SILENT,
    )


def receive(connection: client.ClientConnection) -> bytes:
    data = connection.recv(PATIENCE)
    return data if isinstance(data, bytes) else data.encode()


class Reader:
    """Reads a stream out of messages."""

    def __init__(self, connection: client.ClientConnection) -> None:
        self._connection = connection
        self._held = b''

    def read(self, length: int) -> bytes:
        while len(self._held) < length:
            self._held += receive(self._connection)
        data, self._held = self._held[:length], self._held[length:]
        return data


def refusal(cell: Cell, token: str) -> tuple[int, dict[str, Any]]:
    """HTTP status and reason of a refused websocket; 101 if it was not."""
    try:
        websocket(cell, token).close()
    except ws_exceptions.InvalidStatus as exc:
        return exc.response.status_code, json.loads(exc.response.body or b'{}')
    return 101, {}


def end_of(connection: client.ClientConnection) -> tuple[int, str]:
    """Close code and text, after everything before them was read."""
    try:
        while True:
            receive(connection)
    except ws_exceptions.ConnectionClosed as exc:
        return (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (1006, '')
