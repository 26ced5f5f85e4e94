# SPDX-License-Identifier: Apache-2.0
"""[database]: the cell's database. Options of oslo.db keep their names and help texts."""

from oslo_config import cfg
from oslo_db import options as oslo_db_options

GROUP = 'database'

_APPLIES = ('connection', 'connection_recycle_time')

OPTS = [opt for opt in oslo_db_options.database_opts if opt.dest in _APPLIES] + [
    cfg.FloatOpt(
        'retry_time',
        default=4.0,
        min=0.0,
        max=60.0,
        help='Total time, in seconds, for which an operation is retried while the database does not answer '
        'or rolls it back (deadlock, Galera certification failure). Keep it below the time that callers '
        'wait (10 seconds).',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
