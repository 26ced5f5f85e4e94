# SPDX-License-Identifier: Apache-2.0
"""A bounded client of pymemcache, for the backend dogpile.cache.pymemcache.

It chooses the server of a key as python-memcached does, because the old service wrote with that: the hash
client of pymemcache would look for most keys on other servers. pymemcache's retrying client
(``[cache] enable_retry_client``) has no bound and is not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pymemcache.client import base

from consoled.legacy.bounded_io import (
    PICKLED,
    UNREADABLE,
    BoundedSocket,
    OutOfTime,
    RawValue,
    ServerHealth,
    server_hash,
)

T = TypeVar('T')
_MAX_CANDIDATES = 10  # servers that python-memcached tries for a key


def bind(backend: Any, health: ServerHealth) -> None:
    """Make a backend create bounded clients."""
    arguments = {
        'serde': _RawSerde(),
        'default_noreply': False,
        'socket_keepalive': backend.socket_keepalive,
        'tls_context': backend.tls_context,
    }
    urls = backend.url  # the function does not hold the backend, so that it is freed with its last user
    backend._create_client = lambda: _Client([_Server(url, health, arguments) for url in urls], health)


class _RawSerde:
    """Replaces pymemcache's pickles, and passes raw bytes through."""

    def serialize(self, key: str, value: RawValue) -> tuple[bytes, int]:
        return value.data, PICKLED

    def deserialize(self, key: str, value: bytes, flags: int) -> RawValue:
        return RawValue(value) if flags == PICKLED else UNREADABLE


class _Server(base.Client):  # type: ignore[misc]
    """The connection to one server."""

    sock: Any  # named by pymemcache

    def __init__(self, url: str, health: ServerHealth, arguments: dict[str, Any]) -> None:
        self._health = health
        # python-memcached allows a prefix that says which address family to use.
        super().__init__(re.sub('^inet6?:', '', url), **arguments)

    @property
    def name(self) -> str:
        return str(self.server)

    def _connect(self) -> None:
        self.connect_timeout = self.timeout = self._health.operation.timeout(self._health.timeout)
        super()._connect()
        self.sock = BoundedSocket(self.sock, self._health)


class _Client:
    """A client of several servers, with the methods that dogpile's backend calls."""

    def __init__(self, servers: list[_Server], health: ServerHealth) -> None:
        self._servers = servers
        self._health = health

    def get(self, key: str) -> RawValue | None:
        found: RawValue | None = self._on_server(key, lambda server: server.get(key), None)
        return found

    def get_multi(self, keys: Iterable[str]) -> dict[str, RawValue]:
        found = {key: self.get(key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    def set(self, key: str, value: RawValue, **arguments: Any) -> bool:
        return self._on_server(key, lambda server: bool(server.set(key, value, **arguments)), False)

    def delete(self, key: str) -> None:
        self._on_server(key, lambda server: server.delete(key), None)

    def delete_multi(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def _on_server(self, key: str, call: Callable[[_Server], T], otherwise: T) -> T:
        for server in self._candidates(key):
            if self._health.is_skipped(server.name):
                continue
            used_before = server.sock is not None
            try:
                return call(server)
            except OutOfTime:
                raise
            except Exception as exc:  # the system's, pymemcache's, or any on an answer that makes no sense
                self._health.report_failure(server.name, exc, used_before)
                if self._health.operation.stale:
                    break
        return otherwise

    def _candidates(self, key: str) -> Iterable[_Server]:
        """Yield the servers of a key in the order in which python-memcached tries them."""
        hashed = server_hash(key.encode())
        for number in range(_MAX_CANDIDATES):
            yield self._servers[hashed % len(self._servers)]
            hashed = server_hash(f'{hashed}{number}'.encode())
