# SPDX-License-Identifier: Apache-2.0
"""The RPC transport with consoled's options, for callers and echo server alike."""

from __future__ import annotations

import logging

import oslo_messaging
from oslo_config import cfg
from oslo_log import log

from consoled import conf as consoled_conf
from consoled.rpc.transport import get_transport

ECHO_TOPIC = 'bench-echo'


def new_transport(url: str) -> oslo_messaging.RPCTransport:
    """Return a transport with consoled's options and a private configuration."""
    # amqp warns about frames that arrive while a channel closes, at every shutdown
    logging.getLogger('amqp').setLevel(logging.ERROR)
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    consoled_conf.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override('transport_url', url)
    return get_transport(conf)
