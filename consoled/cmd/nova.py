# SPDX-License-Identifier: Apache-2.0
"""``consoled-nova``: a manager and a proxy in the place of Nova's console proxies, as one program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from consoled.cmd import _backend, _daemon

if TYPE_CHECKING:
    from oslo_config import cfg

PROG = 'consoled-nova'

_LAST_PORT = 65535

_DESCRIPTION = (
    'Stands where nova-novncproxy, nova-serialproxy and nova-spicehtml5proxy stood: runs one manager '
    '(consoled) and one proxy (consoled-proxy) with the same arguments and files. It needs [database] '
    "connection, consoled's own database, and [nova] config_file, from which the rest is taken: addresses, "
    "certificates, origins, the bus and the database of Nova's cell. Create the tables with consoled-manage "
    'db upgrade. If [monitoring] port is set, the manager serves it, and the proxy the next one.'
)
_SIGNALS = (
    'Signals: SIGTERM and SIGHUP are passed on to both. If one of the two ends, the other is stopped, and '
    'the exit code is that of the first.'
)


def main() -> int:
    """Run both until SIGTERM, and return the exit code."""
    _backend.select('threading')
    code = 0

    def start() -> None:
        nonlocal code
        code = _run()

    return _daemon.run(PROG, start) or code


def _run() -> int:
    # imported here, since these read the backend at import
    from consoled.cmd import _pair

    conf = _daemon.configure(
        prog=PROG, description=_DESCRIPTION, epilog=_daemon.epilog(_SIGNALS, 'consoled.conf')
    )
    _check(conf)
    return _pair.run(sys.argv[1:], conf.monitoring.port, conf.graceful_shutdown_timeout)


def _check(conf: cfg.ConfigOpts) -> None:
    """Refuse what the manager would refuse while the proxy is starting, so that one line says it.

    :raises ValueError: an option is missing or cannot be used
    """
    from consoled.conf.nova import NO_CONNECTION

    if not conf.nova.connection:
        raise ValueError(NO_CONNECTION if conf.nova.config_file else '[nova] config_file is not set')
    if not conf.database.connection:
        raise ValueError("[database] connection is not set: consoled's own database, not Nova's")
    if conf.monitoring.port == _LAST_PORT:
        raise ValueError('[monitoring] port: the proxy serves the next one, and there is none')


if __name__ == '__main__':
    sys.exit(main())
