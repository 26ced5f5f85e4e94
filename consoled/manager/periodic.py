# SPDX-License-Identifier: Apache-2.0
"""What a manager does from time to time: sweep what nobody else cleans, and tell that it lives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from oslo_config import cfg

from consoled import exception, version
from consoled.db import cleanup, legacy, managers
from consoled.db.session import Database
from consoled.rpc import versions

LOG = logging.getLogger(__name__)

# Compute hosts clean after themselves; the sweep leaves them this time (s), and deletes the rest.
_HOSTS_OWN_TIME = 3600
_UNUSED_INSTANCE = 3600  # seconds

_VOID_AT_LEAST = 86400  # seconds: longer than clocks differ

_FORGET_MANAGER = 86400  # seconds; one that was killed is not seen any more, and may come back


class Sweep:
    """Deletes what time has made worthless; safe to run on several managers at once."""

    def __init__(self, conf: cfg.ConfigOpts, db: Database) -> None:
        self._conf = conf
        self._db = db

    def run(self) -> None:
        """One sweep. A database that is away is logged: the next sweep does the work."""
        try:
            proxies = cleanup.delete_dead_proxies(
                self._db, ended_for=self._conf.manager.lease * cleanup.GRACE_LEASES
            )
            tokens = cleanup.delete_expired(self._db, older_than=_HOSTS_OWN_TIME)
            instances = cleanup.retire_instances(self._db, unused_for=_UNUSED_INSTANCE)
            legacy.delete_revocations(
                self._db, older_than=max(_VOID_AT_LEAST, 2 * self._conf.consoleauth.token_ttl)
            )
        except exception.DatabaseUnavailable as exc:
            LOG.warning('the sweep was left out: %s', exc)
        except Exception:
            # a fault here must not end the daemon; the next sweep reports it again
            LOG.exception('the sweep failed')
        else:
            LOG.info('swept: %d tokens, %d proxies, %d instances', tokens, proxies, instances)


class Heartbeat:
    """Keeps this manager in the list of managers, and clears the list of those who are long gone.

    A schema that is older than the list is looked at again each time: ``consoled-manage db upgrade`` may come
    after the start.
    """

    def __init__(self, conf: cfg.ConfigOpts, db: Database) -> None:
        self._conf = conf
        self._db = db
        self._has_list = False
        self._ended = False
        self._lock = threading.Lock()

    def send(self) -> None:
        """One heartbeat; nothing after ``end``."""
        with self._lock:
            if not self._ended:
                _log_failure(self._note)

    def end(self) -> None:
        """The manager stops: it leaves the list."""
        with self._lock:
            self._ended = True
            if self._has_list:
                _log_failure(lambda: managers.remove(self._db, self._conf.host))

    def _note(self) -> None:
        self._has_list = self._has_list or managers.has_table(self._db)
        if self._has_list:
            managers.record_heartbeat(self._db, self._conf.host, version.VERSION, versions.RPC_VERSION)
            managers.delete_silent(self._db, silent_for=_FORGET_MANAGER)


def _log_failure(work: Callable[[], None]) -> None:
    try:
        work()
    except exception.DatabaseUnavailable as exc:
        LOG.warning('the list of managers was not written: %s', exc)
    except Exception:
        # the list is for operators only: nothing else may end because of it
        LOG.exception('the list of managers was not written')
