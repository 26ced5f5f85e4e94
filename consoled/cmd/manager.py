# SPDX-License-Identifier: Apache-2.0
"""``consoled``: the manager of a cell."""

from __future__ import annotations

import sys

from consoled import notify
from consoled.cmd import _backend, _daemon

_DESCRIPTION = (
    'The manager of a cell: decides who may open which guest console. Answers calls of proxies, compute '
    'agents and operators over the message bus, keeps the cell database, and starts [manager] workers '
    'processes for that and one that cleans up and serves metrics and health. Needs [DEFAULT] '
    'transport_url and [database] connection; consoled-manage db upgrade makes the tables.'
)
_SIGNALS = (
    'Signals: SIGTERM ends it once the calls in flight are answered; SIGHUP reads the files again. '
    'Environment: CONSOLED_CONCURRENCY=eventlet replaces threads by eventlet.'
)


def main() -> int:
    """Run the manager until SIGTERM."""
    _backend.select()
    _daemon.prepare_metrics()
    # only now: the libraries look at the backend and at the variable when they are imported
    from oslo_service import service

    from consoled.cmd import _setup
    from consoled.manager import legacy_bridge
    from consoled.manager import service as manager_service
    from consoled.rpc import versions

    epilog = f'{_setup.files("consoled.conf")} {_SIGNALS} {_setup.EXIT_CODES}'
    conf = _setup.configure(prog='consoled', description=_DESCRIPTION, epilog=epilog)
    try:
        manager_service.database(conf)
        legacy_bridge.check_conf(conf)
        versions.pinned(conf.upgrade_levels.consoled)
        versions.pinned(conf.upgrade_levels.compute)
    except Exception as exc:
        print(f'consoled: {exc}', file=sys.stderr)
        return 1
    launcher = service.ProcessLauncher(conf, restart_method='mutate')
    launcher.launch_service(
        manager_service.ManagerWorker(conf, notify.from_process_environ()), workers=conf.manager.workers
    )
    launcher.launch_service(manager_service.Housekeeper(conf), workers=1)
    launcher.wait()
    return 0


if __name__ == '__main__':
    sys.exit(main())
