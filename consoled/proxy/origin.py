# SPDX-License-Identifier: Apache-2.0
"""Web origins: scheme, host and port (RFC 6454). Pure."""

from __future__ import annotations

import dataclasses
from urllib import parse

_PORTS = {'http': 80, 'https': 443}
_WEB_SCHEMES = {'ws': 'http', 'wss': 'https'}


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a web page comes from; ``scheme`` is http or https."""

    scheme: str
    host: str
    port: int


def of_url(url: str) -> Origin | None:
    """The origin of an absolute http(s) or ws(s) URL; None if it has none."""
    try:
        parts = parse.urlsplit(url)
        scheme = _WEB_SCHEMES.get(parts.scheme, parts.scheme)
        if scheme not in _PORTS or not parts.hostname or parts.username is not None:
            return None
        return Origin(scheme, parts.hostname.rstrip('.'), parts.port or _PORTS[scheme])
    except ValueError:
        return None


def of_header(value: str) -> Origin | None:
    """The origin in an ``Origin`` header (RFC 6454, section 7); None for ``null`` and what is malformed."""
    found = of_url(value)
    # scheme "://" host [ ":" port ] and nothing more
    if found is None or value.count('/') != 2 or '?' in value or '#' in value:
        return None
    return found


def of_host(scheme: str, host: str) -> Origin | None:
    """The origin of a server that was reached by this scheme and ``Host`` header."""
    if not host or any(sign in host for sign in '/?#@\\ \t'):
        return None
    return of_url(f'{scheme}://{host}')
