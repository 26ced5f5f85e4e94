# SPDX-License-Identifier: Apache-2.0
"""``consoled-compute``: the agent of a compute host."""

from __future__ import annotations

import sys

from consoled.cmd import _backend, _daemon

PROG = 'consoled-compute'

_DESCRIPTION = (
    'The agent of a compute host hands out tokens for the consoles of its guests, reports those consoles to '
    'the managers, and confirms that a port still belongs to a guest. It needs [DEFAULT] transport_url, the '
    'hypervisor at [compute] libvirt_uri (read-only), and base_url and server_proxyclient_address in [vnc], '
    '[spice] and [serial_console]. It does not use the database.'
)
_SIGNALS = (
    'Signals: SIGTERM stops it after the calls in flight are answered; SIGHUP reloads the configuration '
    'files and reports what changed to the managers.'
)


def main() -> int:
    """Run the agent until SIGTERM, and return its exit code."""
    _backend.select('threading')  # calls to libvirt block
    return _daemon.run(PROG, _start)


def _start() -> None:
    # imported here, since these read the backend at import
    from consoled import systemd
    from consoled.compute import service

    conf = _daemon.configure(
        prog=PROG,
        description=_DESCRIPTION,
        epilog=_daemon.epilog(_SIGNALS, 'consoled.conf', f'{PROG}.conf'),
    )
    monitoring_socket = service.prepare(conf)
    _daemon.warn_of_unknown(conf)
    service.run(conf, systemd.from_process_environ(), monitoring_socket)


if __name__ == '__main__':
    sys.exit(main())
