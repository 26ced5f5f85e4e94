# SPDX-License-Identifier: Apache-2.0
"""The tokens of the old consoleauth service in memcached, through oslo.cache.

oslo.cache provides the backend that the operator has configured for the old service, and the key of a token
(its SHA-1). Its regions are not used for the values: they expire values by the local clock, store a version
of the metadata that the old service does not read, and log keys before they are hashed.
"""

from __future__ import annotations

import ssl
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
from consoled.legacy.bounded_io import UNREADABLE, RawValue, ServerHealth
from consoled.legacy.pickles import Cached, Refused
from consoled.legacy.thread_pool import ThreadPool, Unavailable
from consoled.legacy.throttled_log import ThrottledLog
from consoled.sources import Issued, OutcomeObserver, TokenSource

LOG = log.getLogger(__name__)

LOOKUP_TIMEOUT = 1.5  # seconds: a user waits for it, and two servers in a row may be down
CHANGE_TIMEOUT = 3.0  # seconds
_BATCH = 500  # keys deleted with one request

# These replace oslo.cache's defaults because calls wait for memcached: an answer takes a millisecond, and a
# server that is back should be used again soon. The configuration file takes precedence.
_DEFAULTS = {'socket_timeout': 0.5, 'memcache_dead_retry': 5, 'memcache_pool_connection_get_timeout': 1}


def from_conf(conf: cfg.ConfigOpts, observe: OutcomeObserver = lambda outcome: None) -> TokenSource:
    """Return the source that ``[cache]`` describes, without a connection yet.

    :param conf: with ``[consoleauth] token_ttl``; the options of oslo.cache are registered on it
    :param observe: called from any thread: with found, unknown, refused or unavailable for each lookup, with
        unavailable for each change that failed
    :raises ValueError: the options of ``[cache]`` contradict each other or are not supported
    """
    core.configure(conf)
    for name, value in _DEFAULTS.items():
        conf.set_default(name, value, group='cache')
    if not conf.cache.enabled or conf.cache.backend == 'dogpile.cache.null':
        LOG.warning('Tokens are not looked up in memcached: [cache] enabled and backend are not set')
        return NoTokens()
    _check_tls(conf)
    health = ServerHealth(conf.cache.socket_timeout, conf.cache.memcache_dead_retry)
    try:
        region = core.configure_cache_region(conf, core.create_region())
    except ssl.SSLError:
        raise ValueError('[cache]: a file of tls_* is not PEM, or damaged, or no match for another') from None
    except cache_exception.ConfigurationError as exc:
        raise ValueError(f'[cache]: {exc}') from None
    _bind(conf, region.actual_backend, health)
    return MemcachedTokens(region, health, lambda: float(conf.consoleauth.token_ttl), observe)


def _check_tls(conf: cfg.ConfigOpts) -> None:
    """Check that no option of TLS would have no effect, and that their files can be read.

    :raises ValueError: it is not so; oslo.cache says nothing, or not which option it is
    """
    options = conf.cache
    files = [name for name in ('tls_cafile', 'tls_certfile', 'tls_keyfile') if options[name]]
    if files and not options.tls_enabled:
        raise ValueError(f'[cache] {files[0]} is set, but tls_enabled is not: no TLS would be used')
    if options.tls_keyfile and not options.tls_certfile:
        raise ValueError('[cache] tls_keyfile is set, but tls_certfile is not')
    for name in files:
        try:
            open(options[name], 'rb').close()
        except OSError as exc:
            raise ValueError(f'[cache] {name}: {options[name]}: {exc.strerror}') from None


def _bind(conf: cfg.ConfigOpts, backend: Any, health: ServerHealth) -> None:
    """Make a backend create bounded clients. Import the library that it needs only: others may be missing."""
    name = conf.cache.backend
    if name == 'dogpile.cache.pymemcache':
        from consoled.legacy import pymemcache_client

        pymemcache_client.bind(backend, health)
    elif name in ('dogpile.cache.memcached', 'oslo_cache.memcache_pool'):
        if conf.cache.tls_enabled or conf.cache.memcache_sasl_enabled:
            raise ValueError(f'[cache] backend {name} is supported only without TLS and SASL')
        from consoled.legacy import memcache_clients

        memcache_clients.bind(backend, health)
    else:
        raise ValueError(f'[cache] backend {name} is not a supported backend for memcached')


class NoTokens:
    """A source without tokens: without a cache the old service kept its tokens in its own memory."""

    name = 'none'
    unrecorded: frozenset[str] = frozenset()

    def lookup(self, token: str) -> Issued | None:
        return None

    def store(self, grant: objects.ConsoleAuthToken) -> None:
        pass

    def forget(self, instance_uuid: str, token_hashes: Collection[str] | None = None) -> None:
        pass


