# SPDX-License-Identifier: Apache-2.0
"""How users are told why a session ended: the table from end reasons to websocket close codes. Pure.

Codes below 4000 are those of RFC 6455, section 7.4.1, and of IANA's registry of close codes; the others are
consoled's own.
"""

from __future__ import annotations

import dataclasses
import enum

from consoled.objects.reasons import EndReason


class CloseCode(enum.IntEnum):
    """The close codes that the proxy sends. Pages and other clients branch on them: they never change."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    INVALID_TOKEN = 4401
    REVOKED = 4403
    CONSOLE_GONE = 4404
    SESSION_EXPIRED = 4408
    TAKEN_OVER = 4409


class Retry(enum.Enum):
    """Whether opening the console again makes sense, with the same access URL or a new one."""

    NEVER = 'never'  # it would be refused
    BY_USER = 'by_user'  # the user may want to, a program must not do it on its own
    AUTOMATIC = 'automatic'


@dataclasses.dataclass(frozen=True)
class Ending:
    """The end of a session as its user sees it.

    :ivar text: sent in the close frame; 123 bytes at most (RFC 6455, section 5.5.1)
    """

    code: CloseCode
    text: str
    retry: Retry


_BY_USER, _AUTOMATIC = Retry.BY_USER, Retry.AUTOMATIC

ENDINGS = {
    EndReason.USER_LEFT: Ending(CloseCode.NORMAL_CLOSURE, '', _BY_USER),
    EndReason.USER_LOST: Ending(
        CloseCode.GOING_AWAY, 'The connection timed out: no response from the browser.', _AUTOMATIC
    ),
    EndReason.GUEST_CLOSED: Ending(CloseCode.INTERNAL_ERROR, 'The guest closed its console.', _AUTOMATIC),
    EndReason.GUEST_STALLED: Ending(
        CloseCode.INTERNAL_ERROR, 'The guest stopped accepting input.', _AUTOMATIC
    ),
    EndReason.OPEN_FAILED: Ending(
        CloseCode.INTERNAL_ERROR, "The guest's console cannot be reached.", _AUTOMATIC
    ),
    EndReason.TIME_OVER: Ending(CloseCode.SESSION_EXPIRED, 'The session has expired.', _BY_USER),
    EndReason.IDLE: Ending(
        CloseCode.SESSION_EXPIRED, 'The session was closed because it was idle.', _BY_USER
    ),
    EndReason.DRAINED: Ending(CloseCode.SERVICE_RESTART, 'The console proxy is restarting.', _AUTOMATIC),
    EndReason.LEASE_LOST: Ending(
        CloseCode.TRY_AGAIN_LATER, 'The console service is unavailable.', _AUTOMATIC
    ),
    EndReason.PROTOCOL_ERROR: Ending(CloseCode.PROTOCOL_ERROR, 'The client violated the protocol.', _BY_USER),
    EndReason.MESSAGE_TOO_BIG: Ending(CloseCode.MESSAGE_TOO_BIG, 'The message is too big.', _BY_USER),
    EndReason.TAKEN_OVER: Ending(CloseCode.TAKEN_OVER, 'Another user has taken over this console.', _BY_USER),
    EndReason.INSTANCE_GONE: Ending(
        CloseCode.CONSOLE_GONE, 'The guest has been deleted or stopped.', Retry.NEVER
    ),
    EndReason.CONSOLE_MOVED: Ending(
        CloseCode.CONSOLE_GONE, 'The console has moved or no longer exists.', Retry.NEVER
    ),
    EndReason.CONSOLE_GONE: Ending(
        CloseCode.CONSOLE_GONE, 'The console has moved or no longer exists.', Retry.NEVER
    ),
}

_REVOKED = Ending(CloseCode.REVOKED, 'Your access to this console was revoked.', Retry.NEVER)
_REVOKED_LABEL = 'revoked'


def ending(reason: str) -> Ending:
    """Return how the user is told of an end reason.

    A reason that is not in the table is one that an operator gave to ``revoke``: it is not shown to the user.
    """
    known = _known(reason)
    return _REVOKED if known is None else ENDINGS[known]


def metric_label(reason: str) -> str:
    """Return the reason as the value of a metric's label; operators' own texts share one value."""
    return _known(reason) or _REVOKED_LABEL


def _known(reason: str) -> EndReason | None:
    try:
        known = EndReason(reason)
    except ValueError:
        return None
    return known if known in ENDINGS else None
