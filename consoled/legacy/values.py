# SPDX-License-Identifier: Apache-2.0
"""The old service's values in memcached: a token's JSON object, and the JSON list of an instance's tokens.

Pure functions. Values that are read are not trusted: each is checked against its bounds, and ``Refused`` says
what is wrong without showing the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib import parse

from consoled import objects
from consoled import token as tokens
from consoled.legacy.pickles import Cached, Refused
from consoled.objects import fields
from consoled.sources import Issued

T = TypeVar('T')

MAX_LISTED = 2000  # tokens of one instance
MAX_LIST_BYTES = 256 * 1024
_MAX_URL = 1024  # characters
_LATEST = 2**33  # seconds since 1970 UTC: the year 2242
_DECIMAL = re.compile(r'[1-9][0-9]{0,4}')


def parse_token(token: str, cached: Cached) -> Issued:
    """Return what the old service has stored for a clear token.

    The token was issued at ``last_activity_at`` or when the cache stored the value, whichever is earlier. The
    old service wrote both at the same moment and used the second. If they differ, somebody has tampered with
    one of them, which must not prolong the token's life.

    :raises Refused: it is no such value, or the value of another token
    """
    found = _parse_json(cached.text)
    if not isinstance(found, dict):
        raise Refused('the value is not a JSON object')
    if found.get('token') != token:
        raise Refused('the value belongs to another token')
    issued_at = _field(found, 'last_activity_at', _moment)
    return Issued(
        instance_uuid=_field(found, 'instance_uuid', fields.checked_uuid),
        console_type=_field(found, 'console_type', _console_type),
        host=_field(found, 'host', fields.checked_host),
        port=_field(found, 'port', port),
        internal_access_path=_field(found, 'internal_access_path', lambda path: _access_path(path, token)),
        access_url_base=access_url_base(found.get('access_url'), token),
        issued_at=min(issued_at, _field({'ct': cached.stored_at}, 'ct', _moment)),
    )


def format_token(grant: objects.ConsoleAuthToken, issued_at: float) -> str:
    """Return the JSON object of a token, character for character as the old service would write it.

    :param issued_at: seconds since 1970 UTC
    """
    return json.dumps(
        {
            'token': grant.token,
            'instance_uuid': grant.instance_uuid,
            'console_type': grant.console_type,
            'host': grant.host,
            'port': grant.port,
            'internal_access_path': grant.options.get('internal_access_path'),
            'access_url': grant.access_url,
            'last_activity_at': issued_at,
        }
    )


def parse_list(cached: Cached) -> list[str]:
    """Return the clear tokens that the old service has listed for an instance.

    Each is returned once; those that are not well-formed are left out.

    :raises Refused: it is not a list, or the list is too long
    """
    found = _parse_json(cached.text)
    if not isinstance(found, list) or len(found) > MAX_LISTED:
        raise Refused('the tokens of an instance are not a short list')
    return list(dict.fromkeys(item for item in found if tokens.well_formed(item)))


def format_list(listed: list[str]) -> str:
    """Return the JSON list of an instance's tokens: the last ``MAX_LISTED`` of them."""
    return json.dumps(listed[-MAX_LISTED:])


def strip_token(url: str, token: str) -> str | None:
    """Remove the query argument ``token`` from an access URL, and from the URL in its argument ``path``.

    The rest stays as it is, character for character. (noVNC since 1.1 passes on nothing but its argument
    ``path``, so the token is in there.)

    :returns: None if the URL contains the token elsewhere too
    """
    parts = parse.urlsplit(url)
    base = parse.urlunsplit(parts._replace(query=_strip_query(parts.query)))
    return None if contains_token(base, token) else base


def _strip_query(query: str) -> str:
    kept = []
    for argument in query.split('&'):
        name, _, value = argument.partition('=')
        name, value = parse.unquote_plus(name), parse.unquote_plus(value)
        if name == 'path':
            path, _, inner = value.partition('?')
            inner_kept = [item for item in inner.split('&') if not item.startswith('token=')]
            if inner and len(inner_kept) < len(inner.split('&')):
                value = path + ('?' if inner_kept else '') + '&'.join(inner_kept)
                argument = parse.urlencode({'path': value}) if value else ''
        if argument and name != 'token':
            kept.append(argument)
    return '&'.join(kept)


def contains_token(text: str, token: str) -> bool:
    """Return whether a text contains the token, plain or percent-encoded up to four times."""
    for _ in range(5):
        if token.lower() in text.lower():
            return True
        text = parse.unquote(text)
    return False


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused('the value is not JSON') from None


def _no_constant(name: str) -> None:
    raise ValueError(f'{name} is not JSON')  # RFC 8259, section 6


def _field(found: dict[str, Any], name: str, check: Callable[[object], T]) -> T:
    if name not in found:
        raise Refused(f'{name} is missing')
    try:
        return check(found[name])
    except ValueError as exc:  # of checks that show no value
        raise Refused(f'{name} {exc}') from None


def _console_type(value: object) -> str:
    if not isinstance(value, str) or value not in objects.ConsoleType.ALL:
        raise ValueError('is unknown')
    return value


def port(value: object) -> int:
    """Return a port that may be given as a string, as some hypervisors' drivers did, or raise ValueError."""
    return fields.checked_port(int(value) if isinstance(value, str) and _DECIMAL.fullmatch(value) else value)


def _access_path(value: object, token: str) -> str | None:
    if value is None or value == '':
        return None
    path = fields.checked_text(value, _MAX_URL)
    if contains_token(path, token):
        raise ValueError('contains the token')
    return path


def access_url_base(value: object, token: str) -> str | None:
    """Return an access URL without the token; None if there is no URL, as with callers of RPC version 2.0.

    :raises Refused: it is not a URL that a user could open
    """
    if value is None:
        return None
    wrong = Refused('its access URL is not an http(s) or ws(s) URL')
    try:
        base = strip_token(fields.checked_text(value, 2 * _MAX_URL), token)
        parts = parse.urlsplit(base or '')
        good = parts.scheme in ('http', 'https', 'ws', 'wss') and parts.hostname and parts.username is None
    except ValueError:  # its message may contain a part of the URL
        raise wrong from None
    if base is not None and (not good or len(base) > _MAX_URL):
        raise wrong
    return base


def _moment(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LATEST:
        raise ValueError('is not a plausible moment')
    return float(value)
