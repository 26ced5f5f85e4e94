# SPDX-License-Identifier: Apache-2.0
"""In-memory token source for tests."""

from __future__ import annotations

from collections.abc import Collection

from consoled import objects
from consoled import token as tokens
from consoled.sources import Issued


class MemoryTokenSource:
    """In-memory implementation of ``consoled.sources.TokenSource``.

    :param name: the source's name in metrics and usage counts
    :param unrecorded: filters of ``revoke`` that match none of its tokens
    :ivar available: set to False to simulate an outage: lookups find nothing, and nothing is stored or
        deleted
    :ivar issued: the tokens that ``lookup`` finds, by clear token
    :ivar stored: the tokens passed to ``store``, by clear token
    :ivar asked: the clear tokens passed to ``lookup``, in order
    """

    def __init__(self, name: str = 'memory', unrecorded: Collection[str] = ()) -> None:
        self.name = name
        self.unrecorded = frozenset(unrecorded)
        self.available = True
        self.issued: dict[str, Issued] = {}
        self.stored: dict[str, objects.ConsoleAuthToken] = {}
        self.asked: list[str] = []

    def lookup(self, token: str) -> Issued | None:
        """Return a token that was put into ``issued``, or None."""
        self.asked.append(token)
        return self.issued.get(token) if self.available else None

    def store(self, grant: objects.ConsoleAuthToken) -> None:
        """Record an authorized token in ``stored``."""
        assert grant.token is not None
        if self.available:
            self.stored[grant.token] = grant

    def forget(self, instance_uuid: str, token_hashes: Collection[str] | None = None) -> None:
        """Delete the instance's tokens from ``issued``: those with these hashes, or all of them."""
        if not self.available:
            return
        for token, issued in list(self.issued.items()):
            if issued.instance_uuid == instance_uuid and (
                token_hashes is None or tokens.hashed(token) in token_hashes
            ):
                del self.issued[token]
