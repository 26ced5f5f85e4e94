# SPDX-License-Identifier: Apache-2.0
"""From an error of the domain to an HTTP answer: the one table is the errors' own ``http_status``."""

from __future__ import annotations

import collections
import copy
import math
from email.utils import formatdate
from http import HTTPStatus

import h11

from consoled import exception
from consoled import token as tokens
from consoled.proxy import pages

_RETRY_AFTER = 5  # seconds, where the error does not know better

_MORE_HEADERS = {
    405: [('Allow', 'GET, HEAD')],
    426: [('Upgrade', 'websocket'), ('Connection', 'Upgrade'), ('Sec-WebSocket-Version', '13')],
}


def refusal(error: exception.ConsoledException, *, as_json: bool) -> tuple[h11.Response, bytes]:
    """The answer that says why not; a program gets JSON, a user a small page."""
    reason = str(error)
    if as_json:
        kind, body = 'application/json', pages.refusal_json(error.code, reason, error.retryable)
    else:
        kind, body = 'text/html; charset=utf-8', pages.refusal_page(error.http_status, error.code, reason)
    headers = [('Content-Type', kind), *pages.REFUSAL_HEADERS, *_MORE_HEADERS.get(error.http_status, [])]
    if error.retryable:
        headers.append(('Retry-After', str(math.ceil(error.kwargs.get('seconds', _RETRY_AFTER)))))
    return response(error.http_status, headers, len(body)), body


def page(found: pages.Page) -> tuple[h11.Response, bytes]:
    """The answer with a page."""
    return response(found.status, found.headers, len(found.body)), found.body


def response(
    status: int, headers: list[tuple[str, str]] | tuple[tuple[str, str], ...], length: int
) -> h11.Response:
    """A response's head."""
    fixed = [('Date', formatdate(usegmt=True))]
    if status != HTTPStatus.NOT_MODIFIED:
        fixed.append(('Content-Length', str(length)))
    return h11.Response(status_code=status, reason=HTTPStatus(status).phrase, headers=[*headers, *fixed])


class RecentRefusals:
    """What was refused lately, by token.

    A browser does not let a page read the answer that refused its websocket. The page asks for it again by
    an ordinary request.

    :param keep: seconds
    :param limit: refusals remembered at most
    """

    def __init__(self, keep: float = 60.0, limit: int = 10000) -> None:
        self._keep = keep
        self._limit = limit
        self._recent: collections.OrderedDict[str, tuple[float, exception.ConsoledException]] = (
            collections.OrderedDict()
        )

    def note(self, token: str, error: exception.ConsoledException, now: float) -> None:
        """Remember a refusal."""
        # a copy has no traceback, which would keep the connection, and its token in clear
        self._recent[tokens.hashed(token)] = (now, copy.copy(error))
        self._recent.move_to_end(tokens.hashed(token))
        while len(self._recent) > self._limit:
            self._recent.popitem(last=False)

    def recent(self, token: str, now: float) -> exception.ConsoledException | None:
        """The last refusal of this token, if it was lately."""
        then, error = self._recent.get(tokens.hashed(token), (-math.inf, None))
        return error if now - then <= self._keep else None
