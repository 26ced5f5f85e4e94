# SPDX-License-Identifier: Apache-2.0
"""The URL that a user opens."""

from __future__ import annotations

from urllib import parse

from consoled import exception
from consoled.objects import ConsoleType


def check_base(base: str | None) -> None:
    """Refuse a base URL that is not an absolute http(s) or ws(s) URL without credentials.

    :raises InvalidConsole: it is not
    """
    if base is None:
        return
    try:
        parts = parse.urlsplit(base)
        acceptable = (
            parts.scheme in ('http', 'https', 'ws', 'wss') and parts.hostname and parts.username is None
        )
    except ValueError:
        acceptable = False
    if not acceptable:
        raise exception.InvalidConsole(reason='access_url_base is not an http(s) or ws(s) URL')


def build(base: str, console_type: str, token: str) -> str:
    """Add the token to a base URL.

    noVNC (since 1.1) passes only its ``path`` query argument on to the websocket, so for it the token goes
    into ``path``, added to what the base has there; for the others it is the query argument ``token``.
    """
    parts = parse.urlsplit(base)
    query = parse.parse_qsl(parts.query, keep_blank_values=True)
    if console_type == ConsoleType.NOVNC:
        path = next((value for name, value in query if name == 'path'), '')
        separator = '&' if '?' in path else '?'
        added = ('path', f'{path}{separator}token={token}')
    else:
        added = ('token', token)
    kept = [(name, value) for name, value in query if name != added[0]]
    return parse.urlunsplit(parts._replace(query=parse.urlencode([*kept, added])))
