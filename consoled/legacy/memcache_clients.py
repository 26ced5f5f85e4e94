# SPDX-License-Identifier: Apache-2.0
"""Bounded clients of python-memcached, for the backends dogpile.cache.memcached and oslo_cache.memcache_pool.

What a value holds comes out as it is (``Stored``): the library is told that it is bare bytes. It has no
unpickler either, so that none is reached if another version of it goes other ways.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, Any

import memcache
from oslo_cache import _memcache_pool

from consoled.legacy.bounds import FOREIGN, PICKLED, BoundedSocket, Servers, Stored


def bind(backend: Any, servers: Servers) -> None:
    """Make a backend create bounded clients, with its pool or without.

    A pool's ``flush_on_reconnect`` is not handed on: it would empty a memcached that belongs to others.
    """
    urls = backend.url  # the functions don't hold the backend, so that it goes with its last user
    pool = getattr(backend, 'client_pool', None)
    if pool is None:
        backend._create_client = lambda: _Client(urls, servers)
    else:
        pool._create_connection = lambda: _PooledClient(urls, servers)


class _Verbatim:
    """In the place of pickle.Pickler and pickle.Unpickler: the bytes are made and read elsewhere."""

    def __init__(self, file: IO[bytes], protocol: int = 0) -> None:
        self._file = file

    def dump(self, value: Stored) -> None:
        self._file.write(value.data)

    def load(self) -> Stored:
        return Stored(self._file.read())


class _Bounded:
    """What both classes of clients have in common."""

    def __init__(self, urls: list[str], servers: Servers) -> None:
        self._shared = servers
        super().__init__(  # type: ignore[call-arg]
            urls,
            pickleProtocol=0,
            pickler=_Verbatim,
            unpickler=_Verbatim,
            socket_timeout=servers.timeout,
        )

    def set_servers(self, urls: list[str]) -> None:
        super().set_servers(urls)  # type: ignore[misc]
        self.servers = [_Host(url, self._shared) for url in urls]
        self._init_buckets()  # type: ignore[attr-defined]

    def get(self, key: str) -> Stored | None:
        with self._in_step():
            found: Stored | None = super().get(key)  # type: ignore[misc]
            return found

    def get_multi(self, keys: list[str]) -> dict[str, Stored]:
        with self._in_step():
            found: dict[str, Stored] = super().get_multi(keys)  # type: ignore[misc]
            return found

    def _recv_value(self, server: _Host, flags: int, length: int) -> Stored:
        data = super()._recv_value(server, 0, length)  # type: ignore[misc]
        return Stored(data) if flags == PICKLED else FOREIGN

    @contextlib.contextmanager
    def _in_step(self) -> Iterator[None]:
        """After an answer that was not understood, the next would be taken for that to another question."""
        try:
            yield
        except Exception:
            self.disconnect_all()  # type: ignore[attr-defined]
            raise


class _Client(_Bounded, memcache.Client):  # type: ignore[misc]
    pass


class _PooledClient(_Bounded, _memcache_pool._MemcacheClient):  # type: ignore[misc]
    pass


class _Host(memcache._Host):  # type: ignore[misc]
    """One server, as a client sees it; whether it is left alone is known to all clients."""

    socket: Any  # named by python-memcached

    def __init__(self, url: str, servers: Servers) -> None:
        self._shared = servers
        super().__init__(url)

    def _get_socket(self) -> BoundedSocket | None:
        if self._shared.skipped(str(self.address)):
            return None
        if self.socket is None:
            self.socket_timeout = self._shared.attempt.seconds(self._shared.timeout)
            connected = super()._get_socket()
            if connected is not None:
                self.socket = BoundedSocket(connected, self._shared)
        return self.socket

    def mark_dead(self, reason: object) -> None:
        used_before = self.socket is not None and self.socket.used_before
        self.close_socket()
        self._shared.failed(str(self.address), reason, used_before)
