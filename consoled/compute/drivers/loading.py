# SPDX-License-Identifier: Apache-2.0
"""Finding the driver that is configured, ours or another package's."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg
from stevedore import driver as stevedore_driver
from stevedore import exception as stevedore_exc

from consoled.compute.drivers import base

NAMESPACE = 'consoled.compute.drivers'


def load(conf: cfg.ConfigOpts) -> base.Driver:
    """Make the driver ``[compute] driver``. It connects to nothing yet.

    :raises ValueError: there is none of that name, or it can't be used
    """
    name = conf.compute.driver
    try:
        factory: Any = stevedore_driver.DriverManager(
            NAMESPACE, name, on_load_failure_callback=_failed, warn_on_missing_entrypoint=False
        ).driver
    except (stevedore_exc.NoMatches, stevedore_exc.MultipleMatches) as exc:
        raise ValueError(f'[compute] driver: {name!r} is not installed, or more than once') from exc
    driver = factory(conf)
    if not isinstance(driver, base.Driver):
        raise ValueError(f'[compute] driver: what {name!r} makes is no driver')
    return driver


def _failed(manager: Any, entry_point: Any, error: BaseException) -> None:
    raise ValueError(f'[compute] driver: {entry_point.name!r} can not be loaded: {error}') from error
