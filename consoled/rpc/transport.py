# SPDX-License-Identifier: Apache-2.0
"""Transport of the cell's message bus."""

from __future__ import annotations

import logging
import re
from typing import Any

import oslo_messaging
from oslo_config import cfg

from consoled.conf import messaging

# Errors of these modules reach the caller as themselves, all others as RemoteError.
REMOTE_EXCEPTIONS = ('consoled.exception',)

# These loggers log whole messages: each one at TRACE, late replies at DEBUG. Loggers made by oslo.log have
# a dot in their names, those made by logging an underscore.
_LOGGERS_WITH_CONTENT = tuple(
    f'{library}._drivers.{module}'
    for library in ('oslo.messaging', 'oslo_messaging')
    for module in ('amqpdriver', 'impl_rabbit')
)
_CONTENT = re.compile(r'%\((msg|message)\)s|(?<=message )%s')


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

    ``conf`` may be that of another service: what is missing is registered, and nothing is changed.

    :param url: URL of another bus
    """
    return prepared(oslo_messaging.get_rpc_transport(conf, url=url))


def prepared(transport: oslo_messaging.RPCTransport) -> oslo_messaging.RPCTransport:
    """Return the transport, which may be another service's own, ready for calls of consoled.

    - The options that the library needs are registered.
    - Domain errors arrive as themselves.
    - From now on, the library's loggers in this process do not log the content of messages at any level.
    """
    messaging.register_unlisted_opts(transport.conf)
    _allow_our_errors(transport._driver)
    for name in _LOGGERS_WITH_CONTENT:
        logging.getLogger(name).addFilter(_hide_content)
    return transport


def _allow_our_errors(driver: Any) -> None:
    """Add to the modules whose errors are raised as themselves. The library asks for them only at the start.

    A transport that has made a call already has handed its list on, so a list is extended and not replaced.
    """
    allowed = driver._allowed_remote_exmods
    missing = [name for name in REMOTE_EXCEPTIONS if name not in allowed]
    if isinstance(allowed, list):
        allowed.extend(missing)
    else:
        driver._allowed_remote_exmods = [*allowed, *missing]
