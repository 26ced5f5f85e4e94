# SPDX-License-Identifier: Apache-2.0
"""Options of consoled: one module per group, each with ``GROUP``, ``OPTS`` and ``register_opts(conf)``.

The configuration is always passed in, never taken from the global ``cfg.CONF``.
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
    nova,
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
    nova,
    proxy,
    upgrade_levels,
    workarounds,
)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register all options of consoled on ``conf``, and the libraries' options with consoled's defaults."""
    for module in MODULES:
        module.register_opts(conf)
