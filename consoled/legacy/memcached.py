# SPDX-License-Identifier: Apache-2.0
"""The tokens of the old consoleauth service, in memcached through oslo.cache.

oslo.cache gives the backend that the operator has configured for the old service, and the key (the SHA-1 of
the token). Its regions are not asked: they judge by the local clock when a value has expired, they store
another version of the metadata than the old service reads, and they log keys before those are hashed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from oslo_cache import core
from oslo_cache import exception as cache_exception
from oslo_config import cfg
from oslo_log import log

from consoled import objects
from consoled import token as tokens
from consoled.legacy import pickles, values
from consoled.legacy.bounds import FOREIGN, Servers, Stored
from consoled.legacy.pickles import Cached, Refused
from consoled.legacy.thread_pool import ThreadPool, Unavailable
from consoled.legacy.throttled_log import ThrottledLog
from consoled.sources import Issued, TokenSource

LOG = log.getLogger(__name__)

LOOKUP_SECONDS = 1.5  # a user waits for it; two servers in a row may be away
CHANGE_SECONDS = 3.0
_BATCH = 500  # keys deleted with one request

# What oslo.cache has no good defaults for, where calls wait for it: an answer takes a millisecond, and a
# server that is back should be asked again soon. Values in the configuration file win.
_DEFAULTS = {'socket_timeout': 0.5, 'memcache_dead_retry': 5, 'memcache_pool_connection_get_timeout': 1}

# Told of each lookup: found, unknown, refused, unavailable; and of each change that failed: unavailable
Observe = Callable[[str], None]


def from_conf(conf: cfg.ConfigOpts, observe: Observe = lambda outcome: None) -> TokenSource:
    """Make the source that ``[cache]`` describes. Connects to nothing yet.

    :param conf: with ``[consoleauth] token_ttl``; the options of oslo.cache are registered on it
    :param observe: called with the outcome of each use, from any thread
    :raises ValueError: the options of ``[cache]`` don't fit together, or ask for what is not supported
    """
    core.configure(conf)
    for name, value in _DEFAULTS.items():
        conf.set_default(name, value, group='cache')
    if not conf.cache.enabled or conf.cache.backend == 'dogpile.cache.null':
        LOG.warning('No tokens are looked for in memcached: [cache] enabled and backend are not set.')
        return NoTokens()
    servers = Servers(conf.cache.socket_timeout, conf.cache.memcache_dead_retry)
    try:
        region = core.configure_cache_region(conf, core.create_region())
    except cache_exception.ConfigurationError as exc:
        raise ValueError(f'[cache]: {exc}') from None
    _bind(conf, region.actual_backend, servers)
    return MemcachedTokens(region, servers, lambda: float(conf.consoleauth.token_ttl), observe)


def _bind(conf: cfg.ConfigOpts, backend: Any, servers: Servers) -> None:
    """Make a backend create bounded clients, with the library that it needs: the others may be missing."""
    name = conf.cache.backend
    if name == 'dogpile.cache.pymemcache':
        from consoled.legacy import pymemcache_client

        pymemcache_client.bind(backend, servers)
    elif name in ('dogpile.cache.memcached', 'oslo_cache.memcache_pool'):
        if conf.cache.tls_enabled or conf.cache.memcache_sasl_enabled:
            raise ValueError(f'[cache] backend {name} is supported without TLS and SASL only')
        from consoled.legacy import memcache_clients

        memcache_clients.bind(backend, servers)
    else:
        raise ValueError(f'[cache] backend {name} is none of memcached')


class NoTokens:
    """A source without tokens: without a cache the old service kept them in its process."""

    name = 'none'

    def lookup(self, token: str) -> Issued | None:
        return None

    def store(self, grant: objects.ConsoleAuthToken) -> None:
        pass

    def forget(self, instance_uuid: str, token_hashes: Collection[str] | None = None) -> None:
        pass


class MemcachedTokens:
    """A ``TokenSource``: thread-safe, and bounded in time; raises nothing.

    :param region: a region of oslo.cache whose backend creates bounded clients
    :param servers: which these clients know
    :param token_ttl: seconds for which the old service holds a token valid
    :param observe: see ``from_conf``
    """

    name = 'memcached'

    def __init__(
        self, region: Any, servers: Servers, token_ttl: Callable[[], float], observe: Observe
    ) -> None:
        self._backend = region.backend
        self._mangled = region.key_mangler
        self._token_ttl = token_ttl
        self._observe = observe
        self._log = ThrottledLog()
        self._workers = ThreadPool(servers.attempt)
        self._lists = threading.Lock()  # the list of an instance is read, changed and written

    def lookup(self, token: str) -> Issued | None:
        """What memcached knows of a clear token. Whether it has expired is for the caller to judge."""
        if not tokens.well_formed(token):
            return None
        try:
            found, away = self._workers.run(lambda: self._get(token), LOOKUP_SECONDS)
            if found is not None:
                issued = values.read_token(token, pickles.loads(found.data))
                self._observe('found')
                return issued
            if away:
                raise Unavailable('a server does not answer')
            self._observe('unknown')
        except Refused as exc:
            self._refused(exc)
            self._observe('refused')
        except Unavailable as exc:
            self._unavailable(exc)
        return None

    def store(self, grant: objects.ConsoleAuthToken) -> None:
        """Keep a token until it expires: the old service reckons from when it was issued, as it is told.

        So that moment is reckoned back from ``expires``, and the database's clock decides here too.
        """
        issued_at = time.time()
        if grant.expires is not None:
            issued_at = grant.expires.timestamp() - self._token_ttl()
        self._change(lambda: self._store(grant, issued_at))

    def forget(self, instance_uuid: str, token_hashes: Collection[str] | None = None) -> None:
        hashes = None if token_hashes is None else frozenset(token_hashes)
        self._change(lambda: self._forget(instance_uuid, hashes))

    def _change(self, operation: Callable[[], None]) -> None:
        try:
            self._workers.run(operation, CHANGE_SECONDS)
        except Unavailable as exc:
            self._unavailable(exc)

    # What follows runs in a thread of the workers.

    def _get(self, key: str) -> tuple[Stored | None, bool]:
        """What lies at a key, and whether that was asked of another server than it belongs to."""
        found, away = self._workers.step(lambda: self._backend.get(self._key(key)))
        if found is core.NO_VALUE:
            return None, away
        return found if isinstance(found, Stored) else FOREIGN, away

    def _set(self, key: str, text: str, stored_at: float) -> None:
        value = Stored(pickles.dumps(Cached(text, stored_at)))
        self._workers.step(lambda: self._backend.set(self._key(key), value))

    def _delete(self, keys: Collection[str]) -> None:
        """:raises Unavailable: some of them may still be there"""
        mangled = [self._key(key) for key in keys]
        for start in range(0, len(mangled), _BATCH):
            batch = mangled[start : start + _BATCH]
            _, away = self._workers.step(lambda batch=batch: self._backend.delete_multi(batch))  # type: ignore[misc]
            if away:
                raise Unavailable('tokens that are revoked may still be there')

    def _store(self, grant: objects.ConsoleAuthToken, issued_at: float) -> None:
        assert grant.token is not None  # as of the port
        self._set(grant.token, values.token_text(grant, issued_at), issued_at)
        with self._lists:
            listed = self._alive(self._listed(grant.instance_uuid), issued_at)
            self._set_list(grant.instance_uuid, [*listed, grant.token])

    def _forget(self, instance_uuid: str, hashes: frozenset[str] | None) -> None:
        with self._lists:
            listed = self._listed(instance_uuid)
            gone = {token for token in listed if hashes is None or tokens.hashed(token) in hashes}
            self._delete(gone)  # before the list: it is needed to find them another time
            kept = [token for token in listed if token not in gone]
            if not kept:
                self._delete([instance_uuid])
            elif gone:
                self._set_list(instance_uuid, kept)

    def _listed(self, instance_uuid: str) -> list[str]:
        found, _ = self._get(instance_uuid)
        if found is None:
            return []
        try:
            return values.read_list(pickles.loads(found.data, values.MAX_LIST_BYTES))
        except Refused as exc:
            self._refused(exc)
            return []

    def _set_list(self, instance_uuid: str, listed: list[str]) -> None:
        # the old service lets lists expire too, so this one is as young as can be
        self._set(instance_uuid, values.list_text(listed), time.time())

    def _alive(self, listed: list[str], now: float) -> list[str]:
        """Those that are there and have not long expired. (The old service waits no longer than it must.)"""
        if not listed:
            return []
        keys = [self._key(token) for token in listed]
        found, away = self._workers.step(lambda: self._backend.get_multi(keys))
        if away:
            return listed
        oldest = now - 2 * self._token_ttl()
        return [token for token, value in zip(listed, found, strict=True) if _stored_since(value, oldest)]

    def _key(self, key: str) -> str:
        mangled: str = self._mangled(key.encode())
        return mangled

    def _refused(self, error: Refused) -> None:
        self._log.warn('A value in memcached is refused', str(error))

    def _unavailable(self, error: Unavailable) -> None:
        self._log.warn('memcached, where tokens are looked for, is away', str(error))
        self._observe('unavailable')


def _stored_since(value: Any, oldest: float) -> bool:
    try:
        return isinstance(value, Stored) and pickles.loads(value.data).stored_at >= oldest
    except Refused:
        return False
