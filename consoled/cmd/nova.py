# SPDX-License-Identifier: Apache-2.0
"""``consoled-nova``: a manager and a proxy in the place of Nova's console proxies, as one program."""

from __future__ import annotations

import sys

from consoled.cmd import _backend, _daemon

PROG = 'consoled-nova'

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
    if not (conf.nova.config_file or conf.nova.connection):
        raise ValueError('[nova] config_file is not set')
    return _pair.run(sys.argv[1:], conf.monitoring.port, conf.graceful_shutdown_timeout)


if __name__ == '__main__':
    sys.exit(main())
