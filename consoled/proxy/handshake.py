# SPDX-License-Identifier: Apache-2.0
"""HTTP requests of users: parsed, checked and decided from the request head alone. No I/O.

``decide`` takes a request and a policy and returns a decision. A refusal is a value that carries a domain
error; the caller turns it into an HTTP response. A request refused here reaches no manager and no hypervisor.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import re
from collections.abc import Sequence
from urllib import parse

from consoled import exception
from consoled import token as tokens
from consoled.proxy import flow
from consoled.proxy.forwarded import Client, Network, identify_client, parse_networks
from consoled.proxy.origin_policy import OriginPolicy, WebPage

# Besides the query, a token may be in a header of this name, in a websocket subprotocol with this prefix
# (scripts in a browser cannot set headers of a websocket, but they can name subprotocols), or in a cookie.
TOKEN_HEADER = 'consoled-token'  # noqa: S105 - a name
TOKEN_PROTOCOL = 'consoled.token.'  # noqa: S105 - a prefix
COOKIE = 'consoled_token'
# Set by the pages of noVNC before 1.1 and of spice-html5, and by programs made for Nova's proxies.
NOVA_COOKIE = 'token'

# In order of preference. The subprotocol that carries the token is never echoed.
SUBPROTOCOLS = (*flow.PROTOCOLS, 'binary', 'consoled')

_GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'  # RFC 6455, section 1.3
_MAX_QUERY_FIELDS = 64
_PORT_NUMBER = re.compile('[1-9][0-9]{0,2}')


@dataclasses.dataclass(frozen=True)
class Request:
    """The head of an HTTP request. Target and headers may contain the token, so ``repr`` leaves them out.

    :ivar target: as in the request line
    :ivar headers: values by lower-case name
    :ivar peer: IP address of the connection; None for a unix socket
    :ivar secure: whether the request arrived over TLS
    """

    method: str
    target: str = dataclasses.field(repr=False)
    headers: dict[str, list[str]] = dataclasses.field(repr=False)
    peer: str | None
    secure: bool
    http_version: str = '1.1'


@dataclasses.dataclass(frozen=True)
class Policy:
    """Trusted load balancers and allowed origins.

    :ivar trusted: networks whose forwarded headers count
    :ivar origins: which web pages may open consoles
    """

    trusted: tuple[Network, ...] = ()
    origins: OriginPolicy = OriginPolicy()

    @classmethod
    def from_options(
        cls,
        trusted_proxies: Sequence[str],
        allowed_origins: Sequence[str],
        match_origin_by_host: bool = False,
    ) -> Policy:
        """Build a policy from the values of the options of these names.

        :raises ValueError: a network or an origin is malformed
        """
        return cls(
            parse_networks(trusted_proxies, 'trusted_proxies'),
            OriginPolicy.from_options(allowed_origins, match_origin_by_host),
        )


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A refused request."""

    error: exception.ConsoledException
    client: Client


@dataclasses.dataclass(frozen=True)
class Fetch:
    """An ordinary request: for a page or, with a token, for the reason why its websocket was refused.

    :ivar pasted: whether a user has pasted the URL of a websocket into a browser: of a serial console, as the
        other types have URLs of pages
    :ivar token: None without a token, or with one that is malformed
    :ivar bad_token: the error to answer with, if the token is malformed and the path is not a page
    :ivar foreign: whether a page of another site made the request
    :ivar embedders: hosts whose pages may embed this one, besides those that are configured
    :ivar serial_port: as of the websocket
    """

    path: str
    pasted: bool
    token: str | None = dataclasses.field(repr=False)
    bad_token: exception.InvalidToken | None
    client: Client
    head: bool
    if_none_match: str | None
    foreign: bool
    embedders: tuple[str, ...] = ()
    serial_port: int | None = None


@dataclasses.dataclass(frozen=True)
class Upgrade:
    """A websocket that may be opened if its token is valid.

    :ivar accept: value of the Sec-WebSocket-Accept header
    :ivar page: the web page that makes the request; it may still have to match the console's access URL
    :ivar serial_port: number of the serial port that the user has chosen; None for the token's own
    """

    token: str = dataclasses.field(repr=False)
    client: Client
    accept: str
    subprotocol: str | None
    page: WebPage = WebPage()
    serial_port: int | None = None

    @property
    def foreign(self) -> bool:
        """Whether a page of another site may have made the request."""
        return not self.page.accepted


