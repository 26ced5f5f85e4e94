# SPDX-License-Identifier: Apache-2.0
"""Web origins: scheme, host and port (RFC 6454). Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from urllib import parse

_PORTS = {'http': 80, 'https': 443}
_WEB_SCHEMES = {'ws': 'http', 'wss': 'https'}

# A host and perhaps a port as browsers write them (RFC 3986, section 3.2; no user information). urlsplit
# takes brackets anywhere, drops tabs, and lower case makes ASCII of a few letters that are none.
_HOST = r'(?:\[[0-9A-Fa-f:]+:[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]+)(?::[0-9]*)?'
_AUTHORITY = re.compile(_HOST)
_ORIGIN = re.compile(f'[A-Za-z]+://{_HOST}')


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
        host = _canonical(parts.hostname or '')
        if scheme not in _PORTS or not host or parts.username is not None:
            return None
        return Origin(scheme, host, _PORTS[scheme] if parts.port is None else parts.port)
    except ValueError:
        return None


def _canonical(host: str) -> str:
    """The one spelling of a host.

    :raises ValueError: it has colons, and is no IPv6 address
    """
    return str(ipaddress.IPv6Address(host)) if ':' in host else host.rstrip('.')


def of_header(value: str) -> Origin | None:
    """The origin in an ``Origin`` header (RFC 6454, section 7); None for ``null`` and what is malformed."""
    return of_url(value) if _ORIGIN.fullmatch(value) else None


def of_host(scheme: str, host: str) -> Origin | None:
    """The origin of a server that was reached by this scheme and ``Host`` header."""
    return of_url(f'{scheme}://{host}') if _AUTHORITY.fullmatch(host) else None
