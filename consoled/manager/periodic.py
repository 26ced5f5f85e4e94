# SPDX-License-Identifier: Apache-2.0
"""Periodic tasks of a manager: the sweep of the database, and its heartbeat."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from oslo_config import cfg

from consoled import exception, version
from consoled.db import cleanup, legacy, managers
from consoled.db.engine import Database
from consoled.rpc import versions

LOG = logging.getLogger(__name__)

# Compute hosts delete their own expired tokens. The sweep deletes those that are left after this time (s).
_EXPIRED_FOR = 3600
_UNUSED_INSTANCE = 3600  # seconds
_FORGET_MANAGER = 86400  # seconds after the last heartbeat; a manager that was killed may come back


class Sweep:
    """Deletes rows that are no longer needed. Several managers may sweep at the same time."""

    def __init__(self, conf: cfg.ConfigOpts, db: Database) -> None:
        self._conf = conf
        self._db = db

    def run(self) -> None:
        """Sweep once. Failures are logged: the next sweep does the work."""
        try:
            proxies = cleanup.delete_dead_proxies(
                self._db, ended_for=self._conf.manager.lease * cleanup.GRACE_LEASES
            )
            tokens = cleanup.delete_expired(self._db, older_than=_EXPIRED_FOR)
            instances = cleanup.retire_instances(self._db, unused_for=_UNUSED_INSTANCE)
            kept = legacy.revocations_kept_for(self._conf.consoleauth.token_ttl)
            legacy.delete_revocations(self._db, older_than=kept)
        except exception.DatabaseUnavailable as exc:
            LOG.warning('Skipped the sweep: %s', exc)
        except Exception:
            # A fault here must not end the daemon. The next sweep reports it again.
            LOG.exception('The sweep failed')
        else:
            LOG.info('Swept %d tokens, %d proxies, %d instances', tokens, proxies, instances)


class Heartbeat:
    """Keeps this manager in the list of managers, and removes managers that are long gone.

    The list may be missing from a schema of the previous release. Each heartbeat looks for it again, because
    ``consoled-manage db upgrade`` may run after the manager has started.
    """

    def __init__(self, conf: cfg.ConfigOpts, db: Database) -> None:
        self._conf = conf
        self._db = db
        self._has_list = False
        self._last: managers.Beat | None = None
        self._ended = False
        self._lock = threading.Lock()

    def send(self) -> None:
        """Send one heartbeat. Does nothing after ``end``."""
        with self._lock:
            if not self._ended:
                _log_failure(self._note)

    def end(self) -> None:
        """Remove this manager from the list: it is stopping."""
        with self._lock:
            self._ended = True
            if self._has_list:
                _log_failure(lambda: managers.remove(self._db, self._conf.host))

    def _note(self) -> None:
        self._has_list = self._has_list or managers.has_table(self._db)
        if self._has_list:
            host = self._conf.host
            beat = managers.record_heartbeat(self._db, host, version.VERSION, versions.RPC_VERSION)
            self._check_name(beat)
            self._last = beat
            managers.delete_silent(self._db, silent_for=_FORGET_MANAGER)

    def _check_name(self, beat: managers.Beat) -> None:
        """Report another manager of this name: the two would be one to operators, and share a queue.

        The first heartbeat may follow one of this manager's earlier life, if that was killed. Later ones
        follow the one before, unless somebody else has sent one in between.
        """
        if self._last is not None:
            if beat.previous_at not in (None, self._last.at):
                LOG.error(
                    'Another manager has the same name, [DEFAULT] host = %s: give each its own',
                    self._conf.host,
                )
        elif beat.silence is not None and beat.silence < managers.ALIVE_WITHIN:
            LOG.warning(
                'A manager of this name, [DEFAULT] host = %s, was alive %.0f s ago. If it was not this one '
                'before it was killed, give each its own name',
                self._conf.host,
                beat.silence,
            )


def _log_failure(work: Callable[[], None]) -> None:
    try:
        work()
    except exception.DatabaseUnavailable as exc:
        LOG.warning('Could not update the list of managers: %s', exc)
    except Exception:
        # Only operators read the list, so nothing else may fail because of it.
        LOG.exception('Could not update the list of managers')
