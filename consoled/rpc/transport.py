# SPDX-License-Identifier: Apache-2.0
"""Transport of the cell's message bus."""

from __future__ import annotations

import logging
import re

import oslo_messaging
from oslo_config import cfg

# Errors of these modules reach the caller as themselves, all others as RemoteError.
REMOTE_EXCEPTIONS = ['consoled.exception']

# These loggers log whole messages: each one at TRACE, late replies at DEBUG; and names that peers give to
# their errors. Loggers made by oslo.log have a dot in their names, those made by logging an underscore.
_LOGGERS_WITH_CONTENT = tuple(
    f'{library}._drivers.{module}'
    for library in ('oslo.messaging', 'oslo_messaging')
    for module in ('amqpdriver', 'common', 'impl_rabbit')
)
_CONTENT = re.compile(r'%\((msg|message)\)s|(?<=message )%s|(?<=rebuild remote exception due to error: )%s')


def _hide_content(record: logging.LogRecord) -> bool:
    """Remove the content of messages from a record: it may include tokens (invariant 1 in doc/design.md)."""
    shown, found = _CONTENT.subn('(content not logged)', str(record.msg))
    if found:
        record.msg = shown
        if '%' not in shown:
            record.args = None
    return True


def get_transport(conf: cfg.ConfigOpts, url: str | None = None) -> oslo_messaging.RPCTransport:
    """Return the RPC transport of ``[DEFAULT] transport_url``. Call this after a fork, not before it.

    From then on, the library's loggers in this process do not log the content of messages at any level.

    :param url: URL of another bus
    """
    for name in _LOGGERS_WITH_CONTENT:
        logging.getLogger(name).addFilter(_hide_content)
    return oslo_messaging.get_rpc_transport(conf, url=url, allowed_remote_exmods=REMOTE_EXCEPTIONS)
