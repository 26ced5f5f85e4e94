# SPDX-License-Identifier: Apache-2.0
"""The measured operations, over the bus and on the database alone."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

import oslo_messaging

from consoled import token as tokens
from consoled.context import RequestContext
from consoled.db import claims
from consoled.db import sessions as db_sessions
from consoled.db import tokens as db_tokens
from consoled.db.engine import Database
from consoled.rpc import client as rpc_client
from consoled.rpc.replies import Closing
from tests.bench import bus, data

_TTL = 600
_ADDRESS = '192.0.2.1'  # an address for documentation (RFC 5737)
# the defaults in [manager] and [vnc]
_LIMITS = claims.Limits(console=0, token=16, instance=64)

# methods of CellClient, and their titles in the report
TITLES = {
    'echo': 'bare echo',
    'validate': 'validate',
    'authorize': 'authorize (known console)',
    'open_close': 'open + close session (2 calls)',
    'db_validate': 'db.tokens.validate',
    'db_authorize': 'db.tokens.store',
    'db_open_close': 'db.sessions find, claim, close',
}


class CellClient:
    """A client of a cell and its database, with the measured operations as methods.

    Operations are called with the caller's number.

    :param rows: the number of tokens that ``data.load`` has put into the database
    """

    def __init__(self, transport_url: str, database_url: str, rows: int) -> None:
        self._rows = rows
        self._instances = data.instance_count(rows)
        self._transport = bus.new_transport(transport_url)
        self._api = rpc_client.ConsoleAuthAPI(self._transport)
        self._echo = oslo_messaging.get_rpc_client(
            self._transport,
            oslo_messaging.Target(topic=bus.ECHO_TOPIC, version='1.0'),
            version_cap='1.0',
            timeout=rpc_client.CALL_TIMEOUT,
            retry=3,
            transport_options=oslo_messaging.TransportOptions(at_least_once=True),
        )
        self._db = Database(database_url)
        self._proxy = str(uuid.uuid4())
        self._registered = False

    def close(self) -> None:
        self._db.dispose()
        self._transport.cleanup()

    def operation(self, name: str, callers: int) -> Callable[[int], None]:
        """Prepare the operation ``name``, and return the method."""
        if 'open_close' in name and not self._registered:
            self._api.register_proxy(RequestContext(), self._proxy, 'bench')
            self._registered = True
        operation: Callable[[int], None] = getattr(self, name)
        return operation

    def _token(self) -> str:
        return data.token(random.randint(1, self._rows))

    # over the bus, with a new context for each call, like a service that creates one for each request

    def echo(self, caller: int) -> None:
        self._echo.call({}, 'echo', token=self._token())

    def validate(self, caller: int) -> None:
        self._api.validate(RequestContext(), self._token())

    def authorize(self, caller: int) -> None:
        self._api.authorize(RequestContext(), data.grant(random.randrange(self._instances)))

    def open_close(self, caller: int) -> None:
        context = RequestContext()
        session_id = str(uuid.uuid4())
        self._api.open_session(context, data.token(caller + 1), session_id, self._proxy, _ADDRESS)
        self._api.close_session(context, Closing(session_id, 'closed', 1000, 1000000))

    # the same work without bus and manager

    def db_validate(self, caller: int) -> None:
        if db_tokens.validate(self._db, tokens.hashed(self._token()), single_use=False) is None:
            raise LookupError('no such token')

    def db_authorize(self, caller: int) -> None:
        granted = data.grant(random.randrange(self._instances))
        db_tokens.store(self._db, tokens.hashed(tokens.mint()), granted, _TTL, f'req-{uuid.uuid4()}')

    def db_open_close(self, caller: int) -> None:
        token_hash, session_id = tokens.hashed(data.token(caller + 1)), str(uuid.uuid4())
        opening = db_sessions.find_for_open(self._db, token_hash, session_id, self._proxy, _ADDRESS)
        if opening is None:
            raise LookupError('no such token')
        claims.claim(self._db, opening, _LIMITS, single_use=False, ends_with_token=False)
        db_sessions.close(self._db, session_id)
