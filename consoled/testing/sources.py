# SPDX-License-Identifier: Apache-2.0
"""A source of tokens in memory, for tests: the twin of those that need a service."""

from __future__ import annotations

from collections.abc import Collection

from consoled import objects
from consoled import token as tokens
from consoled.sources import Issued


class MemoryTokens:
    """Implements ``consoled.sources.TokenSource``; ``asked`` has the tokens that were looked up.

    :param name: as of the port
    """

    def __init__(self, name: str = 'memory') -> None:
        self.name = name
        self.available = True
        self.issued: dict[str, Issued] = {}
        self.stored: dict[str, objects.ConsoleAuthToken] = {}
        self.asked: list[str] = []

    def lookup(self, token: str) -> Issued | None:
        self.asked.append(token)
        return self.issued.get(token) if self.available else None

    def store(self, grant: objects.ConsoleAuthToken) -> None:
        assert grant.token is not None
        if self.available:
            self.stored[grant.token] = grant

    def forget(self, instance_uuid: str, token_hashes: Collection[str] | None = None) -> None:
        if not self.available:
            return
        for token, issued in list(self.issued.items()):
            if issued.instance_uuid == instance_uuid and (
                token_hashes is None or tokens.hashed(token) in token_hashes
            ):
                del self.issued[token]
