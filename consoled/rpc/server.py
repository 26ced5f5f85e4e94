# SPDX-License-Identifier: Apache-2.0
"""RPC servers: which methods of an endpoint can be called, and how their arguments and errors are handled."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import oslo_messaging
from oslo_messaging.rpc import dispatcher
from oslo_messaging.rpc import server as messaging_server

from consoled import exception
from consoled.conf.messaging import EXCHANGE
from consoled.rpc import arguments, versions
from consoled.rpc.serializer import Serializer

LOG = logging.getLogger(__name__)

# What a message has besides its context and its namespace.
_MESSAGE = {
    'method': arguments.identifier(64),
    'version': arguments.version().default_to('1.0'),
    'args': arguments.tree(max_depth=16, max_nodes=1_000_000).default_to({}),
}

Method = TypeVar('Method', bound=Callable[..., Any])


class Endpoint:
    """Base of endpoints. Only methods marked with ``exposed`` or ``exposed_cast`` can be called."""

    target = oslo_messaging.Target(version=versions.RPC_VERSION)

    def observe(self, method: str, code: str, seconds: float) -> None:
        """Called after each call of an exposed method.

        :param code: ``ok``, or the code of the error
        :param seconds: time the call took
        """


def exposed(**spec: arguments.Argument) -> Callable[[Method], Method]:
    """Expose a method over RPC with these arguments and no others.

    Domain errors are sent to the caller. Any other error is logged here, and the caller gets InternalError.
    """
    return functools.partial(_expose, spec, logging.DEBUG)


def exposed_cast(**spec: arguments.Argument) -> Callable[[Method], Method]:
    """Expose a method that callers cast to. They get no errors, so refusals are logged as warnings."""
    return functools.partial(_expose, spec, logging.WARNING)


def _expose(spec: dict[str, arguments.Argument], level: int, method: Method) -> Method:
    @functools.wraps(method)
    def run(self: Endpoint, context: Any, /, **values: Any) -> Any:
        # Positional, so that a peer's arguments may have any name, and are refused if it is not a known one.
        started = time.perf_counter()
        code = 'ok'
        try:
            return method(self, context, **arguments.checked(spec, values))
        except exception.ConsoledException as exc:
            code = exc.code
            LOG.log(level, '%s refused: %s', method.__name__, exc)
            raise dispatcher.ExpectedException from exc
        except Exception:
            LOG.exception('%s failed', method.__name__)
            code = exception.InternalError.code
            _raise_expected(exception.InternalError())
        finally:
            self.observe(method.__name__, code, time.perf_counter() - started)

    oslo_messaging.expose(run)
    return run  # type: ignore[return-value]


def _raise_expected(error: exception.ConsoledException) -> None:
    """Raise ``error`` so that oslo.messaging sends it to the caller without logging a traceback."""
    try:
        raise error from None
    except exception.ConsoledException:
        raise dispatcher.ExpectedException from None


class _ServerSerializer(Serializer):
    """Refuses malformed objects as an expected error, so that a peer cannot fill the log with tracebacks."""

    def deserialize_entity(self, context: Any, entity: Any) -> Any:
        try:
            return super().deserialize_entity(context, entity)
        except exception.ConsoledException as exc:
            raise dispatcher.ExpectedException from exc


class _Dispatcher(dispatcher.RPCDispatcher):  # type: ignore[misc]
    """Refuses messages that the library fails on, or logs with a traceback, as expected errors.

    Its own errors for methods and versions that nobody serves stay, because callers know them.
    """

    def dispatch(self, incoming: Any) -> Any:
        try:
            self._check(incoming.message)
        except (exception.InvalidArgument, dispatcher.RPCDispatcherError) as exc:
            LOG.warning('Refused a message: %s', exc)
            raise dispatcher.ExpectedException from exc
        if not _is_monitoring_timeout(incoming.client_timeout):
            incoming.client_timeout = None
        return super().dispatch(incoming)

    def _check(self, message: Any) -> None:
        """Check that a message names a method that can be called, and that its arguments can be read.

        :raises InvalidArgument: it is malformed
        :raises RPCDispatcherError: there is no such method, or not in this version
        """
        if not isinstance(message, dict):
            raise exception.InvalidArgument(argument='message', reason='must be a dict')
        found = arguments.checked(_MESSAGE, {name: message[name] for name in _MESSAGE if name in message})
        served = [
            endpoint
            for endpoint in self.endpoints
            for target in [getattr(endpoint, 'target', None) or self._default_target]
            if self._is_namespace(target, message.get('namespace'))
            and self._is_compatible(target, found['version'])
        ]
        method = found['method']
        if not served:
            raise dispatcher.UnsupportedVersion(found['version'], method=method)
        if not any(self.access_policy.is_allowed(endpoint, method) for endpoint in served):
            raise dispatcher.NoSuchMethod(method)


def _is_monitoring_timeout(value: object) -> bool:
    """Return whether a caller may get heartbeats in this interval, in seconds, while it waits."""
    return isinstance(value, int | float) and 2 <= value <= 3600  # False for NaN


def drain(server: oslo_messaging.RPCServer) -> None:
    """Stop a server after it has finished the calls that it has received.

    The library alone loses some. Its consumer exists until its connection is closed, and messages that the
    broker delivers in the meantime are acknowledged but never dispatched: under load, every stop and every
    reload lost a call of each busy caller (seen with oslo.messaging 18.3).
    """
    server.stop()
    server.wait()
    poller = getattr(server.listener, '_poll_style_listener', None)
    late = getattr(poller, 'incoming', None)  # only the RabbitMQ driver has it
    while late:
        server._process_incoming([late.pop(0)])


def get_server(
    transport: oslo_messaging.RPCTransport,
    topic: str,
    server: str,
    endpoints: Sequence[Endpoint],
    *,
    exchange: str = EXCHANGE,
) -> oslo_messaging.RPCServer:
    """Return a server on ``topic`` and ``topic.server``, not started.

    :param server: name of this server, unique on its topic
    :param exchange: another exchange than the cell's own
    """
    return messaging_server.RPCServer(
        transport,
        oslo_messaging.Target(exchange=exchange, topic=topic, server=server),
        _Dispatcher(list(endpoints), _ServerSerializer(), oslo_messaging.ExplicitRPCAccessPolicy),
    )
