# SPDX-License-Identifier: Apache-2.0
"""``consoled-compute``: the agent on a compute host."""

from __future__ import annotations

import sys

from consoled import notify
from consoled.cmd import _backend

PROG = 'consoled-compute'

_DESCRIPTION = (
    'The agent on a compute host: hands out tokens for the consoles of its guests, tells the managers which '
    "there are, and says whether a port is still that guest's. Needs [DEFAULT] transport_url, the hypervisor "
    'at [compute] libvirt_uri (for reading only), and base_url and server_proxyclient_address of [vnc], '
    '[spice] and [serial_console]. It does not use the database.'
)
_SIGNALS = (
    'Signals: SIGTERM ends it once the calls in flight are answered; SIGHUP reads the files again and tells '
    'the managers what has changed.'
)


def main() -> int:
    """Run the agent until SIGTERM."""
    _backend.select('threading')  # libvirt's calls block
    # only now: the libraries look at the backend when they are imported
    from consoled.cmd import _setup
    from consoled.compute import service

    epilog = f'{_setup.files("consoled.conf", f"{PROG}.conf")} {_SIGNALS} {_setup.EXIT_CODES}'
    conf = _setup.configure(prog=PROG, description=_DESCRIPTION, epilog=epilog)
    try:
        service.prepare(conf)
    except ValueError as exc:
        print(f'{PROG}: {exc}', file=sys.stderr)
        return 1
    service.run(conf, notify.from_process_environ())
    return 0


if __name__ == '__main__':
    sys.exit(main())
