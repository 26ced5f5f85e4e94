# SPDX-License-Identifier: Apache-2.0
"""Content-Security-Policy headers (CSP Level 3). No I/O."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from html.parser import HTMLParser

_HOST = re.compile(r'[A-Za-z0-9._-]+')
_SOURCE = re.compile(r'[!-+\--:<-~]+')  # printable, without the separators , and ;


def is_source(text: str) -> bool:
    """Return whether a text can be a source in a policy, without ending its directive."""
    return _SOURCE.fullmatch(text) is not None


def page_policy(body: bytes, frame_ancestors: str) -> str:
    """Return the policy of an HTML page: resources of the same origin, and its own inline code only.

    ``connect-src 'self'`` allows the websocket on the same host and port. It blocks the others that noVNC's
    own pages would take from the query string. ``frame-ancestors`` comes last: see ``with_ancestors``.

    :param frame_ancestors: sources that may embed the page, separated by blanks
    """
    inline = _InlineCode(body)
    return '; '.join(
        (
            "default-src 'none'",
            ' '.join(("script-src 'self'", *hash_sources(inline.texts['script']))),
            ' '.join(("style-src 'self'", *hash_sources(inline.texts['style']))),
            "img-src 'self' data: blob:",
            "font-src 'self'",
            "media-src 'self' data: blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            f'frame-ancestors {frame_ancestors}',
        )
    )


def with_ancestors(policy: str, scheme: str, hosts: Iterable[str]) -> str:
    """Return a page's policy that lets pages of these hosts embed it, too, at any port of theirs.

    A policy that lets nobody embed it stays as it is. IPv6 addresses are left out: CSP cannot express them.

    :param scheme: ``http`` (which includes ``https``), or ``https``
    """
    _, directive, sources = policy.rpartition('frame-ancestors ')
    if not directive or sources == "'none'":
        return policy
    return ' '.join((policy, *(f'{scheme}://{host}:*' for host in hosts if _HOST.fullmatch(host))))


def hash_sources(texts: Iterable[str]) -> list[str]:
    """Return the sources that allow these inline scripts or styles."""
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]


class _InlineCode(HTMLParser):
    """Collects the inline scripts and styles of a page, as a browser sees them."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {'script': [], 'style': []}
        self._open: list[str] | None = None
        # parsers normalize newlines first (HTML standard, preprocessing the input stream)
        self.feed(body.decode('utf-8-sig').replace('\r\n', '\n').replace('\r', '\n'))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = None
        if tag in self.texts and 'src' not in dict(attrs):
            self._open = self.texts[tag]
            self._open.append('')

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open[-1] += data
