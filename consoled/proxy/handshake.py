# SPDX-License-Identifier: Apache-2.0
"""What a user's request asks for, and whether it may go on. Pure: a request and a policy in, a decision out.

A refusal is a value: an error of the domain, which the edge turns into an HTTP answer. Nothing is asked of
anybody for a request that is refused here.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
from urllib import parse

from consoled import exception
from consoled import token as tokens
from consoled.proxy import origin as origins
from consoled.proxy.forwarded import Client, Network, client_of

# Where the token may be besides the query: a cookie of this name, or a websocket subprotocol with this prefix
# (a browser's script can set no header, but it can name subprotocols).
COOKIE = 'consoled_token'
TOKEN_PROTOCOL = 'consoled.token.'  # noqa: S105 - a prefix

# Chosen in this order if the client offers it; the one with the token is never repeated to it.
SUBPROTOCOLS = ('binary', 'consoled')

_GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'  # RFC 6455, section 1.3
_MAX_QUERY_FIELDS = 64


@dataclasses.dataclass(frozen=True)
class Request:
    """The head of a request.

    :param target: as in the request line
    :param headers: values by lower-case name
    :param peer: IP address of the connection; None for a unix socket
    :param secure: whether it came over TLS
    """

    method: str
    target: str = dataclasses.field(repr=False)  # it may have the token, and so may the headers
    headers: dict[str, list[str]] = dataclasses.field(repr=False)
    peer: str | None
    secure: bool
    http_version: str = '1.1'


@dataclasses.dataclass(frozen=True)
class Policy:
    """Whom to believe and which web pages to serve; ``null_origin``: pages that have none (a file) too."""

    trusted: tuple[Network, ...] = ()
    allowed_origins: frozenset[origins.Origin] = frozenset()
    null_origin: bool = False


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The answer is no."""

    error: exception.ConsoledException
    client: Client


@dataclasses.dataclass(frozen=True)
class Fetch:
    """An ordinary request: for a page, or (with a token) for why a websocket was refused.

    :param bad_token: where there is something for a token that can be none
    """

    path: str
    token: str | None = dataclasses.field(repr=False)
    bad_token: exception.InvalidToken | None
    client: Client
    head: bool
    if_none_match: str | None


@dataclasses.dataclass(frozen=True)
class Upgrade:
    """A websocket that may be opened if the token is good.

    :param origin: of the web page, if it must still be compared with the console's access URL
    """

    token: str = dataclasses.field(repr=False)
    client: Client
    accept: str
    subprotocol: str | None
    origin: origins.Origin | None


Decision = Refusal | Fetch | Upgrade


def policy_of(trusted: tuple[Network, ...], allowed_origins: list[str]) -> Policy:
    """Build a policy of configured values.

    :raises ValueError: an origin is malformed
    """
    found = {text: origins.of_header(text) for text in allowed_origins if text != 'null'}
    for text, origin in found.items():
        if origin is None:
            raise ValueError(f'[proxy] allowed_origins: {text} is no origin such as https://host:port')
    return Policy(
        trusted=trusted,
        allowed_origins=frozenset(origin for origin in found.values() if origin is not None),
        null_origin='null' in allowed_origins,
    )


def decide(request: Request, policy: Policy) -> Decision:
    """What to do with a request."""
    client = client_of(request.peer, 'https' if request.secure else 'http', request.headers, policy.trusted)
    try:
        return _decide(request, policy, client)
    except exception.ConsoledException as exc:
        return Refusal(exc, client)


def _decide(request: Request, policy: Policy, client: Client) -> Decision:
    if request.method not in ('GET', 'HEAD'):
        raise exception.MethodNotAllowed()
    if _values(request, 'transfer-encoding') or _values(request, 'content-length') not in ([], ['0']):
        raise exception.BadRequest(reason='it has a body')
    path, query = _target(request.target)
    if 'websocket' not in _listed(request, 'upgrade'):
        token, bad_token = _token_or_error(request, query)
        return Fetch(
            path=path,
            token=token,
            bad_token=bad_token,
            client=client,
            head=request.method == 'HEAD',
            if_none_match=_single(request, 'if-none-match'),
        )
    accept = _accept(request)
    pending = _check_origin(request, policy, client)
    token = _token(request, query)
    if token is None:
        raise exception.InvalidToken()
    return Upgrade(token, client, accept, _subprotocol(request), pending)


def wants_json(request: Request) -> bool:
    """Whether a refusal is for a program, not for a user to read."""
    return 'application/json' in ','.join(_values(request, 'accept')).lower()


