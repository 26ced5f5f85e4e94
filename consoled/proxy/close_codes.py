# SPDX-License-Identifier: Apache-2.0
"""Why a session ends, and how its user is told: the one table from reasons to websocket close codes. Pure.

Codes below 4000 are those of RFC 6455, section 7.4, and of IANA's registry; the others are consoled's.
"""

from __future__ import annotations

import dataclasses

USER_LEFT = 'user_left'
USER_LOST = 'user_lost'
GUEST_CLOSED = 'guest_closed'
GUEST_STALLED = 'guest_stalled'
TIME_OVER = 'time_over'
IDLE = 'idle'
DRAINED = 'drained'
LEASE_LOST = 'lease_lost'
PROTOCOL_ERROR = 'protocol_error'
TOO_BIG = 'message_too_big'
OPEN_FAILED = 'open_failed'  # it never began


@dataclasses.dataclass(frozen=True)
class Closing:
    """A close code, and what the user reads beside it (at most 123 bytes)."""

    code: int
    text: str


_REVOKED = Closing(4403, 'Your access to this console was taken back.')

_TABLE = {
    USER_LEFT: Closing(1000, ''),
    USER_LOST: Closing(1001, 'No sign of life from you.'),
    GUEST_CLOSED: Closing(1011, 'The guest closed its console.'),
    GUEST_STALLED: Closing(1011, 'The guest takes no more input.'),
    TIME_OVER: Closing(4408, 'The time of this session is over.'),
    IDLE: Closing(4408, 'There was no input for too long.'),
    DRAINED: Closing(1012, 'The console proxy is being restarted.'),
    LEASE_LOST: Closing(1013, 'The console service can not be reached.'),
    PROTOCOL_ERROR: Closing(1002, 'The client broke the protocol.'),
    TOO_BIG: Closing(1009, 'The message is too big.'),
    OPEN_FAILED: Closing(1011, "The guest's console can not be reached."),
    # reasons of the manager
    'taken_over': Closing(4409, 'Somebody else has taken this console over.'),
    'instance_gone': Closing(4404, 'The guest is gone.'),
    'console_moved': Closing(4404, 'The console has moved or is gone.'),
    'console_gone': Closing(4404, 'The console has moved or is gone.'),
}


def closing_of(reason: str) -> Closing:
    """How the user is told of a reason; one that an operator made up is a revocation."""
    return _TABLE.get(reason, _REVOKED)


def label_of(reason: str) -> str:
    """The reason as the value of a metric's label: what operators make up must not make it grow."""
    return reason if reason in _TABLE else 'revoked'
