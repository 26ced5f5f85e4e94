# SPDX-License-Identifier: Apache-2.0
"""Base of the RPC clients: calls, casts, and the mapping of their failures to domain errors."""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import amqp.exceptions
import kombu.exceptions
import oslo_messaging
from oslo_messaging import exceptions as messaging_exc

from consoled import deadline, exception
from consoled.conf.messaging import EXCHANGE
from consoled.context import RequestContext
from consoled.rpc import arguments, errors, versions
from consoled.rpc.serializer import ReplySerializer
from consoled.rpc.transport import prepared

LOG = logging.getLogger(__name__)

# Seconds to wait for an answer where the caller does not say. Managers give up earlier.
CALL_TIMEOUT = 10.0

# Attempts to reach the bus for one message, about a second apart.
_CONNECT_RETRIES = 3

# Without this, the broker silently drops a message to a queue that nobody has declared yet.
_OPTIONS = oslo_messaging.TransportOptions(at_least_once=True)

# MessageUndeliverable is not a MessagingException. OperationalError is what oslo.messaging lets through when
# its connection pool opens another connection while the bus is unreachable, AMQPError when the bus refuses
# the user, the virtual host or a queue.
BUS_ERRORS = (
    messaging_exc.MessagingException,
    messaging_exc.MessageUndeliverable,
    kombu.exceptions.OperationalError,
    amqp.exceptions.AMQPError,
)


# A class name of an error that is none of ours, so that it may be logged.
_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]{0,63}')


def new_client(
    transport: oslo_messaging.RPCTransport, target: oslo_messaging.Target, timeout: float, **kwargs: Any
) -> Any:
    """Return a client of the RPC library that gives up connecting to the bus after a few attempts.

    :param timeout: seconds to wait for an answer
    """
    return oslo_messaging.get_rpc_client(
        prepared(transport),
        target,
        timeout=timeout,
        retry=_CONNECT_RETRIES,
        transport_options=_OPTIONS,
        **kwargs,
    )


class BusClient:
    """Calls and casts to peers, and the errors that they raise.

    What a peer answers is checked here: nothing but what the contract allows reaches the caller.

    :cvar unreachable: error for a peer that does not answer
    :cvar trusted: whether words in the errors of these peers are shown
    :cvar refusals: errors that the peers may raise; others become InternalError
    :cvar refusals_of: the same for methods that have their own
    :cvar replies: checks of the results of methods; others have no result, or one that ``replies.py`` reads
    :cvar repeated: arguments that the result, or each object in it, repeats, by method
    :param client: as ``new_client`` returns it
    """

    unreachable: type[exception.ConsoledException] = exception.ManagerUnreachable
    trusted: ClassVar[bool] = True
    refusals: ClassVar[errors.Kinds] = errors.OF_MANAGERS
    refusals_of: ClassVar[Mapping[str, errors.Kinds]] = {}
    replies: ClassVar[Mapping[str, arguments.Argument]] = {}
    repeated: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(self, client: Any) -> None:
        self._client = client
        self._connecting = threading.Lock()
        self._connected = threading.Event()

    def _call(self, context: RequestContext, method: str, target: Any = None, /, **values: Any) -> Any:
        """Call a method and return its result.

        :param target: a prepared client; None for any server of the topic
        :raises ConsoledException: what the peer raised; ``unreachable``; InternalError for an answer that is
            not in the contract
        """
        target = target or self._client
        call = functools.partial(target.call, context, method, **values)
        try:
            result = call() if self._connected.is_set() else self._first_call(call, target.timeout)
        except exception.ConsoledException as exc:
            rebuilt = self._rebuilt(method, exc, values)
            errors.forget(exc)
            raise rebuilt from None
        except oslo_messaging.RemoteError as exc:
            name = exc.exc_type
            errors.forget(exc)
            raise self._foreign(method, name) from None
        except messaging_exc.MessagingTimeout as exc:
            raise self.unreachable(reason='no answer in time') from exc
        except BUS_ERRORS as exc:
            raise self.unreachable(reason=type(exc).__name__) from exc
        except Exception as exc:
            # A peer can raise each of Python's own errors here (TimeoutError, StopIteration), and the library
            # fails in several ways on malformed ones.
            errors.forget(exc)
            raise self._foreign(method, type(exc).__name__) from None
        return self._checked(method, result, values)

    def _rebuilt(
        self, method: str, error: exception.ConsoledException, values: Mapping[str, Any]
    ) -> exception.ConsoledException:
        allowed = self.refusals_of.get(method, self.refusals)
        rebuilt = errors.rebuild(error, allowed, values, trusted=self.trusted)
        return rebuilt or _unexpected(method, error.code)

    def _foreign(self, method: str, name: object) -> exception.ConsoledException:
        """Return what the caller gets for an error that is none of ours.

        :param name: of its class, as the peer wrote it
        """
        return _unexpected(method, name)

    def _checked(self, method: str, result: Any, values: Mapping[str, Any]) -> Any:
        """Return the result of a method.

        :raises InternalError: it is not what the method returns
        """
        if method not in self.replies:
            return result
        try:
            checked = self.replies[method].check(result)
            for each in getattr(checked, 'objects', [checked]):
                for name in self.repeated.get(method, ()):
                    if getattr(each, name) != str(values[name]).lower():
                        raise ValueError(f'has another {name}')
        except ValueError as exc:
            LOG.error('The result of %s %s', method, exc)
            raise exception.InternalError() from None
        return checked

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

    def _cast(self, context: RequestContext, method: str, target: Any = None, /, **values: Any) -> None:
        """Send a message without waiting for a result.

        :raises ConsoledException: ``unreachable``: the bus did not take it
        """
        try:
            (target or self._client).cast(context, method, **values)
        except BUS_ERRORS as exc:
            raise self.unreachable(reason=type(exc).__name__) from exc