def check_origin(origin: origins.Origin, access_url_base: str | None) -> None:
    """The last resort of a page of another host: the console's own access URL.

    :raises OriginRefused: it is another one
    """
    if access_url_base is None or origins.of_url(access_url_base) != origin:
        raise exception.OriginRefused()


def _check_origin(request: Request, policy: Policy, client: Client) -> origins.Origin | None:
    """None if there is nothing left to compare."""
    value = _single(request, 'origin')
    if value is None:  # no browser (RFC 6455, section 10.2)
        return None
    if value == 'null' and policy.null_origin:
        return None
    origin = origins.of_header(value)
    if origin is None:
        raise exception.OriginRefused()
    if origin in policy.allowed_origins or origin == origins.of_host(client.scheme, client.host):
        return None
    return origin


def _accept(request: Request) -> str:
    """Check the opening handshake, return the Sec-WebSocket-Accept (RFC 6455, sections 4.2.1 and 4.2.2)."""
    connection = _listed(request, 'connection')
    if request.method != 'GET' or request.http_version != '1.1' or 'upgrade' not in connection:
        raise exception.BadRequest(reason='no websocket handshake')
    if _values(request, 'sec-websocket-version') != ['13']:
        raise exception.UpgradeRequired('Only version 13 of the websocket protocol is spoken.')
    key = _single(request, 'sec-websocket-key') or ''
    try:
        decoded = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        decoded = b''
    if len(decoded) != 16:
        raise exception.BadRequest(reason='no websocket handshake')
    digest = hashlib.sha1(key.encode('ascii') + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode('ascii')


def _target(target: str) -> tuple[str, dict[str, list[str]]]:
    """Path and query of a request target in origin form (RFC 9112, section 3.2.1)."""
    if not target.startswith('/'):
        raise exception.BadRequest(reason='the target is no path')
    path, _, query = target.partition('?')
    return parse.unquote(path, errors='replace'), _parse_query(query)


def _parse_query(query: str) -> dict[str, list[str]]:
    try:
        return parse.parse_qs(query, max_num_fields=_MAX_QUERY_FIELDS, errors='replace')
    except ValueError:
        raise exception.BadRequest(reason='too many query arguments') from None


def _token(request: Request, query: dict[str, list[str]]) -> str | None:
    """The token of a request, the first place that has one deciding; None if there is none.

    :raises InvalidToken: two different ones at one place, or it can be no token
    """
    for found in (
        query.get('token', []),
        _tokens_in_path(query),
        _tokens_in_cookies(request),
        [name[len(TOKEN_PROTOCOL) :] for name in _protocols(request) if name.startswith(TOKEN_PROTOCOL)],
    ):
        if found:
            if len(set(found)) > 1 or not tokens.well_formed(found[0]):
                raise exception.InvalidToken()
            return found[0]
    return None


def _token_or_error(
    request: Request, query: dict[str, list[str]]
) -> tuple[str | None, exception.InvalidToken | None]:
    """A page is served whatever came along with the request for it."""
    try:
        return _token(request, query), None
    except exception.InvalidToken as exc:
        return None, exc


def _tokens_in_path(query: dict[str, list[str]]) -> list[str]:
    """noVNC since 1.1 hands on its page's query argument ``path`` only: ``path=websockify?token=...``."""
    return [
        token
        for path in query.get('path', [])
        for token in _parse_query(path.partition('?')[2]).get('token', [])
    ]


def _tokens_in_cookies(request: Request) -> list[str]:
    """By hand (RFC 6265, section 4.2.1): of a header in which any cookie, of whatever application, is not to
    the library's taste, it takes none."""
    pairs = [pair.partition('=') for value in _values(request, 'cookie') for pair in value.split(';')]
    found = [value.strip().strip('"') for name, _, value in pairs if name.strip() == COOKIE]
    return [value for value in found if value]


def _subprotocol(request: Request) -> str | None:
    offered = _protocols(request)
    return next((name for name in SUBPROTOCOLS if name in offered), None)


def _protocols(request: Request) -> list[str]:
    return [name.strip() for value in _values(request, 'sec-websocket-protocol') for name in value.split(',')]


def _listed(request: Request, name: str) -> list[str]:
    """The items of a header that is a list of tokens, in lower case."""
    return [item.strip().lower() for value in _values(request, name) for item in value.split(',')]


def _values(request: Request, name: str) -> list[str]:
    return request.headers.get(name, [])


def _single(request: Request, name: str) -> str | None:
    values = _values(request, name)
    if len(values) > 1:
        raise exception.BadRequest(reason=f'more than one {name} header')
    return values[0] if values else None