Decision = Refusal | Fetch | Upgrade


def decide(request: Request, policy: Policy) -> Decision:
    """Decide what to do with a request."""
    client = identify_client(
        request.peer, 'https' if request.secure else 'http', request.headers, policy.trusted
    )
    try:
        return _decide(request, policy, client)
    except exception.ConsoledException as exc:
        return Refusal(exc, client)


def _decide(request: Request, policy: Policy, client: Client) -> Decision:
    if request.method not in ('GET', 'HEAD'):
        raise exception.MethodNotAllowed()
    if _values(request, 'transfer-encoding') or _values(request, 'content-length') not in ([], ['0']):
        raise exception.BadRequest(reason='it has a body')
    path, query = _parse_target(request.target)
    if not wants_websocket(request):
        token, bad_token = _find_token_or_error(request, query)
        return Fetch(
            path=path,
            pasted=path == '/' and 'token' in query and _accepts(request, 'text/html'),
            token=token,
            bad_token=bad_token,
            client=client,
            head=request.method == 'HEAD',
            if_none_match=_single_value(request, 'if-none-match'),
            foreign=_is_foreign(request, policy, client),
            embedders=policy.origins.embedders(client),
            serial_port=_find_serial_port(query),
        )
    accept = _check_upgrade(request)
    web_page = _web_page(request, policy, client)
    token = _find_token(request, query) or _find_nova_cookie(request)
    if token is None:
        raise exception.InvalidToken()
    subprotocol = _select_subprotocol(request)
    return Upgrade(token, client, accept, subprotocol, web_page, _find_serial_port(query))


def wants_websocket(request: Request) -> bool:
    """Return whether a request is for a websocket, however malformed it may be."""
    return 'websocket' in _list_items(request, 'upgrade')


def wants_json(request: Request) -> bool:
    """Return whether a refusal should be JSON for a program rather than a page for a user."""
    return _accepts(request, 'application/json')


def _accepts(request: Request, media_type: str) -> bool:
    return media_type in ','.join(_values(request, 'accept')).lower()


def _web_page(request: Request, policy: Policy, client: Client) -> WebPage:
    """Return the web page that makes the request.

    :raises OriginRefused: the Origin header is malformed, or ``null`` where that is not allowed
    """
    return policy.origins.identify(_single_value(request, 'origin'), client)


def _is_foreign(request: Request, policy: Policy, client: Client) -> bool:
    """Return whether a page of another site made an ordinary request, as far as the browser says so.

    ``Sec-Fetch-Site`` is that of Fetch Metadata Request Headers (W3C): ``same-site`` is another host too. If
    only host names are compared, it is the Origin that tells whether it is.
    """
    sites = set(_list_items(request, 'sec-fetch-site')) - {'same-origin', 'none'}
    if policy.origins.allowed_hosts is not None and _values(request, 'origin'):
        sites.discard('same-site')
    if sites:
        return True
    try:
        return not _web_page(request, policy, client).accepted
    except exception.ConsoledException:
        return True


