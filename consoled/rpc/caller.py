# SPDX-License-Identifier: Apache-2.0
"""What the clients of the contract share: calls and casts, and what their failures become."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import oslo_messaging
from kombu.exceptions import OperationalError
from oslo_messaging import exceptions as messaging_exc

from consoled import deadline, exception
from consoled.context import RequestContext
from consoled.rpc import versions
from consoled.rpc.serializer import Serializer

# Longest wait for an answer, in seconds, where the caller names none. A manager gives up before.
CALL_TIMEOUT = 10.0

# How often the library tries to reach the bus for one message, about a second apart.
_CONNECT_RETRIES = 3

# Without this a message to a queue that nobody has declared (yet) would be dropped in silence.
_OPTIONS = oslo_messaging.TransportOptions(at_least_once=True)

# MessageUndeliverable is no MessagingException. OperationalError is kombu's: oslo.messaging lets it through
# when its pool opens another connection while the broker is away.
_BUS_ERRORS = (messaging_exc.MessagingException, messaging_exc.MessageUndeliverable, OperationalError)


def _plain(error: exception.ConsoledException) -> exception.ConsoledException:
    """The error without the remote traceback that oslo.messaging puts into its text."""
    for cls in type(error).__mro__:
        if cls.__module__ == exception.__name__:
            return cls(*error.args, **error.kwargs)  # type: ignore[no-any-return]
    return exception.InternalError()


class Caller:
    """One topic's client.

    :param level: ``[upgrade_levels]`` value for this topic, or None
    :param timeout: seconds to wait for an answer
    :raises ValueError: the level is not known
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
            transport,
            oslo_messaging.Target(topic=self.topic, version=version),
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
        target = target or self._client
        call = functools.partial(target.call, context, method, **values)
        try:
            return call() if self._connected.is_set() else self._first_call(call, target.timeout)
        except exception.ConsoledException as exc:
            raise _plain(exc) from None
        except oslo_messaging.RemoteError as exc:
            raise exception.InternalError() from exc
        except messaging_exc.MessagingTimeout as exc:
            raise self.unreachable(reason='no answer in time') from exc
        except _BUS_ERRORS as exc:
            raise self.unreachable(reason=type(exc).__name__) from exc

    def _first_call(self, call: Callable[[], Any], timeout: float) -> Any:
        """Make a call while it is not known that the bus can be reached.

        For its first connection, the one replies come by, the library waits without any limit, and no option
        or argument changes that. So one call waits for it in a thread of its own, and nobody waits for that
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
            return deadline.call(connect, timeout + 1)  # the call has a limit of its own once it is connected
        except deadline.DeadlineExceeded:
            raise messaging_exc.MessagingTimeout() from None

    def _cast(self, context: RequestContext, method: str, target: Any = None, **values: Any) -> None:
        try:
            (target or self._client).cast(context, method, **values)
        except _BUS_ERRORS as exc:
            raise self.unreachable(reason=type(exc).__name__) from exc
