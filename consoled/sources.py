# SPDX-License-Identifier: Apache-2.0
"""Sources of console auth tokens besides the cell's database: the interface that they implement.

The manager asks the database first, then the sources in their order. A token of a source is copied into the
database when it is first used. A source whose tokens are checked at every open says so by its name, in
``CHECKED``; a copy from any other is a token like any other. Sources are not trusted: they check their values
before they return them, and the manager checks them against what compute agents have defined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Protocol

from consoled import objects
from consoled.context import RequestContext

# Names of sources without which a copy of one of their tokens opens nothing.
CHECKED = frozenset({'nova'})

# Called with the outcome of each lookup in a source; and the same for several sources, with its name first.
OutcomeObserver = Callable[[str], None]
LookupObserver = Callable[[str, str], None]


@dataclasses.dataclass(frozen=True)
class Issued:
    """A console auth token as its issuer described it, without the clear token.

    :ivar access_url_base: the URL at which a user opens it, without the token; or None
    :ivar issued_at: seconds since 1970 UTC, by the issuer's clock
    :ivar expires_in: seconds until it expires; None: ``[consoleauth] token_ttl`` after ``issued_at``
    :ivar compute_host: None if the issuer does not say
    """

    instance_uuid: str
    console_type: str
    host: str
    port: int
    internal_access_path: str | None
    access_url_base: str | None
    issued_at: float
    expires_in: float | None = None
    compute_host: str | None = None
    project_id: str | None = None


class TokenSource(Protocol):
    """A source of tokens. Its methods are called from several threads and return in bounded time.

    A source that cannot be reached stores nothing; ``store`` and ``forget`` do not raise because of that.
    """

    @property
    def name(self) -> str:
        """The name by which its uses are counted: 32 characters at most."""

    @property
    def unrecorded(self) -> frozenset[str]:
        """Filters of ``revoke`` that match none of its tokens, because it does not record their values."""

    def lookup(self, token: str) -> Issued | None:
        """Return what the source has for a clear token; None if it has nothing, or nothing valid.

        :raises InvalidToken: it has the token, but that must not be used, whatever other sources say
        :raises SourceUnavailable: it cannot say
        """

    def store(self, grant: objects.ConsoleAuthToken) -> None:
        """Store a token that was authorized; ``token`` and ``access_url`` are set."""

    def forget(self, instance_uuid: str, token_hashes: Collection[str] | None = None) -> None:
        """Delete the instance's tokens: those with these SHA-256 hashes, or all of them."""


class PortChecker(Protocol):
    """Whoever knows whether a port still belongs to an instance: a compute agent, or what a source asks."""

    def check_console(
        self, context: RequestContext, console: objects.ConsoleConnection, timeout: float
    ) -> bool:
        """Return whether the port still belongs to the instance.

        :param timeout: seconds to wait
        :raises ComputeUnreachable: there is no answer
        :raises HypervisorUnreachable: the hypervisor of the compute host does not answer
        """


class CheckedTokenSource(TokenSource, Protocol):
    """A source in ``CHECKED``."""

    def check(self, token: str, console: objects.ConsoleConnection) -> PortChecker:
        """Check that a token that was copied earlier is still good for its console.

        :returns: whom to ask about the port, if no compute agent has defined the console
        :raises InvalidToken: the source no longer has it, or the instance is on another compute host now
        :raises SourceUnavailable: the source cannot say
        """
