# SPDX-License-Identifier: Apache-2.0
"""Access URLs: what users open in their browser."""

from __future__ import annotations

from urllib import parse

from consoled import exception
from consoled.objects import ConsoleType


def check_base(base: str | None) -> None:
    """Check that a base URL, if there is one, is an absolute http(s) or ws(s) URL without credentials.

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
    """Return a base URL with the token added.

    noVNC (since 1.1) passes only its ``path`` query argument on to the websocket, so its token is added to
    the ``path`` of the base. For other types it is the query argument ``token``.
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
