# SPDX-License-Identifier: Apache-2.0
"""HTTP responses: pages, and refusals built from domain errors by their ``http_status``."""

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

_RETRY_AFTER = 5  # seconds, unless the error has its own

_EXTRA_HEADERS = {
    405: [('Allow', 'GET, HEAD')],
    426: [('Upgrade', 'websocket'), ('Connection', 'Upgrade'), ('Sec-WebSocket-Version', '13')],
}


def refusal(error: exception.ConsoledException, *, as_json: bool) -> tuple[h11.Response, bytes]:
    """Return head and body of the response that says why: JSON for a program, a small page for a user."""
    reason = str(error)
    if as_json:
        content_type, body = pages.JSON, pages.refusal_json(error.code, reason, error.retryable)
    else:
        content_type, body = pages.HTML, pages.refusal_page(error.http_status, error.code, reason)
    headers = [
        ('Content-Type', content_type),
        *pages.REFUSAL_HEADERS,
        *_EXTRA_HEADERS.get(error.http_status, []),
    ]
    if error.retryable:
        headers.append(('Retry-After', str(math.ceil(error.kwargs.get('seconds', _RETRY_AFTER)))))
    return response(error.http_status, headers, len(body)), body


def page(found: pages.Page) -> tuple[h11.Response, bytes]:
    """Return head and body of the response with a page."""
    return response(found.status, found.headers, len(found.body)), found.body


def response(
    status: int, headers: list[tuple[str, str]] | tuple[tuple[str, str], ...], length: int
) -> h11.Response:
    """Return the head of a response.

    :param length: of the body, in bytes
    """
    common = [('Date', formatdate(usegmt=True))]
    if status != HTTPStatus.NOT_MODIFIED:  # its length would have to be the page's (RFC 9110, section 8.6)
        common.append(('Content-Length', str(length)))
    return h11.Response(status_code=status, reason=HTTPStatus(status).phrase, headers=[*headers, *common])


class RecentRefusals:
    """Recent refusals by token.

    A browser hides the response that refused a websocket from the page that opened it, so the page asks for
    the reason with an ordinary request.

    :param keep: seconds for which a refusal is remembered
    :param limit: refusals remembered
    """

    def __init__(self, keep: float = 60.0, limit: int = 10000) -> None:
        self._keep = keep
        self._limit = limit
        self._recent: collections.OrderedDict[str, tuple[float, exception.ConsoledException]] = (
            collections.OrderedDict()
        )

    def note(self, token: str, error: exception.ConsoledException, now: float) -> None:
        """Remember a refusal."""
        # A copy has no traceback, which would keep the connection alive and, with it, the clear token.
        self._recent[tokens.hashed(token)] = (now, copy.copy(error))
        self._recent.move_to_end(tokens.hashed(token))
        while len(self._recent) > self._limit:
            self._recent.popitem(last=False)

    def recent(self, token: str, now: float) -> exception.ConsoledException | None:
        """Return the last refusal of this token, or None if there was none recently."""
        refused_at, error = self._recent.get(tokens.hashed(token), (-math.inf, None))
        return error if now - refused_at <= self._keep else None
