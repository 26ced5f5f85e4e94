# SPDX-License-Identifier: Apache-2.0
"""``consoled-proxy``: the websocket proxy between browsers and guest consoles."""

from __future__ import annotations

import sys

from consoled.cmd import _backend, _daemon

PROG = 'consoled-proxy'

_DESCRIPTION = (
    "The proxy of a cell accepts users' websockets and serves console pages on [proxy] host and port. For "
    "each session it asks the managers, connects to the guest's VNC, SPICE or serial console, and relays. "
    'It needs [DEFAULT] transport_url, and [proxy] allowed_networks that contain the consoles; for TLS '
    'towards users, also ssl_cert and ssl_key. It does not use the database.'
)
_SIGNALS = (
    'Signals: SIGTERM closes the sessions, says why to their users, and stops it; SIGHUP reloads options, '
    'certificate and pages without ending a session.'
)


def main() -> int:
    """Run the proxy until SIGTERM, and return its exit code."""
    _backend.select('threading')
    return _daemon.run(PROG, _start)


def _start() -> None:
    _daemon.prepare_metrics()
    # imported here, since these read the backend and the metrics directory at import
    from consoled import systemd
    from consoled.proxy import service

    conf = _daemon.configure(
        prog=PROG,
        description=_DESCRIPTION,
        epilog=_daemon.epilog(_SIGNALS, 'consoled.conf', f'{PROG}.conf'),
    )
    shared = service.prepare(conf)
    _daemon.warn_of_unknown(conf)
    service.run(shared, systemd.from_process_environ())


if __name__ == '__main__':
    sys.exit(main())
