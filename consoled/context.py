# SPDX-License-Identifier: Apache-2.0
"""The request context: the user and project of a call, and the request ids it is logged under."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from oslo_context import context as oslo_context

_MAX_ID = 255  # characters, as in the database columns
_REQUEST_ID = re.compile(r'req-[A-Za-z0-9-]{1,60}')


def _identity(value: object) -> str | None:
    """Return a user or project that the database and the wire objects take; None for anything else."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_ID:
        return None
    return value if value.isprintable() and value == value.strip() else None


def _request_id(value: object) -> str | None:
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else None


# What is read of a context that others wrote: the names of each value, of which the first good one counts,
# and its check. consoled and Nova write user_id and project_id; oslo.context writes user and project, and
# tenant before its release 4.0; Neutron writes tenant_id.
_READ: dict[str, tuple[tuple[str, ...], Callable[[object], str | None]]] = {
    'user_id': (('user_id', 'user'), _identity),
    'project_id': (('project_id', 'project', 'tenant_id', 'tenant'), _identity),
    'request_id': (('request_id',), _request_id),
    'global_request_id': (('global_request_id',), _request_id),
}


def read(context: object) -> dict[str, str | None]:
    """Return user, project and request ids of a context, as the arguments of ``RequestContext``.

    What is malformed is None: it only labels the call.

    :param context: a context of oslo.context or of a subclass, the dict that its ``to_dict`` returns, or
        whatever else a peer may send
    """
    known: Mapping[str, Any] = context if isinstance(context, Mapping) else {}
    if isinstance(context, oslo_context.RequestContext):
        known = {name: getattr(context, name) for name in _READ}
    return {
        name: next((good for key in keys if (good := check(known.get(key))) is not None), None)
        for name, (keys, check) in _READ.items()
    }


def wire_form(context: object) -> dict[str, str | None]:
    """Return what is sent over RPC of a context of this or another service.

    A global request id is there only if there is one.
    """
    values = read(context)
    if values['global_request_id'] is None:
        del values['global_request_id']
    return values


class RequestContext(oslo_context.RequestContext):  # type: ignore[misc]  # untyped
    """User, project and request ids of a call, without credentials or roles.

    oslo.context keeps it in a thread-local store, where oslo.log finds it: each log line of a request shows
    the request ids.
    """

    def to_wire(self) -> dict[str, str | None]:
        """Return what is sent over RPC."""
        return wire_form(self)

    @classmethod
    def from_wire(cls, values: object) -> RequestContext:
        """Build a context from what a peer sent.

        A malformed user, project or global request id is left out. A missing or malformed request id is
        replaced by a new one.
        """
        return cls(**read(values))
