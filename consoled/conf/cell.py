# SPDX-License-Identifier: Apache-2.0
"""[cell]: the identity of this shard of the cloud."""

from oslo_config import cfg

GROUP = 'cell'

OPTS = [
    cfg.StrOpt(
        'name',
        default='cell1',
        max_length=64,
        regex=r'^[A-Za-z0-9_.-]+$',
        help='Name of the cell, used as a label in metrics and logs. It has no other effect: a cell is '
        'defined by its message broker and its database. Set it where a cloud has several cells.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
