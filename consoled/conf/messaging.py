# SPDX-License-Identifier: Apache-2.0
"""Options of oslo.messaging, with consoled's defaults.

The library registers some groups on the global configuration only. Here all are registered on the one that is
passed in.
"""

import importlib
from typing import Any

from oslo_config import cfg
from oslo_messaging import opts as messaging_opts

# Part of the contract: clients in other services have a control_exchange of their own.
EXCHANGE = 'consoled'

# A pool of one saves some CPU, but then one slow query stalls every caller. Most of these threads wait: for a
# compute agent, or for a proxy to cut. The database has a pool of its own, which bounds those that work.
# oslo.messaging has 30 connections (rpc_conn_pool_size), of which each answer takes one.
THREAD_POOL_SIZE = 24

# With the library's defaults, the first call after the broker was back took 7 s; with these, 1 s.
RABBIT_DEFAULTS: dict[str, Any] = {
    'rabbit_retry_interval': 1,
    'rabbit_retry_backoff': 0,
    'rabbit_interval_max': 1,
    'kombu_reconnect_delay': 0.1,
    'kombu_missing_consumer_retry_timeout': 5,
    'heartbeat_timeout_threshold': 10,
    'heartbeat_rate': 3,
}

_UNLISTED_GROUPS = (
    ('oslo_messaging._metrics.client', 'oslo_messaging_metrics'),
    ('oslo_messaging._tracing.client', 'oslo_messaging_tracing'),
)


# Not list_opts, which returns copies: the driver registers these too, and refuses one that differs from what
# is registered, as a deprecated one does that has been read and warned of.
_LISTED = messaging_opts._opts


def register_opts(conf: cfg.ConfigOpts) -> None:
    for group, opts in _LISTED:
        conf.register_opts(opts, group=group)
    register_unlisted_opts(conf)
    conf.set_default('control_exchange', EXCHANGE)
    messaging_opts.set_defaults(conf, executor_thread_pool_size=THREAD_POOL_SIZE)
    for name, value in RABBIT_DEFAULTS.items():
        conf.set_default(name, value, group='oslo_messaging_rabbit')


def register_default_opts(conf: cfg.ConfigOpts) -> None:
    """Register the library's options of ``[DEFAULT]``. Changes no value or default."""
    for group, opts in _LISTED:
        if group is None:
            conf.register_opts(opts)


def register_unlisted_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options without which the library cannot make a call. Changes no value or default."""
    for module_name, group in _UNLISTED_GROUPS:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue  # this version of oslo.messaging does not have the feature
        conf.register_opts(getattr(module, group, []), group=group)
