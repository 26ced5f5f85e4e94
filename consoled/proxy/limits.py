# SPDX-License-Identifier: Apache-2.0
"""Counting what peers can make grow. Pure: the caller brings the time."""

from __future__ import annotations

import collections
import ipaddress

from consoled.proxy.forwarded import parse_address


def bucket_of(address: str | None) -> str:
    """What counts as one user's network: an IPv4 address, an IPv6 /64 (a user is given a whole one)."""
    parsed = None if address is None else parse_address(address)
    if parsed is None:
        return ''
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class Counter:
    """How many there are now, in all and per address.

    :param limit: at most, in all
    :param per_address: at most, of one address
    """

    def __init__(self, limit: int, per_address: int) -> None:
        self._limit = limit
        self._per_address = per_address
        self._of: collections.Counter[str] = collections.Counter()
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether there may be no more of any address."""
        return self.count >= self._limit

    def take(self, address: str | None, *, exempt: bool = False) -> bool:
        """Count one more, unless that is over a limit.

        :param exempt: the limit per address does not hold for it
        """
        bucket = bucket_of(address)
        if self.full or (not exempt and self._of[bucket] >= self._per_address):
            return False
        self.count += 1
        self._of[bucket] += 1
        return True

    def give_back(self, address: str | None) -> None:
        """Count one less of that address."""
        bucket = bucket_of(address)
        self.count -= 1
        self._of[bucket] -= 1
        if self._of[bucket] <= 0:
            del self._of[bucket]


class FailureRate:
    """A token bucket an address: so many failures a minute, then none is looked at until some have leaked.

    :param per_minute: failures
    :param addresses: remembered at most; the one that failed longest ago is forgotten
    """

    def __init__(self, per_minute: int, addresses: int = 10000) -> None:
        self._per_minute = per_minute
        self._addresses = addresses
        self._failed: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def wait(self, address: str | None, now: float) -> float:
        """Seconds until this address may try again; 0: now, and for those whose address is not known."""
        if address is None:
            return 0.0
        over = self._level(bucket_of(address), now) - (self._per_minute - 1)
        return max(0.0, over * 60 / self._per_minute)

    def failed(self, address: str | None, now: float) -> None:
        """Count a failure."""
        bucket = bucket_of(address)
        self._failed[bucket] = (self._level(bucket, now) + 1, now)
        self._failed.move_to_end(bucket)
        while len(self._failed) > self._addresses:
            self._failed.popitem(last=False)

    def _level(self, bucket: str, now: float) -> float:
        level, then = self._failed.get(bucket, (0.0, now))
        return max(0.0, level - (now - then) * self._per_minute / 60)
