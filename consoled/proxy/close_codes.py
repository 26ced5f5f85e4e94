# SPDX-License-Identifier: Apache-2.0
"""Tables of websocket close codes and end reasons, with the texts that users see.

Codes below 4000 are defined by RFC 6455, section 7.4.1, and by IANA's registry of close codes. The others are
consoled's own.
"""

from __future__ import annotations

import dataclasses
import enum

from consoled.objects.reasons import EndReason


class CloseCode(enum.IntEnum):
    """Close codes that the proxy sends. Pages and other clients depend on them: they never change."""

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
    """Advice to a client on opening the console again, with the same access URL or a new one."""

    NEVER = 'never'  # it would be refused
    BY_USER = 'by_user'  # only if the user asks for it
    AUTOMATIC = 'automatic'  # a program may do it on its own


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Meaning of a close code, for a client that has only the code.

    :ivar name: stable name, for programs
    :ivar text: explanation, for users
    """

    name: str
    text: str
    retry: Retry


EXPLANATIONS = {
    CloseCode.NORMAL_CLOSURE: Explanation('closed', 'The console was closed.', Retry.BY_USER),
    CloseCode.GOING_AWAY: Explanation('connection_lost', 'The connection timed out.', Retry.AUTOMATIC),
    CloseCode.PROTOCOL_ERROR: Explanation(
        'protocol_error', 'The connection was closed because of a protocol error.', Retry.BY_USER
    ),
    CloseCode.MESSAGE_TOO_BIG: Explanation(
        'message_too_big', 'The connection was closed because a message was too big.', Retry.BY_USER
    ),
    CloseCode.INTERNAL_ERROR: Explanation(
        'console_ended', 'The guest closed its console, or the console failed.', Retry.AUTOMATIC
    ),
    CloseCode.SERVICE_RESTART: Explanation(
        'proxy_restart', 'The console proxy is restarting.', Retry.AUTOMATIC
    ),
    CloseCode.TRY_AGAIN_LATER: Explanation(
        'try_later', 'The console service is unavailable. Try again later.', Retry.AUTOMATIC
    ),
    CloseCode.INVALID_TOKEN: Explanation(
        'invalid_token', 'The console token is not valid or has expired.', Retry.NEVER
    ),
    CloseCode.REVOKED: Explanation('revoked', 'Your access to this console was revoked.', Retry.NEVER),
    CloseCode.CONSOLE_GONE: Explanation(
        'console_gone', 'The console has moved or no longer exists.', Retry.NEVER
    ),
    CloseCode.SESSION_EXPIRED: Explanation('session_over', 'The session has expired.', Retry.BY_USER),
    CloseCode.TAKEN_OVER: Explanation(
        'taken_over', 'Another user has taken over this console.', Retry.BY_USER
    ),
}


@dataclasses.dataclass(frozen=True)
class Ending:
    """Close code and text that a user is sent when a session ends.

    :ivar text: text of the close frame; 123 bytes at most (RFC 6455, section 5.5.1)
    """

    code: CloseCode
    text: str

    @property
    def retry(self) -> Retry:
        """Advice on opening the console again."""
        return EXPLANATIONS[self.code].retry


ENDINGS = {
    EndReason.USER_LEFT: Ending(CloseCode.NORMAL_CLOSURE, ''),
    EndReason.USER_LOST: Ending(
        CloseCode.GOING_AWAY, 'The connection timed out: no response from the browser.'
    ),
    EndReason.GUEST_CLOSED: Ending(CloseCode.INTERNAL_ERROR, 'The guest closed its console.'),
    EndReason.GUEST_STALLED: Ending(CloseCode.INTERNAL_ERROR, 'The guest stopped accepting input.'),
    EndReason.OPEN_FAILED: Ending(CloseCode.INTERNAL_ERROR, "The guest's console cannot be reached."),
    EndReason.TIME_OVER: Ending(CloseCode.SESSION_EXPIRED, 'The session has expired.'),
    EndReason.IDLE: Ending(CloseCode.SESSION_EXPIRED, 'The session was closed because it was idle.'),
    EndReason.DRAINED: Ending(CloseCode.SERVICE_RESTART, 'The console proxy is restarting.'),
    EndReason.LEASE_LOST: Ending(CloseCode.TRY_AGAIN_LATER, 'The console service is unavailable.'),
    EndReason.PROTOCOL_ERROR: Ending(CloseCode.PROTOCOL_ERROR, 'The client violated the protocol.'),
    EndReason.MESSAGE_TOO_BIG: Ending(CloseCode.MESSAGE_TOO_BIG, 'The message is too big.'),
    EndReason.TAKEN_OVER: Ending(CloseCode.TAKEN_OVER, 'Another user has taken over this console.'),
    EndReason.INSTANCE_GONE: Ending(CloseCode.CONSOLE_GONE, 'The guest has been deleted or stopped.'),
    EndReason.CONSOLE_MOVED: Ending(CloseCode.CONSOLE_GONE, 'The console has moved or no longer exists.'),
    EndReason.CONSOLE_GONE: Ending(CloseCode.CONSOLE_GONE, 'The console has moved or no longer exists.'),
}

_REVOKED = Ending(CloseCode.REVOKED, EXPLANATIONS[CloseCode.REVOKED].text)
_REVOKED_LABEL = 'revoked'


def ending(reason: str) -> Ending:
    """Return the close code and text for an end reason.

    A reason that is not in the table was given to ``revoke`` by an operator, and is not shown to the user.
    """
    known = _known(reason)
    return _REVOKED if known is None else ENDINGS[known]


def metric_label(reason: str) -> str:
    """Return the value of a metric's label for an end reason. Reasons given by operators share one value."""
    return _known(reason) or _REVOKED_LABEL


def _known(reason: str) -> EndReason | None:
    try:
        known = EndReason(reason)
    except ValueError:
        return None
    return known if known in ENDINGS else None
