# SPDX-License-Identifier: Apache-2.0
"""The cell's message bus."""

from __future__ import annotations

import oslo_messaging
from oslo_config import cfg

# Errors of these modules arrive at the caller as themselves; any other as a RemoteError.
REMOTE_EXCEPTIONS = ['consoled.exception']


def get_transport(conf: cfg.ConfigOpts) -> oslo_messaging.RPCTransport:
    """Return the RPC transport of ``[DEFAULT] transport_url``. Make it after a fork, not before."""
    return oslo_messaging.get_rpc_transport(conf, allowed_remote_exmods=REMOTE_EXCEPTIONS)
