# SPDX-License-Identifier: Apache-2.0
"""The RPC endpoint of the old consoleauth service, for compute hosts and proxies that still call it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol

import oslo_messaging

from consoled import exception, objects
from consoled import token as tokens
from consoled.context import RequestContext
from consoled.legacy import values
from consoled.legacy.pickles import Refused
from consoled.rpc import arguments as arg
from consoled.rpc.server import Endpoint, exposed, exposed_cast
from consoled.sources import Issued

TOPIC = 'consoleauth'
VERSION = '2.1'  # 2.0 lacks access_url

# what the uses of these calls are counted by
NAME = 'consoleauth'


class Consoles(Protocol):
    """The part of the manager that the old service's calls are made of."""

    def authorize_issued(self, context: RequestContext, token: str, issued: Issued, source: str) -> None: ...

    def check_issued(
        self, context: RequestContext, token: str, source: str
    ) -> tuple[objects.ConsoleConnection, str | None]: ...

    def revoke_issued(self, context: RequestContext, instance_uuid: str, source: str) -> None: ...

    def observe(self, method: str, code: str, seconds: float) -> None: ...


def _token() -> arg.Argument:
    def check(value: object) -> str:
        if not tokens.well_formed(value):
            raise ValueError('must be 16 to 128 URL-safe characters')
        return str(value)

    return arg.Argument(check)


def _access_path() -> arg.Argument:
    """What is asked of the target with CONNECT before the console; most consoles have none."""
    path = arg.text(1024)

    def check(value: object) -> str | None:
        return None if value in (None, '') else str(path.check(value))

    return arg.Argument(check, None)


def _check_token_not_in(token: str, values_of_console: Iterable[object]) -> None:
    """What is known of a console is kept in clear, and shown."""
    for value in values_of_console:
        if isinstance(value, str) and values.holds(value, token):
            raise exception.InvalidConsole(reason='the token is in another argument too')


class ConsoleauthEndpoint(Endpoint):
    """Answers version 2.1 of the old contract, and callers of 2.0."""

    target = oslo_messaging.Target(version=VERSION)

    def __init__(self, consoles: Consoles) -> None:
        self._consoles = consoles

    def observe(self, method: str, code: str, seconds: float) -> None:
        self._consoles.observe(f'consoleauth.{method}', code, seconds)

    # Old callers wait for it, but all that they make of a refusal is "remote error": the log says why.
    @exposed_cast(
        token=_token(),
        console_type=arg.console_type(),
        host=arg.host(),
        port=arg.Argument(values.port),
        internal_access_path=_access_path(),
        instance_uuid=arg.uuid(),
        access_url=arg.text(2048).or_none(),
    )
    def authorize_console(
        self, context: RequestContext, token: str, access_url: str | None, **console: Any
    ) -> None:
        """Store a token that the caller has made."""
        _check_token_not_in(token, console.values())
        try:
            base = values.access_url_base(access_url, token)
        except Refused:
            raise exception.InvalidArgument(
                argument='access_url', reason='must be an http(s) or ws(s) URL'
            ) from None
        issued = Issued(access_url_base=base, issued_at=time.time(), **console)
        self._consoles.authorize_issued(context, token, issued, NAME)

    @exposed(token=arg.Argument(lambda value: value))
    def check_token(self, context: RequestContext, token: object) -> dict[str, Any] | None:
        """The console of a token, as the old service described it; None: it opens nothing."""
        if not tokens.well_formed(token):  # an old proxy hands on what users send, also nothing
            return None
        try:
            console, access_url = self._consoles.check_issued(context, str(token), NAME)
        except exception.ConsoledException as exc:
            if exc.retryable:
                raise
            return None
        return {
            'instance_uuid': console.instance_uuid,
            'console_type': console.console_type,
            'host': console.host,
            'port': console.port,
            'internal_access_path': console.options.get('internal_access_path'),
            'access_url': access_url,
            'last_activity_at': time.time(),
        }

    @exposed_cast(instance_uuid=arg.uuid())
    def delete_tokens_for_instance(self, context: RequestContext, instance_uuid: str) -> None:
        """The guest has lost its consoles: its tokens and sessions end."""
        self._consoles.revoke_issued(context, instance_uuid, NAME)
