# SPDX-License-Identifier: Apache-2.0
"""Whether a session that was opened with a token of Nova may go on."""

from __future__ import annotations

import dataclasses
import datetime

from consoled.db.watch import Watched
from consoled.nova.database import Instance
from consoled.objects import EndReason

# Between moments by the clocks of Nova's services and by that of the database of consoled.
CLOCKS_DIFFER = datetime.timedelta(seconds=60)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What Nova's database says about a session.

    :ivar instance: None if Nova has deleted it
    :ivar issued_at: when the session's token was made (UTC); None if Nova has deleted it, or does not say
    :ivar token_deleted: Nova has deleted the token before its time
    """

    instance: Instance | None
    issued_at: datetime.datetime | None
    token_deleted: bool


@dataclasses.dataclass(frozen=True)
class Launch:
    """When the instance of a session had been launched at the time that the session was found to be true."""

    at: datetime.datetime | None


def find_end_reason(session: Watched, facts: Facts, before: Launch | None) -> EndReason | None:
    """Return why a session must end; None if it may go on.

    A token that has expired is no reason: sessions outlive their tokens, unless ``[consoleauth]
    enforce_session_timeout`` ends them.

    :param before: None if this is the first pass over the session
    """
    instance = facts.instance
    if instance is None or instance.host is None:  # deleted; shelved
        return EndReason.INSTANCE_GONE
    if instance.host != session.compute_host:
        return EndReason.CONSOLE_MOVED
    if _launched_again(session, instance.launched_at, facts.issued_at, before):
        return EndReason.CONSOLE_GONE
    return EndReason.CONSOLE_GONE if facts.token_deleted else None


def _launched_again(
    session: Watched,
    launched_at: datetime.datetime | None,
    issued_at: datetime.datetime | None,
    before: Launch | None,
) -> bool:
    """Return whether the instance was launched again since the session began: rebuilt, resized, unshelved.

    Any change tells, whatever the clocks say. At the first pass the launch is compared with the token, as at
    an open, or with the beginning of the session if Nova has deleted the token.
    """
    if launched_at is None:
        return False
    if before is not None:
        return before.at is not None and before.at != launched_at
    return launched_at > (issued_at or session.connected_at + CLOCKS_DIFFER)
