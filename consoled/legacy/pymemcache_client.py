# SPDX-License-Identifier: Apache-2.0
"""A bounded client of pymemcache, for the backend dogpile.cache.pymemcache.

It chooses the server of a key as python-memcached does, since that is what the old service wrote with:
pymemcache's own hash client would look for most keys on another server. Its retrying client
(``[cache] enable_retry_client``) has no bound and is not used.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pymemcache.client import base

from consoled.legacy.bounds import FOREIGN, PICKLED, BoundedSocket, Exhausted, Servers, Stored

T = TypeVar('T')
_RETRIES = 10  # how often python-memcached looks for another server


def bind(backend: Any, servers: Servers) -> None:
    """Make a backend create bounded clients."""
    arguments = {
        'serde': _Verbatim(),
        'default_noreply': False,
        'socket_keepalive': backend.socket_keepalive,
        'tls_context': backend.tls_context,
    }
    urls = backend.url  # the function doesn't hold the backend, so that it goes with its last user
    backend._create_client = lambda: _Client([_Server(url, servers, arguments) for url in urls], servers)


class _Verbatim:
    """In the place of pymemcache's pickles: the bytes are made and read elsewhere."""

    def serialize(self, key: str, value: Stored) -> tuple[bytes, int]:
        return value.data, PICKLED

    def deserialize(self, key: str, value: bytes, flags: int) -> Stored:
        return Stored(value) if flags == PICKLED else FOREIGN


class _Server(base.Client):  # type: ignore[misc]
    """The connection to one server."""

    sock: Any  # named by pymemcache

    def __init__(self, url: str, servers: Servers, arguments: dict[str, Any]) -> None:
        self._shared = servers
        super().__init__(re.sub('^inet6?:', '', url), **arguments)  # python-memcached's way of writing it

    @property
    def name(self) -> str:
        return str(self.server)

    def _connect(self) -> None:
        self.connect_timeout = self.timeout = self._shared.attempt.seconds(self._shared.timeout)
        super()._connect()
        self.sock = BoundedSocket(self.sock, self._shared)


class _Client:
    """What dogpile's backend uses of a client."""

    def __init__(self, connections: list[_Server], servers: Servers) -> None:
        self._servers = connections
        self._shared = servers

    def get(self, key: str) -> Stored | None:
        found: Stored | None = self._on_server(key, lambda server: server.get(key), None)
        return found

    def get_multi(self, keys: Iterable[str]) -> dict[str, Stored]:
        found = {key: self.get(key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    def set(self, key: str, value: Stored, **arguments: Any) -> bool:
        return self._on_server(key, lambda server: bool(server.set(key, value, **arguments)), False)

    def delete(self, key: str) -> None:
        self._on_server(key, lambda server: server.delete(key), None)

    def delete_multi(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def _on_server(self, key: str, call: Callable[[_Server], T], otherwise: T) -> T:
        for server in self._candidates(key):
            if self._shared.skipped(server.name):
                continue
            used_before = server.sock is not None
            try:
                return call(server)
            except Exhausted:
                raise
            except Exception as exc:  # of the system, of pymemcache, of Python on an answer without sense
                self._shared.failed(server.name, exc, used_before)
                if self._shared.attempt.stale:
                    break
        return otherwise

    def _candidates(self, key: str) -> Iterable[_Server]:
        """The servers of a key as python-memcached chooses them, each while those before are away."""
        hashed = _hash(key.encode())
        for number in range(_RETRIES):
            yield self._servers[hashed % len(self._servers)]
            hashed = _hash(f'{hashed}{number}'.encode())


def _hash(text: bytes) -> int:
    return zlib.crc32(text) >> 16 & 0x7FFF
