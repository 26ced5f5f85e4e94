# SPDX-License-Identifier: Apache-2.0
"""Loading of the configured driver, one of ours or of another package."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import NoReturn

from oslo_config import cfg
from stevedore import driver as stevedore_driver
from stevedore import exception as stevedore_exc

from consoled.compute.drivers import base

NAMESPACE = 'consoled.compute.drivers'


def load(conf: cfg.ConfigOpts) -> base.Driver:
    """Create the driver that ``[compute] driver`` names. It does not connect to the hypervisor yet.

    :raises ValueError: there is no such driver, or it cannot be used as configured or installed
    """
    name = conf.compute.driver
    try:
        from_conf: Callable[[cfg.ConfigOpts], object] = stevedore_driver.DriverManager(
            NAMESPACE, name, on_load_failure_callback=_fail, warn_on_missing_entrypoint=False
        ).driver
    except (stevedore_exc.NoMatches, stevedore_exc.MultipleMatches) as exc:
        raise ValueError(f'[compute] driver: {name!r} is not installed, or installed more than once') from exc
    driver = from_conf(conf)
    if not isinstance(driver, base.Driver):
        raise ValueError(f'[compute] driver: the entry point {name!r} does not return a driver')
    return driver


def _fail(manager: object, entry_point: metadata.EntryPoint, error: BaseException) -> NoReturn:
    raise ValueError(f'[compute] driver: cannot load {entry_point.name!r}: {error}') from error
