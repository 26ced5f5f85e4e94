# SPDX-License-Identifier: Apache-2.0
"""Bounded clients of python-memcached, for the backends dogpile.cache.memcached and oslo_cache.memcache_pool.

What a value holds comes out as it is (``Stored``): the library's arguments for pickling and compressing are
used for that, so that with an unexpected version of it no client is made rather than one that unpickles.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, Any

import memcache
from oslo_cache import _memcache_pool

from consoled.legacy.bounds import FOREIGN, BoundedSocket, Servers, Stored


def bind(backend: Any, servers: Servers) -> None:
    """Make a backend create bounded clients, with its pool or without.

    A pool's ``flush_on_reconnect`` is not handed on: it would empty a memcached that belongs to others.
    """
    pool = getattr(backend, 'client_pool', None)
    if pool is None:
        backend._create_client = lambda: _Client(backend.url, servers)
    else:
        pool._create_connection = lambda: _PooledClient(pool.urls, servers)


class _Verbatim:
    """In the place of pickle.Pickler and pickle.Unpickler: the bytes are made and read elsewhere."""

    def __init__(self, file: IO[bytes], protocol: int = 0) -> None:
        self._file = file

    def dump(self, value: Stored) -> None:
        self._file.write(value.data)

    def load(self) -> Stored:
        return Stored(self._file.read())


def _not_decompressed(data: bytes) -> bytes:
    return b''


class _Bounded:
    """What both classes of clients have in common."""

    def __init__(self, urls: list[str], servers: Servers) -> None:
        self._shared = servers
        super().__init__(  # type: ignore[call-arg]
            urls,
            pickleProtocol=0,
            pickler=_Verbatim,
            unpickler=_Verbatim,
            decompressor=_not_decompressed,
            socket_timeout=servers.timeout,
        )

    def set_servers(self, urls: list[str]) -> None:
        super().set_servers(urls)  # type: ignore[misc]
        self.servers = [_Host(url, self._shared) for url in urls]
        self._init_buckets()  # type: ignore[attr-defined]

    def get(self, key: str) -> Stored | None:
        with self._in_step():
            return _own(super().get(key))  # type: ignore[misc]

    def get_multi(self, keys: list[str]) -> dict[str, Stored | None]:
        with self._in_step():
            return {key: _own(value) for key, value in super().get_multi(keys).items()}  # type: ignore[misc]

    @contextlib.contextmanager
    def _in_step(self) -> Iterator[None]:
        """After an answer that was not understood, the next one would be taken for that to another question."""
        try:
            yield
        except Exception:
            self.disconnect_all()  # type: ignore[attr-defined]
            raise


def _own(found: object) -> Stored | None:
    return found if found is None or isinstance(found, Stored) else FOREIGN


class _Client(_Bounded, memcache.Client):  # type: ignore[misc]
    pass


class _PooledClient(_Bounded, _memcache_pool._MemcacheClient):  # type: ignore[misc]
    pass


class _Host(memcache._Host):  # type: ignore[misc]
    """One server, as a client sees it; whether it is left alone is known to all clients."""

    def __init__(self, url: str, servers: Servers) -> None:
        self._shared = servers
        super().__init__(url)

    def _get_socket(self) -> BoundedSocket | None:
        if self._shared.skipped(str(self.address)):
            return None
        if self.socket is None:
            self.socket_timeout = self._shared.attempt.seconds(self._shared.timeout)
            if super()._get_socket() is not None:
                self.socket = BoundedSocket(self.socket, self._shared)
        return self.socket

    def mark_dead(self, reason: object) -> None:
        used_before = self.socket is not None and self.socket.used_before
        self.close_socket()
        self._shared.failed(str(self.address), reason, used_before)
