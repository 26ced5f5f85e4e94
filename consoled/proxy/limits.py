# SPDX-License-Identifier: Apache-2.0
"""Limits per process and per client network (design.md, invariant 9). No I/O; the caller passes the time."""

from __future__ import annotations

import array
import collections
import hashlib
import ipaddress
import secrets

from consoled.proxy.forwarded import Address, parse_address

# Prefix lengths of IPv6 networks, and how many clients each counts as. Providers give a customer anything
# from a /64 to a /48, and a /48 has 65,536 /64s: without the wider networks, a limit per /64 is none.
_IPV6_NETWORKS = ((64, 1), (56, 4), (48, 16), (32, 64))
_SITE = 48  # prefix length of the IPv6 network that one customer has at most
_NAT64 = ipaddress.IPv6Network('64:ff9b::/96')  # RFC 6052: an IPv4 address in the last 32 bits


def client_networks(address: str | None) -> tuple[tuple[str, int], ...]:
    """Return the networks that a client is counted in, and how many clients each counts as.

    :returns: an IPv4 address alone; for IPv6 its /64, /56, /48 and /32. Unknown and malformed addresses share
        the network ''
    """
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return tuple((_network(parsed, length), clients) for length, clients in _IPV6_NETWORKS)
    return (('' if parsed is None else str(parsed), 1),)


def client_site(address: str | None) -> str:
    """Return the widest network that one customer may have: an IPv4 address, or the /48 in IPv6."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return _network(parsed, _SITE)
    return '' if parsed is None else str(parsed)


def _parse(address: str | None) -> Address | None:
    parsed = None if address is None else parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed in _NAT64:
        return ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
    return parsed


def _network(address: ipaddress.IPv6Address, length: int) -> str:
    return str(ipaddress.IPv6Network((address, length), strict=False))


class ConcurrencyLimit:
    """Limit on how many permits are held at a time, in total and per client network.

    :param limit: permits in total
    :param per_address: permits per client; a network that counts as N clients has N times as many
    :ivar count: permits held now
    """

    def __init__(self, limit: int, per_address: int) -> None:
        self._limit = limit
        self._per_address = per_address
        self._held: collections.Counter[str] = collections.Counter()
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether the total limit is reached."""
        return self.count >= self._limit

    def acquire(self, address: str | None, *, exempt: bool = False) -> bool:
        """Acquire a permit without waiting; return False if a limit is reached.

        :param exempt: ignore the limits per client network, but count the permit
        """
        networks = client_networks(address)
        if self.full or not (exempt or all(self._has_room(*network) for network in networks)):
            return False
        self.count += 1
        for network, _ in networks:
            self._held[network] += 1
        return True

    def _has_room(self, network: str, clients: int) -> bool:
        return self._held[network] < self._per_address * clients

    def release(self, address: str | None) -> None:
        """Release a permit that was acquired for this address."""
        self.count -= 1
        for network, _ in client_networks(address):
            self._held[network] -= 1
            if self._held[network] <= 0:
                del self._held[network]


class RateLimit:
    """Limit on the rate of events by key: a leaky bucket for each, in a table of fixed size.

    The table is a count-min sketch: each key has a cell in each row, and the lowest of them is its bucket. No
    key can push another one out, or reset its own bucket. Keys that share all their cells share a bucket;
    which keys do is secret, and with fewer than a thousand active keys hardly any.

    :param per_minute: events allowed at once, and the rate at which they leak
    """

    _ROWS = 4
    _CELLS = 4096  # of a row: 256 KiB in all
    _DIGITS = 4  # bytes of a hash for each row

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._salt = secrets.token_bytes(16)
        size = self._ROWS * self._CELLS
        self._levels = array.array('d', bytes(8 * size))
        self._updated = array.array('d', bytes(8 * size))

    def retry_after(self, keys: tuple[tuple[str, int], ...], now: float) -> float:
        """Return the seconds until another event is within the limit of all keys; 0 if it is now.

        :param keys: keys and how many times as many events each of them may have
        """
        excess = max(self._level(self._cells(key), now) + 1 / share for key, share in keys) - self._per_minute
        return max(0.0, excess * 60 / self._per_minute)

    def record(self, keys: tuple[tuple[str, int], ...], now: float) -> None:
        """Count an event of these keys."""
        for key, share in keys:
            cells = self._cells(key)
            level = self._level(cells, now) + 1 / share
            for cell in cells:
                self._levels[cell] = max(level, self._leaked(cell, now))
                self._updated[cell] = now

    def take(self, keys: tuple[tuple[str, int], ...], now: float) -> bool:
        """Count an event if it is within the limit of all keys; return whether it is."""
        if self.retry_after(keys, now):
            return False
        self.record(keys, now)
        return True

    def _level(self, cells: list[int], now: float) -> float:
        return min(self._leaked(cell, now) for cell in cells)

    def _leaked(self, cell: int, now: float) -> float:
        passed = now - self._updated[cell]
        return max(0.0, self._levels[cell] - passed * self._per_minute / 60)

    def _cells(self, key: str) -> list[int]:
        """Return the position of the cell of a key in each row."""
        size = self._DIGITS
        digest = hashlib.blake2b(key.encode(), key=self._salt, digest_size=self._ROWS * size).digest()
        numbers = [int.from_bytes(digest[row * size : (row + 1) * size], 'big') for row in range(self._ROWS)]
        return [row * self._CELLS + number % self._CELLS for row, number in enumerate(numbers)]
