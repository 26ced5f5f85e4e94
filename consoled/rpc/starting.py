# SPDX-License-Identifier: Apache-2.0
"""Start of RPC servers, which waits for a bus that does not let them in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import amqp.exceptions
import oslo_messaging

from consoled import backoff
from consoled.rpc.caller import BUS_ERRORS

LOG = logging.getLogger(__name__)

_FIRST_PAUSE = 1.0  # seconds
_LONGEST_PAUSE = 30.0  # seconds

# RabbitMQ's answer to a queue or an exchange that exists with other properties: 406 in AMQP 0-9-1.
_DECLARED_OTHERWISE = (
    'a queue or an exchange of this name exists with other properties ([oslo_messaging_rabbit] '
    'amqp_durable_queues, rabbit_quorum_queue): delete it, or set the options as they were'
)


class Abandoned(Exception):
    """A server was not started: nobody waits for it any more."""


def start(
    build: Callable[[], oslo_messaging.RPCServer], abandoned: threading.Event | None = None
) -> oslo_messaging.RPCServer:
    """Build a server and start it, again and again with growing pauses until the bus lets it.

    The library itself waits for a bus that cannot be reached, but gives up on one that refuses the user, or
    the queue. A process that ended then would be started again at once, and end again.

    :param build: returns a new server; one whose start has failed cannot be started again
    :param abandoned: set when the server is not wanted any more
    :returns: the server, started
    :raises Abandoned: ``abandoned`` was set
    """
    abandoned = abandoned or threading.Event()
    failures = 0
    while not abandoned.is_set():
        server = build()
        try:
            server.start()
        except BUS_ERRORS as exc:
            failures += 1
            why = _DECLARED_OTHERWISE if isinstance(exc, amqp.exceptions.PreconditionFailed) else exc
            LOG.error('Cannot listen on the message bus: %s', why)
        else:
            return server
        abandoned.wait(backoff.after(failures, _FIRST_PAUSE, _LONGEST_PAUSE))
    raise Abandoned
