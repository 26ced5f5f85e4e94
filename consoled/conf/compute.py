# SPDX-License-Identifier: Apache-2.0
"""[compute]: the agent on a compute host."""

from oslo_config import cfg

GROUP = 'compute'

OPTS = [
    cfg.StrOpt(
        'driver',
        default='libvirt',
        help='Driver of the hypervisor: libvirt, demo (simulated guests, for trying consoled out), or the '
        'name of an entry point of another package in the group consoled.compute.drivers.',
    ),
    cfg.StrOpt(
        'libvirt_uri',
        default='qemu:///system',
        help='libvirt URI of the hypervisor. The connection is read-only. Change it for another socket or '
        'another type of hypervisor.',
    ),
    cfg.StrOpt(
        'demo_guests',
        help='JSON file with the guests of the demo driver. It is read again when it changes. If this is '
        'not set, there are two guests: a desktop and a router.',
    ),
    cfg.FloatOpt(
        'hypervisor_timeout',
        default=1.5,
        min=0.1,
        max=60.0,
        mutable=True,
        help='Time to wait for the hypervisor, in seconds. After that, calls are refused with '
        'hypervisor_unreachable. Raise it for a slow hypervisor, but keep it below [manager] '
        'check_port_timeout.',
    ),
    cfg.IntOpt(
        'hypervisor_threads',
        default=8,
        min=2,
        max=256,
        help='Maximum number of concurrent calls to the hypervisor. When that many calls hang, further ones '
        'are refused after hypervisor_timeout without being made.',
    ),
    cfg.IntOpt(
        'sync_interval',
        default=600,
        min=1,
        max=86400,
        mutable=True,
        help='Interval, in seconds, at which all guests of this host are compared with what the managers '
        'know. Changes in between are reported at once if the driver gets events of them. The first '
        'interval after the start is shortened at random, later ones vary by 10 %, so that hosts do not '
        'stay in step. Lower it to repair missed changes sooner; the load on the managers grows.',
    ),
    cfg.IntOpt(
        'clean_interval',
        default=600,
        min=1,
        max=86400,
        mutable=True,
        help='Interval, in seconds, at which the expired tokens of this host are deleted. The first '
        'interval is shortened at random, later ones vary by 10 %, so that hosts do not stay in step. '
        'Expired tokens are refused whether or not they have been deleted.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
