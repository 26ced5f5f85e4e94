# SPDX-License-Identifier: Apache-2.0
"""Identifying the client behind trusted load balancers. No I/O."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_HOPS = 16
_HTTP_SCHEMES = {'http': 'http', 'https': 'https', 'ws': 'http', 'wss': 'https'}


@dataclasses.dataclass(frozen=True)
class Client:
    """The user's side of a connection.

    :ivar address: IP address; None if unknown (a unix socket without X-Forwarded-For)
    :ivar scheme: http or https, the scheme by which the user reached this service
    :ivar host: the ``Host`` header by which the user reached this service
    :ivar forwarded_scheme: the scheme, if a trusted load balancer has named it; else None
    """

    address: str | None
    scheme: str
    host: str
    forwarded_scheme: str | None = None


def parse_networks(texts: Sequence[str], option: str) -> tuple[Network, ...]:
    """Parse networks in CIDR notation; a single address is a network of its own.

    :param option: of ``[proxy]``, for errors
    :raises ValueError: a text is neither a network nor an address
    """
    try:
        return tuple(ipaddress.ip_network(text.strip(), strict=False) for text in texts)
    except ValueError as exc:
        raise ValueError(f'[proxy] {option}: {exc}') from None


def parse_address(text: str) -> Address | None:
    """Parse an IP address as found in sockets and X-Forwarded-For: brackets, port and zone are optional.

    :returns: the address, IPv4 for an IPv4-mapped IPv6 address; None if the text is not an address
    """
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


def contains(networks: Sequence[Network], address: Address | None) -> bool:
    """Return whether an address lies in one of the networks."""
    return address is not None and any(address in network for network in networks)


def identify_client(
    peer: str | None, scheme: str, headers: dict[str, list[str]], trusted: Sequence[Network]
) -> Client:
    """Return the client that a request comes from.

    Forwarded headers count only if the peer is trusted. In X-Forwarded-For, the client is the right-most
    address that is not trusted: anything to the left of it was written by an untrusted party. Of
    X-Forwarded-Proto and X-Forwarded-Host the last value counts, which the nearest trusted proxy wrote.

    :param peer: IP address of the connection; None for a unix socket, which is trusted
    :param scheme: http or https, the scheme that the peer uses
    :param headers: values by lower-case name
    """
    host = _last_value(headers.get('host', [])) or ''
    address = None if peer is None else parse_address(peer)
    if peer is not None and not contains(trusted, address):
        return Client(None if address is None else str(address), scheme, host)
    named = (_last_value(headers.get('x-forwarded-proto', [])) or '').lower()
    forwarded_scheme = _HTTP_SCHEMES.get(named)
    return Client(
        _forwarded_for(headers.get('x-forwarded-for', []), address, trusted),
        forwarded_scheme or scheme,
        _last_value(headers.get('x-forwarded-host', [])) or host,
        forwarded_scheme,
    )


def _forwarded_for(values: list[str], peer: Address | None, trusted: Sequence[Network]) -> str | None:
    client = peer
    hops = [hop for value in values for hop in value.split(',')][-_MAX_HOPS:]
    for hop in reversed(hops):
        address = parse_address(hop)
        if address is None:
            break
        client = address
        if not contains(trusted, address):
            break
    return None if client is None else str(client)


def _last_value(values: list[str]) -> str | None:
    return values[-1].rpartition(',')[2].strip() if values else None
