# SPDX-License-Identifier: Apache-2.0
"""The old consoleauth service's RPC endpoint, for compute hosts and proxies that still call it."""

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

# The source in ``legacy_use`` by which the uses of this RPC are counted.
SOURCE = 'consoleauth'


class ConsoleService(Protocol):
    """The manager, as this endpoint uses it."""

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
    """The path that a proxy requests from the target with CONNECT; most consoles have none."""
    path = arg.text(1024)

    def check(value: object) -> str | None:
        return None if value in (None, '') else str(path.check(value))

    return arg.Argument(check, None)


def _check_token_not_in(token: str, arguments: Iterable[object]) -> None:
    """Refuse a token that is in another argument too: the console's description is stored and shown in clear.

    :raises InvalidConsole: it is
    """
    for value in arguments:
        if isinstance(value, str) and values.contains_token(value, token):
            raise exception.InvalidConsole(reason='the token is in another argument too')


class ConsoleauthEndpoint(Endpoint):
    """Answers callers of versions 2.1 and 2.0 of the old contract."""

    target = oslo_messaging.Target(version=VERSION)

    def __init__(self, consoles: ConsoleService) -> None:
        self._consoles = consoles

    def observe(self, method: str, code: str, seconds: float) -> None:
        self._consoles.observe(f'consoleauth.{method}', code, seconds)

    # Old callers wait for the answer, but a refusal is only a "remote error" to them, so the log says why.
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
        """Store a token that the caller has generated."""
        _check_token_not_in(token, console.values())
        try:
            base = values.access_url_base(access_url, token)
        except Refused:
            raise exception.InvalidArgument(
                argument='access_url', reason='must be an http(s) or ws(s) URL'
            ) from None
        issued = Issued(access_url_base=base, issued_at=time.time(), **console)
        self._consoles.authorize_issued(context, token, issued, SOURCE)

    @exposed(token=arg.Argument(lambda value: value))
    def check_token(self, context: RequestContext, token: object) -> dict[str, Any] | None:
        """Return the console of a token as the old service described it; None if the token is invalid."""
        if not tokens.well_formed(token):  # an old proxy passes on whatever users send, even None
            return None
        try:
            console, access_url = self._consoles.check_issued(context, str(token), SOURCE)
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
        """Revoke the tokens and sessions of a guest that has lost its consoles."""
        self._consoles.revoke_issued(context, instance_uuid, SOURCE)
