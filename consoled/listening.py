# SPDX-License-Identifier: Apache-2.0
"""Binding of the addresses that a program listens on, with errors that name the option."""

from __future__ import annotations

import errno
import ipaddress
import socket


def bind(group: str, host: str, port: int, *, backlog: int = 128) -> socket.socket:
    """Bind a TCP socket and listen; ``::`` listens on IPv6 and IPv4.

    :param group: of the options ``host`` and ``port``, for errors
    :raises OSError: the address is in use, or not of this machine: that may change
    :raises ValueError: it may not be used, as a privileged port by an ordinary user
    """
    dual = host == '::'
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog, dualstack_ipv6=dual)
    except PermissionError as exc:
        raise ValueError(f'[{group}] port: {host}:{port} may not be bound: {exc.strerror}') from None
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise OSError(exc.errno, f'[{group}] port: {host}:{port} is in use by another program') from None
        # create_server adds the address to the reason, in parentheses
        reason = str(exc.strerror).partition(' (')[0]
        raise OSError(exc.errno, f'[{group}] host: {host} cannot be listened on: {reason}') from None


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens on the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'
