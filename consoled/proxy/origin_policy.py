# SPDX-License-Identifier: Apache-2.0
"""Which web pages may open consoles, and embed the pages of consoles. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from consoled import exception
from consoled.proxy import origin as origins
from consoled.proxy.forwarded import Client

_Parsed = TypeVar('_Parsed')


@dataclasses.dataclass(frozen=True)
class WebPage:
    """The web page that makes a request, according to its Origin header.

    :ivar origin: None if no page makes it, or one with the origin ``null`` that is allowed
    :ivar accepted: whether its origin is the proxy's own, or an allowed one. Otherwise it has to match the
        console's access URL
    :ivar by_host: whether only the host names have to match
    :ivar plain: whether it was loaded without TLS, so that the access URL must not have TLS
    """

    origin: origins.Origin | None = None
    accepted: bool = True
    by_host: bool = False
    plain: bool = False

    @property
    def needs_access_url(self) -> bool:
        """Whether ``check_access_url`` may refuse the page."""
        return self.plain or not self.accepted

    def check_access_url(self, access_url_base: str | None) -> None:
        """Check the page against the console's access URL; it is the last check.

        :raises OriginRefused: the page may not open this console
        """
        expected = None if access_url_base is None else origins.parse_url(access_url_base)
        if not (self.accepted or self._matches(expected)):
            raise exception.OriginRefused()
        if self.plain and expected is not None and expected.scheme == 'https':
            raise exception.OriginRefused()

    def _matches(self, expected: origins.Origin | None) -> bool:
        if expected is None or self.origin is None:
            return False
        return self.origin.host == expected.host if self.by_host else self.origin == expected


@dataclasses.dataclass(frozen=True)
class OriginPolicy:
    """Origins of the web pages that may open consoles, in addition to the proxy's own.

    :ivar allowed: origins
    :ivar null: whether pages with the origin ``null`` may, too (a local file, for example)
    :ivar allowed_hosts: None, or host names: then only host names are compared, as in Nova's proxies
    """

    allowed: frozenset[origins.Origin] = frozenset()
    null: bool = False
    allowed_hosts: frozenset[str] | None = None

    @classmethod
    def from_options(cls, allowed_origins: Sequence[str], match_origin_by_host: bool) -> OriginPolicy:
        """Build a policy from the values of the options of these names.

        :raises ValueError: an origin is malformed
        """
        texts = [text for text in allowed_origins if text != 'null']
        null = 'null' in allowed_origins
        if match_origin_by_host:
            hosts = _parse_all(texts, origins.parse_host_name, 'a host name such as dashboard.example.org')
            return cls(null=null, allowed_hosts=hosts)
        return cls(_parse_all(texts, origins.parse_header, 'an origin such as https://host:port'), null)

    def identify(self, value: str | None, client: Client) -> WebPage:
        """Return the web page that makes a request.

        :param value: of the Origin header; None without one: then it is not a browser (RFC 6455, 10.2)
        :raises OriginRefused: it is malformed, or ``null`` where that is not allowed
        """
        if value is None or (value == 'null' and self.null):
            return WebPage()
        origin = origins.parse_header(value)
        if origin is None:
            raise exception.OriginRefused()
        own = origins.parse_host(client.scheme, client.host)
        if self.allowed_hosts is not None:
            scheme = client.forwarded_scheme or origin.scheme  # Nova's proxies prefer it, too
            accepted = origin.host in self.allowed_hosts or (own is not None and origin.host == own.host)
            return WebPage(origin, accepted, by_host=True, plain=scheme == 'http')
        if origin in self.allowed:  # whatever its scheme: the operator has named it
            return WebPage(origin)
        return WebPage(origin, accepted=origin == own, plain=origin.scheme == 'http')

    def embedders(self, client: Client) -> tuple[str, ...]:
        """Return the hosts whose pages may embed the console's, at any port: those that may open consoles."""
        if self.allowed_hosts is None:
            return ()
        own = origins.parse_host(client.scheme, client.host)
        return tuple(sorted(self.allowed_hosts | ({own.host} if own is not None else set())))


def _parse_all(
    texts: Sequence[str], parse_one: Callable[[str], _Parsed | None], expected: str
) -> frozenset[_Parsed]:
    """Parse the values of ``allowed_origins``.

    :raises ValueError: one is malformed
    """
    parsed = {text: parse_one(text) for text in texts}
    for text, value in parsed.items():
        if value is None:
            raise ValueError(f'[proxy] allowed_origins: {text!r} is not {expected}')
    return frozenset(value for value in parsed.values() if value is not None)
