# SPDX-License-Identifier: Apache-2.0
"""HTTP responses: pages, and refusals built from domain errors by their ``http_status``."""

from __future__ import annotations

import math
from email.utils import formatdate
from http import HTTPStatus

import h11

from consoled import exception
from consoled.proxy import pages

_RETRY_AFTER = 5  # seconds, unless the error has its own
_MAX_RETRY_AFTER = 10**6  # seconds

_EXTRA_HEADERS = {
    405: [('Allow', 'GET, HEAD')],
    426: [('Upgrade', 'websocket'), ('Sec-WebSocket-Version', '13')],
}


def refusal(
    error: exception.ConsoledException, *, as_json: bool, for_websocket: bool = False, closing: bool = False
) -> tuple[h11.Response, bytes]:
    """Return head and body of the response that says why: JSON for a program, a small page for a user.

    The refusal of a websocket ends its connection, and has no body unless a program asked for JSON: simple
    clients (Tempest's, for example) take whatever follows the head for frames of the websocket.

    :param closing: whether the connection ends for another reason
    """
    reason = str(error)
    headers = [*pages.REFUSAL_HEADERS, *_EXTRA_HEADERS.get(error.http_status, [])]
    body = b''
    if as_json:
        extra = {name: error.kwargs[name] for name in error.extra if name in error.kwargs}
        body = pages.refusal_json(error.code, reason, error.retryable, extra)
        headers.append(('Content-Type', pages.JSON))
    elif not for_websocket:
        body = pages.refusal_page(error.http_status, error.code, reason)
        headers.append(('Content-Type', pages.HTML))
    upgrade = error.http_status == HTTPStatus.UPGRADE_REQUIRED
    options = ['Upgrade'] * upgrade + ['close'] * (for_websocket or closing)
    if options:
        headers.append(('Connection', ', '.join(options)))
    if error.retryable:
        headers.append(('Retry-After', str(_retry_after(error))))
    return response(error.http_status, headers, len(body)), body


def _retry_after(error: exception.ConsoledException) -> int:
    seconds = error.kwargs.get('seconds')
    # The comparison does not hold for NaN.
    if isinstance(seconds, int | float) and 0 < seconds <= _MAX_RETRY_AFTER:
        return math.ceil(seconds)
    return _RETRY_AFTER


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
