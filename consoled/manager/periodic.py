# SPDX-License-Identifier: Apache-2.0
"""The sweep: what nobody else cleans."""

from __future__ import annotations

import logging

from oslo_config import cfg

from consoled import exception
from consoled.db import cleanup
from consoled.db.session import Database

LOG = logging.getLogger(__name__)

# Compute hosts clean after themselves; the sweep leaves them this time (s), and deletes the rest.
_HOSTS_OWN_TIME = 3600
_UNUSED_INSTANCE = 3600  # seconds


class Sweep:
    """Deletes what time has made worthless; safe to run on several managers at once."""

    def __init__(self, conf: cfg.ConfigOpts, db: Database) -> None:
        self._conf = conf
        self._db = db

    def run(self) -> None:
        """One sweep. A database that is away is logged: the next sweep does the work."""
        try:
            proxies = cleanup.delete_dead_proxies(
                self._db, ended_for=self._conf.manager.lease * cleanup.LEASES_TO_COME_BACK
            )
            tokens = cleanup.delete_expired(self._db, older_than=_HOSTS_OWN_TIME)
            instances = cleanup.retire_instances(self._db, unused_for=_UNUSED_INSTANCE)
        except exception.DatabaseUnavailable as exc:
            LOG.warning('the sweep was left out: %s', exc)
        except Exception:
            # a fault here must not end the daemon; the next sweep reports it again
            LOG.exception('the sweep failed')
        else:
            LOG.info('swept: %d tokens, %d proxies, %d instances', tokens, proxies, instances)
