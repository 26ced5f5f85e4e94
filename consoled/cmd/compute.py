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
    """Run the agent until SIGTERM."""
    _backend.select('threading')  # calls to libvirt block
    # imported here, since these read the backend at import
    from consoled import systemd
    from consoled.compute import service

    conf = _daemon.configure(
        prog=PROG,
        description=_DESCRIPTION,
        epilog=_daemon.epilog(_SIGNALS, 'consoled.conf', f'{PROG}.conf'),
    )
    try:
        service.prepare(conf)
    except ValueError as exc:
        print(f'{PROG}: {exc}', file=sys.stderr)
        return 1
    service.run(conf, systemd.from_process_environ())
    return 0


if __name__ == '__main__':
    sys.exit(main())
