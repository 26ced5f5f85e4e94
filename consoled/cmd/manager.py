# SPDX-License-Identifier: Apache-2.0
"""``consoled``: the manager of a cell."""

from __future__ import annotations

import sys

from consoled.cmd import _backend, _daemon

PROG = 'consoled'

_DESCRIPTION = (
    'The manager of a cell decides who may open which guest console. It answers calls of proxies, compute '
    'agents and operators on the message bus and maintains the cell database. It runs [manager] workers '
    'processes that answer calls, and one that cleans up and serves metrics and health. It needs [DEFAULT] '
    'transport_url and [database] connection; create the tables with consoled-manage db upgrade.'
)
_SIGNALS = (
    'Signals: SIGTERM stops it after the calls in flight are answered; SIGHUP reloads the configuration '
    'files. Environment: CONSOLED_CONCURRENCY=eventlet makes it use eventlet instead of threads.'
)


def main() -> int:
    """Run the manager until SIGTERM, and return its exit code."""
    _backend.select()
    return _daemon.run(PROG, _start)


def _start() -> None:
    _daemon.prepare_metrics()
    # imported here, since these read the backend and the metrics directory at import
    from oslo_service import service

    from consoled import systemd
    from consoled.conf import files
    from consoled.manager import service as manager_service

    conf = _daemon.configure(
        prog=PROG, description=_DESCRIPTION, epilog=_daemon.epilog(_SIGNALS, 'consoled.conf')
    )
    monitoring_socket = manager_service.prepare(conf)
    _daemon.warn_of_unknown(conf)
    launcher = service.ProcessLauncher(files.Reloading(conf), restart_method='mutate')
    notifier = systemd.from_process_environ()
    worker = manager_service.ManagerWorker(conf, notifier, monitoring_socket)
    launcher.launch_service(worker, workers=conf.manager.workers)
    launcher.launch_service(manager_service.Housekeeper(conf, monitoring_socket), workers=1)
    launcher.wait()


if __name__ == '__main__':
    sys.exit(main())
