# SPDX-License-Identifier: Apache-2.0
"""Addresses that a program listens on: parsed, compared and bound, with errors that name the option."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket

_ADDRESS = re.compile(r'(?:\[(?P<ipv6>[^]]+)\]|(?P<name>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})')
_ANY = '::'  # IPv6 and IPv4
_ANY_IPV4 = '0.0.0.0'  # noqa: S104 - compared, not listened on

Address = tuple[str, int]


def parse_address(text: str) -> Address:
    """Parse ``host:port``, with an IPv6 address in brackets: ``[::1]:6080``.

    :raises ValueError: the text is malformed
    """
    match = _ADDRESS.fullmatch(text.strip())
    try:
        if match is not None and int(match['port']) <= 65535:
            return match['name'] or str(ipaddress.IPv6Address(match['ipv6'])), int(match['port'])
    except ValueError:
        pass  # it does not say what would be right
    raise ValueError(f'{text!r} is not an address such as 192.0.2.1:6080 or [2001:db8::1]:6080')


def show_address(address: Address) -> str:
    """Return ``host:port``, as ``parse_address`` reads it."""
    host, port = address
    return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def overlap(one: Address, other: Address) -> bool:
    """Return whether two addresses cannot both be listened on: one is, or contains, the other."""
    hosts = {_canonical(host) for host, _ in (one, other)}
    if one[1] != other[1] or one[1] == 0:
        return False
    both_ipv4 = not any(':' in host for host in hosts)
    return len(hosts) == 1 or _ANY in hosts or _ANY_IPV4 in hosts and both_ipv4


def _canonical(host: str) -> str:
    """Return the one spelling of an address, or a name in lower case: ``::0`` is ``::``."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def bind(group: str, host: str, port: int, *, option: str | None = None, backlog: int = 128) -> socket.socket:
    """Bind a TCP socket and listen; ``::`` listens on IPv6 and IPv4.

    :param group: of the options, for errors
    :param option: that the address is from; by default it is from ``host`` and ``port``
    :raises OSError: the address is in use, or not of this machine: that may change
    :raises ValueError: it may not be used, as a privileged port by an ordinary user
    """
    dual = _canonical(host) == _ANY
    where = f'[{group}] {option or "port"}: {show_address((host, port))}'
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    address: tuple[object, ...] = (host, port)
    try:
        if family == socket.AF_INET6:  # with the number of its zone, which create_server does not look up
            [(*_, address), *_] = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        return socket.create_server(address, family=family, backlog=backlog, dualstack_ipv6=dual)
    except PermissionError as exc:
        raise ValueError(f'{where} may not be bound: {exc.strerror}') from None
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise OSError(exc.errno, f'{where} is in use already') from None
        # create_server adds the address to the reason, in parentheses
        reason = str(exc.strerror).partition(' (')[0]
        raise OSError(
            exc.errno, f'[{group}] {option or "host"}: {host} cannot be listened on: {reason}'
        ) from None


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens on the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'
