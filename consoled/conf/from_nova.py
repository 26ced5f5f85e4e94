# SPDX-License-Identifier: Apache-2.0
"""Options that take their values from Nova's configuration.

``consoled.nova`` is imported only while ``[nova] config_file`` is set.
"""

from __future__ import annotations

import logging

from oslo_config import cfg

LOG = logging.getLogger(__name__)


def apply(conf: cfg.ConfigOpts, *, mutable: bool = False) -> None:
    """Give the options that consoled's files do not set the values that they take from Nova, as defaults.

    :param mutable: change only the options that may change while a program runs
    :raises cfg.Error: a file of Nova cannot be read, or a value is invalid. Nothing has been changed then
    """
    if _files(conf):
        from consoled.nova import conf_file

        conf_file.apply(conf, mutable=mutable)


def source(conf: cfg.ConfigOpts, group: str, name: str) -> str:
    """Return from which options of Nova an option has its value; '' if from none."""
    if not _files(conf):
        return ''
    from consoled.nova import conf_file

    return conf_file.source(conf, group, name)


def log(conf: cfg.ConfigOpts) -> None:
    """Log what is taken from Nova's configuration, and warn of what has no effect here.

    :raises cfg.Error: a file cannot be read any more
    """
    if not _files(conf):
        return
    from consoled.nova import conf_file

    found = conf_file.read(conf)
    LOG.info('Options taken from %s: %s', ', '.join(conf.nova.config_file), found.summary())
    for sentence in found.unusable:
        LOG.warning('%s', sentence)


def _files(conf: cfg.ConfigOpts) -> list[str]:
    try:
        found: list[str] = conf.nova.config_file
    except (cfg.Error, ValueError):  # not registered, or invalid: the check of all options says so
        return []
    return found
