# SPDX-License-Identifier: Apache-2.0
"""Limits on the sessions of a process: in total, and per address."""

from __future__ import annotations

from consoled import exception
from consoled.proxy.limits import ConcurrencyLimit
from consoled.proxy.session import Session


class SessionQuota:
    """Slots for sessions: acquired before a session is created, released when it has ended.

    :param max_sessions: slots of this process
    :param max_per_address: slots per address; not applied to users whose address is unknown
    """

    def __init__(self, max_sessions: int, max_per_address: int) -> None:
        self._max_per_address = max_per_address
        self._limit = ConcurrencyLimit(max_sessions, max_per_address)

    @property
    def taken(self) -> int:
        """Number of slots in use."""
        return self._limit.count

    def acquire(self, address: str | None) -> None:
        """Acquire a slot.

        :raises ProxyBusy: when the process has no free slot
        :raises TooManySessions: when the address has no free slot
        """
        if self._limit.acquire(address, exempt=address is None):
            return
        if self._limit.full:
            raise exception.ProxyBusy()
        raise exception.TooManySessions(limit=self._max_per_address, scope='address')

    def opened(self, session: Session) -> None:
        """Do nothing: the slot was acquired before the session was created."""

    def joined(self, session: Session) -> None:
        """Do nothing: all channels of a session share its slot."""

    def ended(self, session: Session) -> None:
        """Release the slot of the session."""
        self._limit.release(session.client_address)
