# SPDX-License-Identifier: Apache-2.0
"""Where console auth tokens may live besides the cell's database: the port that such a place implements.

The manager asks the database first, then the sources in their order. What a source knows is copied into the
database when it is first used, and is a token like any other from then on. What a source says is not
trusted: its values are checked before they come through this port, and the manager checks them against what
compute agents have defined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Protocol

from consoled import objects


@dataclasses.dataclass(frozen=True)
class Issued:
    """A console auth token as its issuer described it, without the clear token.

    :param access_url_base: where it is opened, without the token in it, or None
    :param issued_at: seconds since 1970 UTC, by the issuer's clock
    """

    instance_uuid: str
    console_type: str
    host: str
    port: int
    internal_access_path: str | None
    access_url_base: str | None
    issued_at: float


class TokenSource(Protocol):
    """A place of tokens. Its methods are called from several threads and answer in bounded time.

    A place that is away has no token, and takes none: no method raises because of that.
    """

    @property
    def name(self) -> str:
        """What its uses are counted by: at most 32 characters."""

    def lookup(self, token: str) -> Issued | None:
        """What it knows of a clear token; None: nothing, or nothing that makes sense."""

    def store(self, grant: objects.ConsoleAuthToken) -> None:
        """Keep a token that was authorized; ``token`` and ``access_url`` are set."""

    def forget(self, instance_uuid: str, token_hashes: Collection[str] | None = None) -> None:
        """Delete the instance's tokens, or those of them with these SHA-256."""
