# SPDX-License-Identifier: Apache-2.0
"""The request context: the user and project of a call, and the request id it is logged under."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from oslo_context import context as oslo_context

_MAX_ID = 255  # characters, as in the database columns
_REQUEST_ID = re.compile(r'req-[A-Za-z0-9-]{1,60}')


def _identity(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_ID else None


class RequestContext(oslo_context.RequestContext):  # type: ignore[misc]  # untyped
    """User, project and request id of a call, without credentials or roles.

    oslo.context keeps it in a thread-local store, where oslo.log finds it: each log line of a request shows
    the request id.
    """

    def to_wire(self) -> dict[str, str | None]:
        """Return what is sent over RPC: ``user_id``, ``project_id``, ``request_id``."""
        return {
            'user_id': self.user_id,
            'project_id': self.project_id,
            'request_id': self.request_id,
        }

    @classmethod
    def from_wire(cls, values: object) -> RequestContext:
        """Build a context from what a peer sent.

        A malformed user or project is left out, since it only labels the call. A missing or malformed request
        id is replaced by a new one.
        """
        known: Mapping[str, Any] = values if isinstance(values, Mapping) else {}
        request_id = known.get('request_id')
        if not (isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id)):
            request_id = None
        return cls(
            user_id=_identity(known.get('user_id')),
            project_id=_identity(known.get('project_id')),
            request_id=request_id,
        )
