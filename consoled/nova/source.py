# SPDX-License-Identifier: Apache-2.0
"""Console auth tokens that Nova has issued, as a source of tokens.

A copy of a token opens nothing by itself: at each open its row in Nova's database is read again, and the
compute host is asked whether the port still belongs to the instance. Nova deletes tokens only when an
instance is deleted or was migrated live. A token that is older than the instance's last launch is for a port
that the instance had before it was rebuilt, rescued, evacuated, resized or unshelved.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import time
from collections.abc import Collection

from consoled import exception, objects
from consoled import token as tokens
from consoled.context import RequestContext
from consoled.nova.compute import NovaComputeAPI
from consoled.nova.database import NovaDatabase, Token
from consoled.sources import Issued, OutcomeObserver, PortChecker

LOG = logging.getLogger(__name__)

CONSOLE_TYPES = frozenset({'novnc', 'spice-html5', 'serial', 'webmks'})

# On a Galera cluster a token that Nova has just handed out may reach the node that is asked a moment later.
_READ_AGAIN = 0.1  # seconds

# MySQL rounds to whole seconds, so a token may be older than its row says.
_ROUNDED_UP = 0.5  # seconds at most


class NovaTokens:
    """A ``TokenSource`` that reads Nova's cell database and asks nova-compute.

    :param observe: called from any thread with found, unknown, refused or unavailable
    """

    name = 'nova'
    unrecorded = frozenset({'user_id'})

    def __init__(
        self,
        db: NovaDatabase,
        compute: NovaComputeAPI,
        observe: OutcomeObserver = lambda outcome: None,
    ) -> None:
        self._db = db
        self._compute = compute
        self._observe = observe

    def lookup(self, token: str) -> Issued | None:
        """Return what Nova has for a clear token.

        :raises InvalidToken: Nova has it, but it must not be used
        :raises SourceUnavailable: Nova's database does not answer
        """
        if not tokens.well_formed(token):
            return None
        found = self._find(token)
        if found is None:
            self._observe('unknown')
            return None
        issued = _to_issued(found)
        self._observe('refused' if issued is None else 'found')
        if issued is None:
            raise exception.InvalidToken()
        return issued

    def check(self, token: str, console: objects.ConsoleConnection) -> PortChecker:
        """Check that a token that was copied earlier is still good for its console.

        :returns: what asks nova-compute about the port
        :raises InvalidToken: Nova has deleted the token, or the instance was launched again since, or is on
            another compute host now
        :raises SourceUnavailable: Nova's database does not answer
        """
        found = self._find(token)
        if found is None or _to_issued(found) is None or found.compute_host != console.compute_host:
            raise exception.InvalidToken()
        return _PortOfInstance(self._compute, found.instance_id)

    def store(self, grant: objects.ConsoleAuthToken) -> None:
        """Do nothing: Nova's tables are only read."""

    def forget(self, instance_uuid: str, token_hashes: Collection[str] | None = None) -> None:
        """Do nothing: Nova's tables are only read. What is revoked is recorded in the cell's database."""

    def _find(self, token: str) -> Token | None:
        hashed = tokens.hashed(token)
        try:
            found = self._db.find_token(hashed)
            if found is None:
                time.sleep(_READ_AGAIN)
                found = self._db.find_token(hashed)
            return found
        except exception.DatabaseUnavailable:
            self._observe('unavailable')
            raise exception.SourceUnavailable() from None


@dataclasses.dataclass(frozen=True)
class _PortOfInstance:
    """Asks nova-compute about the consoles of one instance."""

    compute: NovaComputeAPI
    instance_id: int

    def check_console(
        self, context: RequestContext, console: objects.ConsoleConnection, timeout: float
    ) -> bool:
        return self.compute.validate_console_port(context, console, self.instance_id, timeout)


def _to_issued(found: Token) -> Issued | None:
    """Return the token for the manager; None if it must not be used."""
    if found.compute_host is None or found.created_at is None or found.console_type not in CONSOLE_TYPES:
        return None
    if found.launched_at is not None and found.created_at < found.launched_at:
        return None
    return Issued(
        instance_uuid=found.instance_uuid,
        console_type=found.console_type,
        host=found.host,
        port=found.port,
        internal_access_path=found.internal_access_path,
        access_url_base=found.access_url_base,
        issued_at=found.created_at.replace(tzinfo=datetime.UTC).timestamp() - _ROUNDED_UP,
        expires_in=found.expires_in,
        compute_host=found.compute_host,
        project_id=found.project_id,
    )
