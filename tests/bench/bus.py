# SPDX-License-Identifier: Apache-2.0
"""The bus as consoled uses it: shared by the callers and the echo, so that both pay the same."""

from __future__ import annotations

import logging

import oslo_messaging
from oslo_config import cfg
from oslo_log import log

from consoled import conf as consoled_conf
from consoled.rpc.transport import get_transport

ECHO_TOPIC = 'bench-echo'


def transport_of(url: str) -> oslo_messaging.RPCTransport:
    """A transport with consoled's options, of a config of its own."""
    # it warns of each frame that arrives while a channel closes, at every stop
    logging.getLogger('amqp').setLevel(logging.ERROR)
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    consoled_conf.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override('transport_url', url)
    return get_transport(conf)
