# SPDX-License-Identifier: Apache-2.0
"""The cell's message bus."""

from __future__ import annotations

import logging
import re

import oslo_messaging
from oslo_config import cfg

# Errors of these modules arrive at the caller as themselves; any other as a RemoteError.
REMOTE_EXCEPTIONS = ['consoled.exception']


# These log whole messages: at TRACE each one, at DEBUG a reply that came too late. (A logger got from
# oslo.log has its name with a dot, one got from logging itself with an underscore.)
_TALKATIVE = tuple(
    f'{library}._drivers.{module}'
    for library in ('oslo.messaging', 'oslo_messaging')
    for module in ('amqpdriver', 'impl_rabbit')
)
_CONTENT = re.compile(r'%\((msg|message)\)s|(?<=message )%s')


def _hide_content(record: logging.LogRecord) -> bool:
    """Take the content of messages out of a record: tokens travel in them (DESIGN invariant 1)."""
    shown, found = _CONTENT.subn('(content not logged)', str(record.msg))
    if found:
        record.msg = shown
        if '%' not in shown:
            record.args = None
    return True


def get_transport(conf: cfg.ConfigOpts, url: str | None = None) -> oslo_messaging.RPCTransport:
    """Return the RPC transport of ``[DEFAULT] transport_url``. Make it after a fork, not before.

    :param url: of another bus

    The content of messages is kept out of the library's logs in this process, at any level.
    """
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_hide_content)
    return oslo_messaging.get_rpc_transport(conf, url=url, allowed_remote_exmods=REMOTE_EXCEPTIONS)