class MemcachedTokens:
    """A ``TokenSource`` that is thread-safe, bounded in time, and raises no exceptions.

    :param region: a region of oslo.cache whose backend creates bounded clients
    :param health: the servers' health, as these clients share it
    :param token_ttl: returns the seconds for which a token is valid for the old service
    :param observe: as for ``from_conf``
    """

    name = 'memcached'
    unrecorded = frozenset({'user_id', 'project_id'})

    def __init__(
        self, region: Any, health: ServerHealth, token_ttl: Callable[[], float], observe: OutcomeObserver
    ) -> None:
        self._backend = region.backend
        self._mangle = region.key_mangler
        self._token_ttl = token_ttl
        self._observe = observe
        self._log = ThrottledLog()
        self._threads = ThreadPool(health.operation)
        self._lists_lock = threading.Lock()  # a list of tokens is read, changed and written

    def lookup(self, token: str) -> Issued | None:
        """Return what memcached has for a clear token, which may have expired."""
        if not tokens.well_formed(token):
            return None
        try:
            found, failed_over = self._threads.run(lambda: self._get(token), LOOKUP_TIMEOUT)
            if found is not None:
                issued = values.parse_token(token, pickles.loads(found.data))
                self._observe('found')
                return issued
            if failed_over:  # the server of the token may have it
                raise Unavailable('a server does not answer')
            self._observe('unknown')
        except Refused as exc:
            self._log_refused(exc)
            self._observe('refused')
        except Unavailable as exc:
            self._unavailable(exc)
        return None

    def store(self, grant: objects.ConsoleAuthToken) -> None:
        """Store a token until it expires.

        The old service calculates the expiry from the moment of issue. That moment is calculated from
        ``expires``, so the database's clock decides here too.
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
            self._threads.run(operation, CHANGE_TIMEOUT)
        except Unavailable as exc:
            self._unavailable(exc)

    # The methods below run in a thread of the pool.

    def _get(self, key: str) -> tuple[RawValue | None, bool]:
        """Return the value of a key, and whether another server stood in for the key's own."""
        found, failed_over = self._threads.request(lambda: self._backend.get(self._key(key)))
        if found is core.NO_VALUE:
            return None, failed_over
        return found if isinstance(found, RawValue) else UNREADABLE, failed_over

    def _set(self, key: str, text: str, stored_at: float) -> None:
        value = RawValue(pickles.dumps(Cached(text, stored_at)))
        self._threads.request(lambda: self._backend.set(self._key(key), value))

    def _delete(self, keys: Collection[str]) -> None:
        """Delete keys.

        :raises Unavailable: some of them may still exist
        """
        mangled = [self._key(key) for key in keys]
        for start in range(0, len(mangled), _BATCH):
            batch = mangled[start : start + _BATCH]
            _, failed_over = self._threads.request(lambda batch=batch: self._backend.delete_multi(batch))  # type: ignore[misc]
            if failed_over:
                raise Unavailable('it may still have revoked tokens')

    def _store(self, grant: objects.ConsoleAuthToken, issued_at: float) -> None:
        assert grant.token is not None  # as of the port
        self._set(grant.token, values.format_token(grant, issued_at), issued_at)
        with self._lists_lock:
            listed = self._alive(self._get_list(grant.instance_uuid), issued_at)
            self._set_list(grant.instance_uuid, [*listed, grant.token])

    def _forget(self, instance_uuid: str, hashes: frozenset[str] | None) -> None:
        with self._lists_lock:
            listed = self._get_list(instance_uuid)
            forgotten = {token for token in listed if hashes is None or tokens.hashed(token) in hashes}
            self._delete(forgotten)  # before the list, which is needed to find them again if this fails
            kept = [token for token in listed if token not in forgotten]
            if not kept:
                self._delete([instance_uuid])
            elif forgotten:
                self._set_list(instance_uuid, kept)

    def _get_list(self, instance_uuid: str) -> list[str]:
        found, _ = self._get(instance_uuid)
        if found is None:
            return []
        try:
            return values.parse_list(pickles.loads(found.data, values.MAX_LIST_BYTES))
        except Refused as exc:
            self._log_refused(exc)
            return []

    def _set_list(self, instance_uuid: str, listed: list[str]) -> None:
        # The old service lets lists expire too, so the list is stored as of now.
        self._set(instance_uuid, values.format_list(listed), time.time())

    def _alive(self, listed: list[str], now: float) -> list[str]:
        """Return the tokens that still exist and did not expire long ago.

        :param now: seconds since 1970 UTC
        """
        if not listed:
            return []
        keys = [self._key(token) for token in listed]
        found, failed_over = self._threads.request(lambda: self._backend.get_multi(keys))
        if failed_over:
            return listed
        oldest = now - 2 * self._token_ttl()
        return [token for token, value in zip(listed, found, strict=True) if _stored_since(value, oldest)]

    def _key(self, key: str) -> str:
        mangled: str = self._mangle(key.encode())
        return mangled

    def _log_refused(self, error: Refused) -> None:
        self._log.warn('Refused a value in memcached', str(error))

    def _unavailable(self, error: Unavailable) -> None:
        self._log.warn('memcached is unavailable', str(error))
        self._observe('unavailable')


def _stored_since(value: Any, oldest: float) -> bool:
    try:
        return isinstance(value, RawValue) and pickles.loads(value.data).stored_at >= oldest
    except Refused:
        return False
