# SPDX-License-Identifier: Apache-2.0
"""[database]: the cell's database. Names and help of oslo.db where its options apply."""

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
        help='How long, in seconds, an operation is tried again in all when the database is away or has '
        'rolled it back (deadlock, Galera certification failure). Keep it below the time callers wait.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
