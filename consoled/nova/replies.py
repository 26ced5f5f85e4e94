# SPDX-License-Identifier: Apache-2.0
"""Replies of compute hosts whose oslo.messaging is older than release 9 (Nova 18).

Those publish a reply to an exchange that has the name of the reply queue, which the caller has to declare.
Newer ones use the default exchange, and newer callers declare no other. A queue may have both, so replies of
all releases arrive. All that consoled knows of the inner parts of oslo.messaging for this is in this module.
"""

from __future__ import annotations

from typing import Any

import oslo_messaging
from kombu import entity
from oslo_messaging._drivers import impl_rabbit


class _Connection(impl_rabbit.Connection):  # type: ignore[misc]  # untyped
    """Connection to RabbitMQ that declares the exchange of its reply queue too, at each (re)connect."""

    def declare_consumer(self, consumer: Any) -> Any:
        if not consumer.exchange_name:  # a reply queue: others have an exchange
            consumer.exchange_name = consumer.routing_key = consumer.queue_name
            consumer.exchange = entity.Exchange(  # type: ignore[no-untyped-call]
                consumer.queue_name, type='direct', durable=False, auto_delete=True
            )
        return super().declare_consumer(consumer)


def accept_old(transport: oslo_messaging.RPCTransport) -> None:
    """Let replies of old releases arrive. Call this before the transport's first call.

    The account of the bus then needs ``write`` on its own reply queue, besides ``configure`` and ``read``.
    Drivers other than RabbitMQ's are left alone.
    """
    pool: Any = getattr(transport._driver, '_connection_pool', None)
    if getattr(pool, 'connection_cls', None) is impl_rabbit.Connection:
        pool.connection_cls = _Connection
