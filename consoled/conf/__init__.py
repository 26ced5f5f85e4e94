# SPDX-License-Identifier: Apache-2.0
"""Options of consoled: one module per group, each with ``GROUP``, ``OPTS`` and ``register_opts(conf)``.

Config is passed in, never taken from the global ``cfg.CONF``.
"""

from oslo_config import cfg

from consoled.conf import (
    base,
    cell,
    compute,
    consoleauth,
    consoles,
    database,
    manager,
    messaging,
    monitoring,
    proxy,
    upgrade_levels,
    workarounds,
)

MODULES = (
    base,
    cell,
    compute,
    consoleauth,
    consoles,
    database,
    manager,
    messaging,
    monitoring,
    proxy,
    upgrade_levels,
    workarounds,
)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register every option of consoled on ``conf``, and the libraries' options it sets defaults for."""
    for module in MODULES:
        module.register_opts(conf)
