# SPDX-License-Identifier: Apache-2.0
"""Sources of console auth tokens besides the cell's database: the interface that they implement.

The manager asks the database first, then the sources in their order. A token of a source is copied into the
database when it is first used, and is a token like any other from then on. Sources are not trusted: they
check their values before they return them, and the manager checks them against what compute agents have
defined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Protocol

from consoled import objects


@dataclasses.dataclass(frozen=True)
class Issued:
    """A console auth token as its issuer described it, without the clear token.

    :ivar access_url_base: the URL at which a user opens it, without the token; or None
    :ivar issued_at: seconds since 1970 UTC, by the issuer's clock
    """

    instance_uuid: str
    console_type: str
    host: str
    port: int
    internal_access_path: str | None
    access_url_base: str | None
    issued_at: float


class TokenSource(Protocol):
    """A source of tokens. Its methods are called from several threads and return in bounded time.

    A source that cannot be reached has no tokens and stores none; no method raises because of that.
    """

    @property
    def name(self) -> str:
        """The name by which its uses are counted: 32 characters at most."""

    def lookup(self, token: str) -> Issued | None:
        """Return what the source has for a clear token; None if it has nothing, or nothing valid."""

    def store(self, grant: objects.ConsoleAuthToken) -> None:
        """Store a token that was authorized; ``token`` and ``access_url`` are set."""

    def forget(self, instance_uuid: str, token_hashes: Collection[str] | None = None) -> None:
        """Delete the instance's tokens: those with these SHA-256 hashes, or all of them."""
