# SPDX-License-Identifier: Apache-2.0
"""Limits per process and per client network (design.md, invariant 9). No I/O; the caller passes the time."""

from __future__ import annotations

import collections
import ipaddress

from consoled.proxy.forwarded import parse_address


def client_network(address: str | None) -> str:
    """Return the network that counts as one client: an IPv4 address, or the /64 of an IPv6 address.

    Providers give each IPv6 customer at least a /64. Unknown and malformed addresses share the network ''.
    """
    parsed = None if address is None else parse_address(address)
    if parsed is None:
        return ''
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class ConcurrencyLimit:
    """Limit on how many permits are held at a time, in total and per client network.

    :param limit: permits in total
    :param per_address: permits per client network
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

        :param exempt: ignore the limit per client network, but count the permit
        """
        network = client_network(address)
        if self.full or (not exempt and self._held[network] >= self._per_address):
            return False
        self.count += 1
        self._held[network] += 1
        return True

    def release(self, address: str | None) -> None:
        """Release a permit that was acquired for this address."""
        network = client_network(address)
        self.count -= 1
        self._held[network] -= 1
        if self._held[network] <= 0:
            del self._held[network]


class FailureRateLimit:
    """Limit on failures per client network: a leaky bucket for each.

    A client that has used up its failures must wait until enough of them have leaked.

    :param per_minute: failures allowed at once, and the rate at which they leak
    :param max_networks: networks remembered; beyond that, the one whose last failure is oldest is forgotten
    """

    def __init__(self, per_minute: int, max_networks: int = 10000) -> None:
        self._per_minute = per_minute
        self._max_networks = max_networks
        # level of the bucket and when it was updated, least recent failure first
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def retry_after(self, address: str | None, now: float) -> float:
        """Return the seconds until this client may try again; 0 if it may now or its address is unknown."""
        if address is None:
            return 0.0
        excess = self._level(client_network(address), now) - (self._per_minute - 1)
        return max(0.0, excess * 60 / self._per_minute)

    def record_failure(self, address: str | None, now: float) -> None:
        """Count a failure of this client."""
        network = client_network(address)
        self._buckets[network] = (self._level(network, now) + 1, now)
        self._buckets.move_to_end(network)
        while len(self._buckets) > self._max_networks:
            self._buckets.popitem(last=False)

    def _level(self, network: str, now: float) -> float:
        level, updated = self._buckets.get(network, (0.0, now))
        return max(0.0, level - (now - updated) * self._per_minute / 60)
