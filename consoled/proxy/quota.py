# SPDX-License-Identifier: Apache-2.0
"""How many sessions a process may have: in all, and per address."""

from __future__ import annotations

from consoled import exception
from consoled.proxy.limits import ConcurrencyLimit
from consoled.proxy.session import Session


class SessionQuota:
    """A slot for each session: taken before the session exists, given back when it has ended.

    :param max_sessions: of this process
    :param max_per_address: of one address; does not hold for users whose address is not known
    """

    def __init__(self, max_sessions: int, max_per_address: int) -> None:
        self._max_per_address = max_per_address
        self._limit = ConcurrencyLimit(max_sessions, max_per_address)

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        return self._limit.count

    def acquire(self, address: str | None) -> None:
        """Take a slot.

        :raises ProxyBusy: the process has no slot left
        :raises TooManySessions: the address has none left
        """
        if self._limit.acquire(address, exempt=address is None):
            return
        if self._limit.full:
            raise exception.ProxyBusy()
        raise exception.TooManySessions(limit=self._max_per_address, scope='address')

    def opened(self, session: Session) -> None:
        """Nothing changes: its slot was taken before it was born."""

    def ended(self, session: Session) -> None:
        """Give its slot back."""
        self._limit.release(session.client_address)
