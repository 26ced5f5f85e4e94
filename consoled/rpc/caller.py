# SPDX-License-Identifier: Apache-2.0
"""Base of the RPC clients: calls, casts, and the mapping of their failures to domain errors."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import kombu.exceptions
import oslo_messaging
from oslo_messaging import exceptions as messaging_exc

from consoled import deadline, exception
from consoled.conf.messaging import EXCHANGE
from consoled.context import RequestContext
from consoled.rpc import versions
from consoled.rpc.serializer import Serializer
from consoled.rpc.transport import prepared

# Seconds to wait for an answer where the caller does not say. Managers give up earlier.
CALL_TIMEOUT = 10.0

# Attempts to reach the bus for one message, about a second apart.
_CONNECT_RETRIES = 3

# Without this, the broker silently drops a message to a queue that nobody has declared yet.
_OPTIONS = oslo_messaging.TransportOptions(at_least_once=True)

# MessageUndeliverable is not a MessagingException. OperationalError is what oslo.messaging lets through when
# its connection pool opens another connection while the bus is unreachable.
_BUS_ERRORS = (
    messaging_exc.MessagingException,
    messaging_exc.MessageUndeliverable,
    kombu.exceptions.OperationalError,
)


def _without_traceback(error: exception.ConsoledException) -> exception.ConsoledException:
    """Return the error without the remote traceback that oslo.messaging adds to its text."""
    for cls in type(error).__mro__:
        if cls.__module__ == exception.__name__:
            return cls(*error.args, **error.kwargs)  # type: ignore[no-any-return]
    return exception.InternalError()


class Caller:
    """Client of one topic.

    :param transport: one of ``transport.get_transport``, or another service's own
    :param level: ``[upgrade_levels]`` value for this topic, or None for the newest version
    :param timeout: seconds to wait for an answer
    :raises ValueError: this release does not know the level
    """

    topic: str
    unreachable: type[exception.ConsoledException] = exception.ManagerUnreachable

    def __init__(
        self,
        transport: oslo_messaging.RPCTransport,
        *,
        level: str | None = None,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        version, pins = versions.pinned(level)
        self._client = oslo_messaging.get_rpc_client(
            prepared(transport),
            oslo_messaging.Target(exchange=EXCHANGE, topic=self.topic, version=version),
            version_cap=version,
            timeout=timeout,
            retry=_CONNECT_RETRIES,
            serializer=Serializer(pins, backport=self._backport),
            transport_options=_OPTIONS,
        )
        self._connecting = threading.Lock()
        self._connected = threading.Event()

    def _backport(self, context: Any, primitive: dict[str, Any], wanted: dict[str, str]) -> Any:
        raise exception.IncompatibleObject(
            name=primitive.get('consoled_object.name'),
            version=primitive.get('consoled_object.version'),
            supported=wanted,
        )

    def _call(self, context: RequestContext, method: str, target: Any = None, **values: Any) -> Any:
        """Call a method and return its result.

        :param target: a prepared client; None for any server of the topic
        :raises ConsoledException: what the peer raised, or ``unreachable``
        """
        target = target or self._client
        call = functools.partial(target.call, context, method, **values)
        try:
            return call() if self._connected.is_set() else self._first_call(call, target.timeout)
        except exception.ConsoledException as exc:
            raise _without_traceback(exc) from None
        except oslo_messaging.RemoteError as exc:
            raise exception.InternalError() from exc
        except messaging_exc.MessagingTimeout as exc:
            raise self.unreachable(reason='no answer in time') from exc
        except _BUS_ERRORS as exc:
            raise self.unreachable(reason=type(exc).__name__) from exc

    def _first_call(self, call: Callable[[], Any], timeout: float) -> Any:
        """Make a call while no connection to the bus is known to exist.

        The library opens its first connection for replies without any time limit, and no option or argument
        sets one. So one call waits for that connection in a thread of its own, and nobody waits for the
        thread longer than for an answer.
        """
        if not self._connecting.acquire(blocking=False):
            if not self._connected.wait(timeout):
                raise messaging_exc.MessagingTimeout()
            return call()

        def connect() -> Any:
            try:
                return call()
            finally:
                self._connected.set()

        try:
            # Once connected, the call has its own time limit.
            return deadline.call(connect, timeout + 1)
        except deadline.DeadlineExceeded:
            raise messaging_exc.MessagingTimeout() from None

    def _cast(self, context: RequestContext, method: str, target: Any = None, **values: Any) -> None:
        """Send a message without waiting for a result.

        :raises ConsoledException: ``unreachable``: the bus did not take it
        """
        try:
            (target or self._client).cast(context, method, **values)
        except _BUS_ERRORS as exc:
            raise self.unreachable(reason=type(exc).__name__) from exc
