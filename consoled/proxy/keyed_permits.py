# SPDX-License-Identifier: Apache-2.0
"""Permits that are counted for each key apart, so that nobody can take those of the others."""

from __future__ import annotations

import asyncio
import dataclasses


@dataclasses.dataclass
class _Entry:
    """Permits of one key, and how many callers hold or want one."""

    permits: asyncio.Semaphore
    users: int = 0


class KeyedPermits:
    """Permits by key, waited for in order. A key is remembered only while somebody holds or wants a permit.

    :param permits: permits of each key
    """

    def __init__(self, permits: int) -> None:
        self._permits = permits
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        """Return the number of keys that are remembered."""
        return len(self._entries)

    async def acquire(self, key: str) -> None:
        """Acquire a permit of this key; wait until there is one."""
        entry = self._entries.setdefault(key, _Entry(asyncio.Semaphore(self._permits)))
        entry.users += 1
        try:
            await entry.permits.acquire()
        except BaseException:
            self._leave(key, entry)
            raise

    def release(self, key: str) -> None:
        """Release a permit of this key."""
        entry = self._entries[key]
        entry.permits.release()
        self._leave(key, entry)

    def _leave(self, key: str, entry: _Entry) -> None:
        entry.users -= 1
        if not entry.users:
            del self._entries[key]
