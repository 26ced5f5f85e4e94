# SPDX-License-Identifier: Apache-2.0
"""Bounded clients of python-memcached, for the backends dogpile.cache.memcached and oslo_cache.memcache_pool.

They return values as raw bytes (``RawValue``) and have no unpickler, so that none can be reached if another
version of the library takes other paths.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, Any

import memcache
from oslo_cache import _memcache_pool

from consoled.legacy.bounded_io import PICKLED, UNREADABLE, BoundedSocket, RawValue, ServerHealth, server_hash


def bind(backend: Any, health: ServerHealth) -> None:
    """Make a backend create bounded clients, with its connection pool or without.

    A pool's ``flush_on_reconnect`` is ignored: it would empty a memcached that others use too.
    """
    urls = backend.url  # the functions do not hold the backend, so that it is freed with its last user
    pool = getattr(backend, 'client_pool', None)
    if pool is None:
        backend._create_client = lambda: _Client(urls, health)
    else:
        pool._create_connection = lambda: _PooledClient(urls, health)


class _RawPickler:
    """Replaces pickle.Pickler and pickle.Unpickler in the library, and passes raw bytes through."""

    def __init__(self, file: IO[bytes], protocol: int = 0) -> None:
        self._file = file

    def dump(self, value: RawValue) -> None:
        self._file.write(value.data)

    def load(self) -> RawValue:
        return RawValue(self._file.read())


class _BoundedClient:
    """Mixin of both client classes."""

    def __init__(self, urls: list[str], health: ServerHealth) -> None:
        self._health = health
        super().__init__(  # type: ignore[call-arg]
            urls,
            pickleProtocol=0,
            pickler=_RawPickler,
            unpickler=_RawPickler,
            socket_timeout=health.timeout,
        )

    def set_servers(self, urls: list[str]) -> None:
        super().set_servers(urls)  # type: ignore[misc]
        self.servers = [_Host(url, self._health) for url in urls]
        self._init_buckets()  # type: ignore[attr-defined]

    def get(self, key: str) -> RawValue | None:
        with self._disconnect_on_error():
            found: RawValue | None = super().get(key)  # type: ignore[misc]
            return found

    def get_multi(self, keys: list[str]) -> dict[str, RawValue]:
        with self._disconnect_on_error():
            found: dict[str, RawValue] = super().get_multi(keys)  # type: ignore[misc]
            return found

    def _get_server(self, key: bytes) -> tuple[_Host | None, bytes | None]:
        """Return the server of a key, and the key: the library takes our hash along with it."""
        found: tuple[_Host | None, bytes | None] = super()._get_server(  # type: ignore[misc]
            (server_hash(key), key)
        )
        return found

    def _recv_value(self, server: _Host, flags: int, length: int) -> RawValue:
        data = super()._recv_value(server, 0, length)  # type: ignore[misc]
        return RawValue(data) if flags == PICKLED else UNREADABLE

    @contextlib.contextmanager
    def _disconnect_on_error(self) -> Iterator[None]:
        """Close the connections after an answer that was not understood.

        Otherwise the rest of it would be taken for the answer to the next request.
        """
        try:
            yield
        except Exception:
            self.disconnect_all()  # type: ignore[attr-defined]
            raise


class _Client(_BoundedClient, memcache.Client):  # type: ignore[misc]
    pass


class _PooledClient(_BoundedClient, _memcache_pool._MemcacheClient):  # type: ignore[misc]
    pass


class _Host(memcache._Host):  # type: ignore[misc]
    """One client's connection to a server, which is skipped as ``ServerHealth`` says."""

    socket: Any  # named by python-memcached

    def __init__(self, url: str, health: ServerHealth) -> None:
        self._health = health
        super().__init__(url)

    def _get_socket(self) -> BoundedSocket | None:
        if self._health.is_skipped(str(self.address)):
            return None
        if self.socket is None:
            self.socket_timeout = self._health.operation.timeout(self._health.timeout)
            connected = super()._get_socket()
            if connected is not None:
                self.socket = BoundedSocket(connected, self._health)
        return self.socket

    def mark_dead(self, reason: object) -> None:
        used_before = self.socket is not None and self.socket.used_before
        self.close_socket()
        self._health.report_failure(str(self.address), reason, used_before)
