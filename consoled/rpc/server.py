# SPDX-License-Identifier: Apache-2.0
"""RPC servers: what of an endpoint can be called, with arguments checked and errors mapped, once, here."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import oslo_messaging
from oslo_messaging.rpc import dispatcher

from consoled import exception
from consoled.rpc import arguments
from consoled.rpc.serializer import Serializer

LOG = logging.getLogger(__name__)

Method = TypeVar('Method', bound=Callable[..., Any])


class Endpoint:
    """Base of endpoints. Only methods marked ``exposed`` can be called."""

    def observe(self, method: str, code: str, seconds: float) -> None:
        """Told of each call: its outcome ('ok' or the error's code) and how long it took."""


def exposed(**spec: arguments.Argument) -> Callable[[Method], Method]:
    """Let a method be called over RPC, with these arguments and no others.

    Domain errors travel to the caller. Anything else is logged here and travels as InternalError.
    """
    return functools.partial(_expose, spec, logging.DEBUG)


def exposed_cast(**spec: arguments.Argument) -> Callable[[Method], Method]:
    """The same for a method that is cast to: its caller hears of no error, so the log does."""
    return functools.partial(_expose, spec, logging.WARNING)


def _expose(spec: dict[str, arguments.Argument], level: int, method: Method) -> Method:
    @functools.wraps(method)
    def run(self: Endpoint, context: Any, **values: Any) -> Any:
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
    """Raise so that oslo.messaging sends ``error`` to the caller without logging it as its own failure."""
    try:
        raise error from None
    except exception.ConsoledException:
        raise dispatcher.ExpectedException from None


class _ServerSerializer(Serializer):
    """Refuses malformed objects as an expected error: a peer can't fill the log with tracebacks."""

    def deserialize_entity(self, context: Any, entity: Any) -> Any:
        try:
            return super().deserialize_entity(context, entity)
        except exception.ConsoledException as exc:
            raise dispatcher.ExpectedException from exc


def drain(server: oslo_messaging.RPCServer) -> None:
    """Stop a server: take no more calls, finish those it has, let go of the bus.

    The library alone would lose some. Until its connection is closed the consumer still stands, and what the
    broker sends it then is acknowledged and forgotten: under load, every stop and every reload lost a call
    for each busy caller (seen with oslo.messaging 18.3).
    """
    server.stop()
    server.wait()
    poller = getattr(server.listener, '_poll_style_listener', None)
    late = getattr(poller, 'incoming', None)  # of the RabbitMQ driver; the others have none
    while late:
        server._process_incoming([late.pop(0)])


def get_server(
    transport: oslo_messaging.RPCTransport,
    topic: str,
    server: str,
    endpoints: Sequence[Endpoint],
    *,
    exchange: str | None = None,
) -> oslo_messaging.RPCServer:
    """Return a server on ``topic`` and ``topic.server``, not started. Unmarked methods are not callable.

    :param exchange: None: the cell's
    """
    return oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(exchange=exchange, topic=topic, server=server),
        list(endpoints),
        serializer=_ServerSerializer(),
        access_policy=oslo_messaging.ExplicitRPCAccessPolicy,
    )
