# SPDX-License-Identifier: Apache-2.0
"""What the daemons share: metrics of several processes, and telling systemd when they are ready."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable

_METRICS_DIR = 'PROMETHEUS_MULTIPROC_DIR'


def prepare_metrics() -> None:
    """Give the processes a directory to add up their metrics in; it goes with the first of them.

    To be called before prometheus_client is imported: it looks at the variable then.
    """
    if os.environ.get(_METRICS_DIR):
        return
    directory = tempfile.mkdtemp(prefix='consoled-metrics-')
    os.environ[_METRICS_DIR] = directory
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)


def take_over_notification() -> Callable[[], None]:
    """Take NOTIFY_SOCKET from the launcher, which would call a service ready before it works.

    :returns: to be called by a worker that does
    """
    address = os.environ.pop('NOTIFY_SOCKET', None)

    def ready() -> None:
        if address is not None:
            from oslo_service import systemd

            os.environ['NOTIFY_SOCKET'] = address
            systemd.notify_once()

    return ready