def _check_upgrade(request: Request) -> str:
    """Check the opening handshake and return the Sec-WebSocket-Accept (RFC 6455, sections 4.2.1 and 4.2.2).

    :raises BadRequest: it is not a websocket handshake
    :raises UpgradeRequired: it is one, but not of version 13
    """
    connection = _list_items(request, 'connection')
    if request.method != 'GET' or request.http_version != '1.1' or 'upgrade' not in connection:
        raise exception.BadRequest(reason='it is not a websocket handshake')
    if _values(request, 'sec-websocket-version') != ['13']:
        raise exception.UpgradeRequired('Only version 13 of the websocket protocol is supported.')
    key = _single_value(request, 'sec-websocket-key') or ''
    try:
        decoded = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        decoded = b''
    if len(decoded) != 16:
        raise exception.BadRequest(reason='it is not a websocket handshake')
    digest = hashlib.sha1(key.encode('ascii') + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode('ascii')


def _parse_target(target: str) -> tuple[str, dict[str, list[str]]]:
    """Return path and query of a request target in origin form (RFC 9112, section 3.2.1)."""
    if not target.startswith('/'):
        raise exception.BadRequest(reason='its target is not a path')
    path, _, query = target.partition('?')
    return parse.unquote(path, errors='replace'), _parse_query(query)


def _parse_query(query: str) -> dict[str, list[str]]:
    try:
        return parse.parse_qs(query, max_num_fields=_MAX_QUERY_FIELDS, errors='replace')
    except ValueError:
        raise exception.BadRequest(reason='it has too many query arguments') from None


def _find_token(request: Request, query: dict[str, list[str]]) -> str | None:
    """Return the token from the first location that has one, or None.

    :raises InvalidToken: that location has a malformed token, or two different ones
    """
    for found in (
        query.get('token', []),
        _tokens_in_path_argument(query),
        _values(request, TOKEN_HEADER),
        [name[len(TOKEN_PROTOCOL) :] for name in _subprotocols(request) if name.startswith(TOKEN_PROTOCOL)],
        _cookies(request, COOKIE),  # last: a browser sends what is left of an earlier console, too
    ):
        if found:
            if len(set(found)) > 1 or not tokens.well_formed(found[0]):
                raise exception.InvalidToken()
            return found[0]
    return None


def _find_serial_port(query: dict[str, list[str]]) -> int | None:
    """Return the number of the serial port that the user has chosen, or None.

    :raises BadRequest: it is malformed, or there are two
    """
    found = set(query.get('serial_port', []))
    if not found:
        return None
    if len(found) > 1 or not _PORT_NUMBER.fullmatch(text := found.pop()):
        raise exception.BadRequest(reason='its serial_port is not the number of a port')
    return int(text)


def _find_token_or_error(
    request: Request, query: dict[str, list[str]]
) -> tuple[str | None, exception.InvalidToken | None]:
    """Return the token and the error, as pages are served whatever token the request carries."""
    try:
        return _find_token(request, query), None
    except exception.InvalidToken as exc:
        return None, exc


def _tokens_in_path_argument(query: dict[str, list[str]]) -> list[str]:
    """Return tokens in the query argument ``path``: ``path=websockify?token=...``.

    Since 1.1, noVNC passes on only this argument of its page's query.
    """
    return [
        token
        for path in query.get('path', [])
        for token in _parse_query(path.partition('?')[2]).get('token', [])
    ]


def _find_nova_cookie(request: Request) -> str | None:
    """Return the token in the cookie of Nova's pages, or None.

    Other applications use the name, too, so a value that cannot be a token is none.

    :raises InvalidToken: there are two different tokens
    """
    found = {value for value in _cookies(request, NOVA_COOKIE) if tokens.well_formed(value)}
    if len(found) > 1:
        raise exception.InvalidToken()
    return next(iter(found), None)


def _cookies(request: Request, wanted: str) -> list[str]:
    """Return the values of the cookies of a name (RFC 6265, section 4.2.1).

    Not with http.cookies: it drops the whole header if it cannot parse one cookie of any application.
    """
    pairs = [pair.partition('=') for value in _values(request, 'cookie') for pair in value.split(';')]
    found = [value.strip().strip('"') for name, _, value in pairs if name.strip() == wanted]
    return [value for value in found if value]


def _select_subprotocol(request: Request) -> str | None:
    offered = _subprotocols(request)
    return next((name for name in SUBPROTOCOLS if name in offered), None)


def _subprotocols(request: Request) -> list[str]:
    return [name.strip() for value in _values(request, 'sec-websocket-protocol') for name in value.split(',')]


def _list_items(request: Request, name: str) -> list[str]:
    """Return the items of a header that is a list of tokens (RFC 9110, section 5.6.1), in lower case."""
    return [item.strip().lower() for value in _values(request, name) for item in value.split(',')]


def _values(request: Request, name: str) -> list[str]:
    return request.headers.get(name, [])


def _single_value(request: Request, name: str) -> str | None:
    values = _values(request, name)
    if len(values) > 1:
        raise exception.BadRequest(reason=f'it has more than one {name} header')
    return values[0] if values else None
