# SPDX-License-Identifier: Apache-2.0
"""[cell]: which shard of the cloud this is."""

from oslo_config import cfg

GROUP = 'cell'

OPTS = [
    cfg.StrOpt(
        'name',
        default='cell1',
        max_length=64,
        regex=r'^[A-Za-z0-9_.-]+$',
        help='Name of the cell, as a label in metrics and logs. It decides nothing: a cell is its message '
        'broker and its database.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
