# SPDX-License-Identifier: Apache-2.0
"""Web origins: scheme, host and port (RFC 6454). No I/O."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from urllib import parse

_DEFAULT_PORTS = {'http': 80, 'https': 443}
_HTTP_SCHEMES = {'ws': 'http', 'wss': 'https'}

# A host with an optional port, as browsers write them (RFC 3986, section 3.2, without user information).
# urlsplit alone is too lenient: it accepts brackets anywhere, drops tabs, and lower-cases some letters that
# are not ASCII into letters that are.
_HOST = r'(?:\[[0-9A-Fa-f:]+:[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]+)(?::[0-9]*)?'
_AUTHORITY = re.compile(_HOST)
_ORIGIN = re.compile(f'[A-Za-z]+://{_HOST}')


@dataclasses.dataclass(frozen=True)
class Origin:
    """The origin of a web page.

    :ivar scheme: http or https
    """

    scheme: str
    host: str
    port: int


def parse_url(url: str) -> Origin | None:
    """Return the origin of an absolute http(s) or ws(s) URL, or None if it has none."""
    try:
        parts = parse.urlsplit(url)
        scheme = _HTTP_SCHEMES.get(parts.scheme, parts.scheme)
        host = _canonical_host(parts.hostname or '')
        if scheme not in _DEFAULT_PORTS or not host or parts.username is not None:
            return None
        return Origin(scheme, host, _DEFAULT_PORTS[scheme] if parts.port is None else parts.port)
    except ValueError:
        return None


def _canonical_host(host: str) -> str:
    """Return the canonical spelling of a host.

    :raises ValueError: it contains colons but is not an IPv6 address
    """
    return str(ipaddress.IPv6Address(host)) if ':' in host else host.rstrip('.')


def parse_header(value: str) -> Origin | None:
    """Return the origin in an ``Origin`` header (RFC 6454, section 7); None if ``null`` or malformed."""
    return parse_url(value) if _ORIGIN.fullmatch(value) else None


def parse_host(scheme: str, host: str) -> Origin | None:
    """Return the origin of a server reached by this scheme and ``Host`` header; None for a malformed one."""
    return parse_url(f'{scheme}://{host}') if _AUTHORITY.fullmatch(host) else None


def parse_host_name(text: str) -> str | None:
    """Return the host of an origin, ``host:port``, a host name or an IP address; None for a malformed text.

    These are the values that ``[console] allowed_origins`` of Nova is found with.
    """
    found = parse_header(text) or parse_host('https', text) or parse_host('https', f'[{text}]')
    return None if found is None else found.host
