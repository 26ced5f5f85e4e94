# SPDX-License-Identifier: Apache-2.0
"""Read the options of a program from its command line and its configuration files."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from oslo_config import cfg
from oslo_log import log

from consoled import conf as consoled_conf
from consoled import version
from consoled.conf import opts

LOG = logging.getLogger(__name__)

PROJECT = 'consoled'

# At each stop amqp warns of every frame that arrives while a channel closes; oslo.messaging itself logs a
# connection that is really lost. alembic logs the dialect twice each time the schema is inspected.
_LOG_LEVELS = {'amqp': 'ERROR', 'alembic': 'WARN'}


def load(
    conf: cfg.ConfigOpts,
    argv: Sequence[str],
    *,
    prog: str,
    description: str | None = None,
    epilog: str | None = None,
) -> None:
    """Register every option on ``conf``, then parse the arguments and the configuration files.

    :param argv: arguments without the program's name
    :param prog: name of the program, which also names its second configuration file
    :param description: first paragraph of ``--help``
    :param epilog: last paragraph of ``--help``
    :raises cfg.Error: a file cannot be read or parsed
    :raises ValueError: the value of an option is invalid
    """
    log.register_options(conf)
    conf.set_default('default_log_levels', _default_log_levels())
    consoled_conf.register_opts(conf)
    conf(
        list(argv),
        project=PROJECT,
        prog=prog,
        version=version.VERSION,
        description=description,
        epilog=epilog,
        default_config_dirs=[],
    )


def check(conf: cfg.ConfigOpts) -> None:
    """Read every option once: oslo.config checks a value from a file only when it is first read.

    :raises cfg.Error: a value is invalid
    :raises ValueError: a value is invalid
    """
    for group, options in opts.list_opts():
        values = conf if group is None else conf[group]
        for option in options:
            values[option.dest]


def reload(conf: cfg.ConfigOpts) -> bool:
    """Read the configuration files again, and apply the options that may change while a program runs.

    If they cannot be read, log why and keep all values.

    :returns: whether they were read
    """
    try:
        conf.mutate_config_files()
    except (cfg.Error, OSError, ValueError) as exc:
        LOG.error('Not reloaded: %s', exc)
        return False
    return True


def _default_log_levels() -> list[str]:
    levels = dict(level.split('=') for level in log.get_default_log_levels())
    return [f'{name}={level}' for name, level in (levels | _LOG_LEVELS).items()]
