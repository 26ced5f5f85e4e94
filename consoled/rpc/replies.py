# SPDX-License-Identifier: Apache-2.0
"""Plain values of the contract that are no versioned objects: replies of managers, and closings.

They are dicts on the wire. Clients read the keys that they know and ignore the rest: a newer manager may send
more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any
from urllib import parse

from consoled import exception, objects
from consoled.rpc import arguments as arg

_SCHEMES = ('http', 'https', 'ws', 'wss')
_COUNT = arg.integer(0, 2**63 - 1)
_LEASE = arg.seconds(86400)
_NAMES = arg.list_of(arg.text(32), 16)
_NOW = arg.text(64)
_CUT = arg.mapping_of(arg.text(64), arg.text(64), 20000)


@dataclasses.dataclass(frozen=True)
class Closing:
    """A session that is over.

    :param reason: an ``EndReason``, or the text that an operator gave
    :param bytes_in: relayed from the user to the guest
    :param bytes_out: relayed from the guest to the user
    """

    session_id: str
    reason: str
    bytes_in: int = 0
    bytes_out: int = 0

    def to_wire(self) -> dict[str, Any]:
        """Return the arguments of ``close_session``."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class LeaseGrant:
    """A lease that was granted to a proxy.

    :param lease: its length in seconds
    :param now: the database's time when it was granted (ISO 8601, UTC)
    """

    lease: float
    now: str

    @classmethod
    def from_wire(cls, reply: Mapping[str, Any]) -> LeaseGrant:
        """Read a reply to ``register_proxy``.

        :raises InternalError: the reply is malformed
        """
        return cls(lease=_read(reply, 'lease', _LEASE), now=_read(reply, 'now', _NOW))


@dataclasses.dataclass(frozen=True)
class LeaseRenewal(LeaseGrant):
    """A lease that was renewed, and the sessions of its proxy to cut.

    :param cut: end reasons by session id
    """

    cut: Mapping[str, str]

    @classmethod
    def from_wire(cls, reply: Mapping[str, Any]) -> LeaseRenewal:
        """Read a reply to ``renew_lease``.

        :raises InternalError: the reply is malformed
        """
        grant = LeaseGrant.from_wire(reply)
        return cls(lease=grant.lease, now=grant.now, cut=_read(reply, 'cut', _CUT))


@dataclasses.dataclass(frozen=True)
class Revocation:
    """Counts of the tokens that were deleted and of the sessions that are cut.

    :param unmatched: sources of tokens that do not record what one of the filters names, so that none of
        their tokens was matched
    """

    tokens: int
    sessions: int
    unmatched: Sequence[str] = ()

    @classmethod
    def from_wire(cls, reply: Mapping[str, Any]) -> Revocation:
        """Read a reply to ``revoke``.

        :raises InternalError: the reply is malformed
        """
        return cls(
            tokens=_read(reply, 'tokens', _COUNT),
            sessions=_read(reply, 'sessions', _COUNT),
            unmatched=tuple(_read({'unmatched': (), **reply}, 'unmatched', _NAMES)),
        )


@dataclasses.dataclass(frozen=True)
class HostChanges:
    """Counts of the instances that a comparison with a compute host retired or changed."""

    retired: int
    changed: int

    def __bool__(self) -> bool:
        return bool(self.retired or self.changed)

    @classmethod
    def from_wire(cls, reply: Mapping[str, Any]) -> HostChanges:
        """Read a reply to ``define_host``.

        :raises InternalError: the reply is malformed
        """
        return cls(retired=_read(reply, 'retired', _COUNT), changed=_read(reply, 'changed', _COUNT))


def grant() -> arg.Argument:
    """A grant, as a peer returns it. Users open its URL in a browser, so its scheme must be one of those."""
    complete = arg.instance_of(objects.ConsoleAuthToken)

    def check(value: object) -> objects.ConsoleAuthToken:
        found: objects.ConsoleAuthToken = complete.check(value)
        if found.access_url is not None and parse.urlsplit(found.access_url).scheme not in _SCHEMES:
            raise ValueError('must have an http(s) or ws(s) URL')
        return found

    return arg.Argument(check)


def _read(reply: object, key: str, argument: arg.Argument) -> Any:
    """Return a value of a reply.

    :raises InternalError: it is missing or malformed
    """
    try:
        return argument.check(reply[key] if isinstance(reply, Mapping) else None)
    except (KeyError, ValueError):
        raise exception.InternalError(f'The reply of the manager is malformed: {key}.') from None
