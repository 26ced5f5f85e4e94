# SPDX-License-Identifier: Apache-2.0
"""Versions of the RPC contract, and the object versions that belong to each.

When a method or an object changes, raise ``RPC_VERSION`` (the minor for an addition) and add its row to
``OBJECTS_OF_VERSION``. Keep the older rows while peers of those releases may be alive.
"""

from __future__ import annotations

TOPIC = 'consoled'  # managers
PROXY_TOPIC = 'consoled-proxy'
COMPUTE_TOPIC = 'consoled-compute'

OLDEST = '1.0'  # of those that peers still speak
RPC_VERSION = '1.1'

_OBJECTS = {
    'ConsoleAuthToken': '1.0',
    'ConsoleConnection': '1.0',
    'ConsoleConnectionList': '1.0',
    'ConsoleSession': '1.0',
    'ConsoleSessionList': '1.0',
}
OBJECTS_OF_VERSION: dict[str, dict[str, str]] = {
    '1.0': _OBJECTS,
    '1.1': _OBJECTS,  # open_session has serial_port; validate has that and to_open
}


def pinned(level: str | None) -> tuple[str, dict[str, str]]:
    """Return the RPC version to use for an ``[upgrade_levels]`` value, and the versions of its objects.

    :param level: MAJOR.MINOR, or None for the newest version
    :raises ValueError: this release does not know the version
    """
    version = RPC_VERSION if level is None else level
    if version not in OBJECTS_OF_VERSION:
        known = ', '.join(sorted(OBJECTS_OF_VERSION))
        raise ValueError(f'[upgrade_levels]: unknown version {version}; known versions: {known}')
    return version, OBJECTS_OF_VERSION[version]
