# SPDX-License-Identifier: Apache-2.0
"""``consoled-proxy``: users' browsers on one side, guests' consoles on the other."""

from __future__ import annotations

import sys

from consoled import notify
from consoled.cmd import _backend, _daemon

PROG = 'consoled-proxy'

_DESCRIPTION = (
    "The proxy of a cell: takes users' websockets and serves pages to browsers on [proxy] host and port, "
    "asks the managers, connects to the guest's VNC, SPICE or serial console, and relays. Needs [DEFAULT] "
    'transport_url, and [proxy] allowed_networks where the consoles are; for users, ssl_cert and ssl_key. It '
    'does not use the database.'
)
_SIGNALS = (
    'Signals: SIGTERM tells the users and ends it; SIGHUP reads options, certificate and pages again, and '
    'ends no session.'
)


def main() -> int:
    """Run the proxy until SIGTERM."""
    _backend.select('threading')
    _daemon.prepare_metrics()
    # only now: the libraries look at the variable when they are imported
    from consoled.cmd import _setup
    from consoled.proxy import service

    epilog = f'{_setup.files("consoled.conf", f"{PROG}.conf")} {_SIGNALS} {_setup.EXIT_CODES}'
    conf = _setup.configure(prog=PROG, description=_DESCRIPTION, epilog=epilog)
    try:
        shared = service.prepare(conf)
    except (OSError, ValueError) as exc:
        print(f'{PROG}: {exc}', file=sys.stderr)
        return 1
    service.run(shared, notify.from_process_environ())
    return 0


if __name__ == '__main__':
    sys.exit(main())
