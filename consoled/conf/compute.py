# SPDX-License-Identifier: Apache-2.0
"""[compute]: the agent on a compute host."""

from oslo_config import cfg

GROUP = 'compute'

OPTS = [
    cfg.StrOpt(
        'driver',
        default='libvirt',
        help='How to talk to the hypervisor: libvirt, demo (guests that exist as data only), or the name of '
        'an entry point that another package has in consoled.compute.drivers.',
    ),
    cfg.StrOpt(
        'libvirt_uri',
        default='qemu:///system',
        help="libvirt's URI of the hypervisor. The connection is opened for reading only.",
    ),
    cfg.StrOpt(
        'demo_guests',
        help='File (JSON) with the guests of the driver demo, read again when it changes. Not set: a desktop '
        'and a router.',
    ),
    cfg.FloatOpt(
        'hypervisor_timeout',
        default=1.5,
        min=0.1,
        max=60.0,
        mutable=True,
        help='Seconds to wait for an answer of the hypervisor; then calls are refused with '
        'hypervisor_unreachable. Keep it below [manager] check_port_timeout.',
    ),
    cfg.IntOpt(
        'hypervisor_threads',
        default=8,
        min=2,
        max=256,
        help='Calls to the hypervisor that may be under way at a time. When that many hang, others are '
        'refused by hypervisor_timeout without being made.',
    ),
    cfg.IntOpt(
        'sync_interval',
        default=600,
        min=1,
        max=86400,
        mutable=True,
        help='Seconds between two comparisons of all guests of this host with what the managers know. '
        'What changes meanwhile is told at once, where the driver hears of it. After the start the first '
        'period is any part of it, then it is jittered by a tenth: many hosts do not meet.',
    ),
    cfg.IntOpt(
        'clean_interval',
        default=600,
        min=1,
        max=86400,
        mutable=True,
        help='Seconds between two deletions of the expired tokens of this host. The first one comes at a '
        'random moment of that time, the period is jittered by a tenth: many hosts do not meet.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
