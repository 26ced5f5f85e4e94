# SPDX-License-Identifier: Apache-2.0
"""``consoled``: the manager of a cell."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable

from consoled.cmd import _backend

_DESCRIPTION = (
    'The manager of a cell: decides who may open which guest console. Reads consoled.conf where oslo.config '
    'looks for it (~/.consoled, ~, /etc/consoled, /etc); etc/consoled/consoled.conf.sample explains every '
    'option. SIGTERM ends it once the calls in flight are answered, SIGHUP reads the files again. '
    'CONSOLED_CONCURRENCY=eventlet in the environment replaces threads by eventlet.'
)
_METRICS_DIR = 'PROMETHEUS_MULTIPROC_DIR'


def main() -> int:
    """Run the manager until SIGTERM."""
    _backend.select()
    _prepare_metrics()
    # only now: the libraries look at the backend and at the variable when they are imported
    from oslo_service import service

    from consoled.cmd import _setup
    from consoled.manager import service as manager_service

    conf = _setup.configure(prog='consoled', description=_DESCRIPTION)
    try:
        manager_service.database(conf)
        manager_service.versions.pinned(conf.upgrade_levels.consoled)
        manager_service.versions.pinned(conf.upgrade_levels.compute)
    except Exception as exc:
        print(f'consoled: {exc}', file=sys.stderr)
        return 1
    launcher = service.ProcessLauncher(conf, restart_method='mutate')
    launcher.launch_service(
        manager_service.Worker(conf, _take_over_notification()), workers=conf.manager.workers
    )
    launcher.launch_service(manager_service.Housekeeper(conf), workers=1)
    launcher.wait()
    return 0


def _prepare_metrics() -> None:
    """Give the processes a directory to add up their metrics in; it goes with the first of them."""
    if os.environ.get(_METRICS_DIR):
        return
    directory = tempfile.mkdtemp(prefix='consoled-metrics-')
    os.environ[_METRICS_DIR] = directory
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)


def _take_over_notification() -> Callable[[], None]:
    """Take NOTIFY_SOCKET from the launcher, which would call a service ready before it consumes.

    :returns: to be called by a worker that consumes
    """
    address = os.environ.pop('NOTIFY_SOCKET', None)

    def ready() -> None:
        if address is not None:
            from oslo_service import systemd

            os.environ['NOTIFY_SOCKET'] = address
            systemd.notify_once()

    return ready


if __name__ == '__main__':
    sys.exit(main())