class Caller(BusClient):
    """Client of one topic of the contract.

    A call says the oldest version that has what it uses, so that peers of older releases answer it.

    :cvar newer_arguments: version that has an argument, by the names of those that came after 1.0. They are
        optional, and left out where they are None
    :param transport: one of ``transport.get_transport``, or another service's own
    :param level: ``[upgrade_levels]`` value for this topic, or None for the newest version
    :param timeout: seconds to wait for an answer
    :raises ValueError: this release does not know the level
    """

    topic: str
    newer_arguments: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        transport: oslo_messaging.RPCTransport,
        *,
        level: str | None = None,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        version, pins = versions.pinned(level)
        target = oslo_messaging.Target(exchange=EXCHANGE, topic=self.topic, version=versions.OLDEST)
        serializer = ReplySerializer(pins, backport=self._backport)
        super().__init__(new_client(transport, target, timeout, version_cap=version, serializer=serializer))

    def _call(self, context: RequestContext, method: str, target: Any = None, /, **values: Any) -> Any:
        for name in self.newer_arguments.keys() & values.keys():
            if values[name] is None:
                del values[name]
                continue
            target = (target or self._client).prepare(version=self.newer_arguments[name])
            if not target.can_send_version():  # [upgrade_levels]
                raise exception.InvalidArgument(argument=name, reason='is too new for this cell')
        return super()._call(context, method, target, **values)

    def _backport(self, context: Any, primitive: dict[str, Any], wanted: dict[str, str]) -> Any:
        raise exception.IncompatibleObject(
            name=primitive.get('consoled_object.name'),
            version=primitive.get('consoled_object.version'),
            supported=wanted.get(str(primitive.get('consoled_object.name'))),
        )


def _unexpected(method: str, name: object) -> exception.InternalError:
    """Log that an error is none that the contract allows, and return what the caller gets instead."""
    shown = name if isinstance(name, str) and _NAME.fullmatch(name) else '?'
    LOG.error('%s failed: the peer, or the way to it, raised %s', method, shown)
    return exception.InternalError()
