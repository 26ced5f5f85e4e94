# SPDX-License-Identifier: Apache-2.0
"""Who the client is, through load balancers that are trusted. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_HOPS = 16


@dataclasses.dataclass(frozen=True)
class Client:
    """The user's end as far as it is known.

    ``address`` is None behind a unix socket without X-Forwarded-For; ``scheme`` (http, https) and ``host``
    (a Host header) are how the user reached this service.
    """

    address: str | None
    scheme: str
    host: str


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse networks or addresses.

    :raises ValueError: one is neither
    """
    return tuple(ipaddress.ip_network(text.strip(), strict=False) for text in texts)


def parse_address(text: str) -> Address | None:
    """An IP address as peers and X-Forwarded-For have it: perhaps with brackets, port or zone."""
    text = text.strip().strip('"')
    if text.startswith('['):
        text = text[1:].partition(']')[0]
    elif text.count(':') == 1:
        text = text.partition(':')[0]
    try:
        found = ipaddress.ip_address(text.partition('%')[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def contains(nets: Sequence[Network], address: Address | None) -> bool:
    """Whether an address lies in one of the networks."""
    return address is not None and any(address in net for net in nets)


def client_of(
    peer: str | None, scheme: str, headers: dict[str, list[str]], trusted: Sequence[Network]
) -> Client:
    """Who is at the other end.

    Only a trusted peer is believed. Of X-Forwarded-For the right-most address counts that is not itself
    trusted: what lies left of it was written by somebody who is not. Of -Proto and -Host the last value
    counts, the one that the nearest of the trusted wrote.

    :param peer: IP address of the connection; None for a unix socket, which is trusted
    :param scheme: http or https, how the peer speaks to us
    :param headers: values by lower-case name
    """
    host = _last(headers.get('host', [])) or ''
    address = None if peer is None else parse_address(peer)
    if peer is not None and not contains(trusted, address):
        return Client(None if address is None else str(address), scheme, host)
    proto = (_last(headers.get('x-forwarded-proto', [])) or '').lower()
    return Client(
        _forwarded_for(headers.get('x-forwarded-for', []), address, trusted),
        {'ws': 'http', 'wss': 'https'}.get(proto, proto)
        if proto in ('http', 'https', 'ws', 'wss')
        else scheme,
        _last(headers.get('x-forwarded-host', [])) or host,
    )


def _forwarded_for(values: list[str], peer: Address | None, trusted: Sequence[Network]) -> str | None:
    nearest = peer
    hops = [hop for value in values for hop in value.split(',')][-_MAX_HOPS:]
    for hop in reversed(hops):
        address = parse_address(hop)
        if address is None:
            break
        nearest = address
        if not contains(trusted, address):
            break
    return None if nearest is None else str(nearest)


def _last(values: list[str]) -> str | None:
    return values[-1].rpartition(',')[2].strip() if values else None
