# SPDX-License-Identifier: Apache-2.0
"""Domain errors of consoled: stable codes, messages for users, HTTP statuses.

Codes are part of the contract, because callers branch on them: never change the value of a code. Messages are
safe to show to users: they contain no token, no address of a hypervisor, and nothing about another user.

Errors are sent over RPC as themselves. oslo.messaging rebuilds them from ``args`` and ``kwargs``, so a
constructor takes an optional message and the values of its format, all of them JSON primitives.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ConsoledException(Exception):
    """Base of all domain errors.

    :cvar code: stable, machine-readable name of the error
    :cvar msg_fmt: message for users, with named placeholders
    :cvar http_status: status of the proxy's answer before the websocket upgrade
    :cvar retryable: whether the same request may succeed later without a change by the caller
    :cvar extra: names of values besides those of the message, for programs
    """

    code: ClassVar[str] = 'internal_error'
    msg_fmt: ClassVar[str] = 'An internal error occurred. The log of the service has the details.'
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    extra: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str | None = None, **kwargs: Any) -> None:
        self.kwargs = kwargs
        super().__init__(message if message is not None else self.msg_fmt % kwargs)


class InternalError(ConsoledException):
    """An unexpected error. Its message is neutral on purpose; only the server's log has the details."""


class InvalidArgument(ConsoledException):
    """An argument of a call has the wrong type, form or size. The message never contains its value."""

    code = 'invalid_argument'
    msg_fmt = 'Argument %(argument)s: %(reason)s.'
    http_status = 400


class InvalidToken(ConsoledException):
    """A token is unknown, expired, used or malformed. All get one answer, so that guessers learn nothing."""

    code = 'invalid_token'
    msg_fmt = 'The console token is not valid or has expired.'
    http_status = 401


class InvalidConsole(ConsoledException):
    """The console of an authorize request is not one that can be opened."""

    code = 'invalid_console'
    msg_fmt = 'The console cannot be authorized: %(reason)s.'
    http_status = 400


class TTLTooLong(ConsoledException):
    """The requested lifetime of a token exceeds ``[consoleauth] max_token_ttl``."""

    code = 'ttl_too_long'
    msg_fmt = 'A token lifetime of %(ttl)s s exceeds the limit of %(limit)s s.'
    http_status = 400


class InstanceNotFound(ConsoledException):
    """The cell, or the compute host that was asked, does not know the instance."""

    code = 'instance_not_found'
    msg_fmt = 'Instance %(instance_uuid)s has no consoles here.'
    http_status = 404


class ConsoleGone(ConsoledException):
    """The console that a token was issued for no longer belongs to its instance."""

    code = 'console_gone'
    msg_fmt = 'The console no longer exists.'
    http_status = 404


class ConsoleContested(ConsoledException):
    """Instances of two compute hosts have the console's address, so nobody knows which one answers there."""

    code = 'console_contested'
    msg_fmt = 'The console cannot be reached safely: its address is in use twice. Tell the operator.'
    http_status = 409
    retryable = True


class ConsolePortsExhausted(ConsoledException):
    """No console of the type is free."""

    code = 'console_ports_exhausted'
    msg_fmt = 'All %(console_type)s consoles of instance %(instance_uuid)s are connected.'
    http_status = 409
    retryable = True


class ConsoleInUse(ConsoledException):
    """The console has as many sessions as it may have. The message says since when, never by whom.

    If the user may open another serial port of the instance instead, ``kwargs`` has how many there are
    (``serial_ports``) and the numbers of those that are free (``free_ports``).
    """

    code = 'console_in_use'
    msg_fmt = 'The console has been in use since %(since)s.'
    http_status = 409
    retryable = True
    extra = ('serial_ports', 'free_ports')


class TooManySessions(ConsoledException):
    """A limit per token, instance, project, address or process is reached."""

    code = 'too_many_sessions'
    msg_fmt = 'The limit of %(limit)s sessions per %(scope)s has been reached.'
    http_status = 429
    retryable = True


class ProxyUnknown(ConsoledException):
    """The proxy has no live lease and must register a new life."""

    code = 'proxy_unknown'
    msg_fmt = 'Proxy %(proxy_id)s is not registered.'
    http_status = 503
    retryable = True


class ComputeUnreachable(ConsoledException):
    """The compute agent did not answer in time, or the bus is down."""

    code = 'compute_unreachable'
    msg_fmt = 'The compute host of the console does not answer.'
    http_status = 503
    retryable = True


class ManagerUnreachable(ConsoledException):
    """No manager answered in time, or the bus is down. Clients raise it.

    The call may have been carried out nevertheless. Repeat it with the same ids (invariant 6 in
    doc/design.md).
    """

    code = 'manager_unreachable'
    msg_fmt = 'The console service does not answer (%(reason)s).'
    http_status = 503
    retryable = True


class ManagerBusy(ConsoledException):
    """Too many calls already wait for other services."""

    code = 'manager_busy'
    msg_fmt = 'The console service is busy.'
    http_status = 503
    retryable = True


class DatabaseUnavailable(ConsoledException):
    """The database did not answer within ``[database] retry_time``."""

    code = 'database_unavailable'
    msg_fmt = 'The database of the console service does not answer.'
    http_status = 503
    retryable = True


class SourceUnavailable(ConsoledException):
    """The service that may have issued a token does not answer, so nobody can say whether it is valid."""

    code = 'source_unavailable'
    msg_fmt = 'The service that issues console tokens does not answer.'
    http_status = 503
    retryable = True


class IncompatibleObject(ConsoledException):
    """A peer sent an object, or a version of an object, that this release does not know."""

    code = 'incompatible_object'
    msg_fmt = 'Version %(version)s of object %(name)s is not supported. Supported: %(supported)s.'
    http_status = 400


# Raised by proxies.


class BadRequest(ConsoledException):
    """The request is not HTTP/1.1 (RFC 9112), or is no websocket handshake (RFC 6455, section 4.2.1)."""

    code = 'bad_request'
    msg_fmt = 'Bad request: %(reason)s.'
    http_status = 400


class UpgradeRequired(ConsoledException):
    """A plain HTTP request came to the address of the websocket (RFC 9110, section 15.5.22)."""

    code = 'upgrade_required'
    msg_fmt = 'This address serves websockets only. Open it with a console page or a websocket client.'
    http_status = 426


class NotFound(ConsoledException):
    """The proxy serves no page at that path."""

    code = 'not_found'
    msg_fmt = 'There is no such page.'
    http_status = 404


class MethodNotAllowed(ConsoledException):
    """The request has another method than GET or HEAD."""

    code = 'method_not_allowed'
    msg_fmt = 'Only GET and HEAD requests are allowed.'
    http_status = 405


class RequestTimeout(ConsoledException):
    """The request was not complete within ``[proxy] request_timeout``."""

    code = 'request_timeout'
    msg_fmt = 'The request did not arrive in time.'
    http_status = 408


class RequestTooLarge(ConsoledException):
    """The head of the request exceeds ``[proxy] max_header_size``."""

    code = 'request_too_large'
    msg_fmt = 'The headers of the request are too large.'
    http_status = 431


class OriginRefused(ConsoledException):
    """A page of another site opened the websocket (RFC 6455, section 10.2)."""

    code = 'origin_refused'
    msg_fmt = 'Consoles cannot be opened from this web site.'
    http_status = 403


class RateLimited(ConsoledException):
    """A client address sends too many invalid tokens, or a token or an address asks too much at a time."""

    code = 'rate_limited'
    msg_fmt = 'Too many attempts from your address.'
    http_status = 429
    retryable = True


class ProxyBusy(ConsoledException):
    """The proxy process has reached one of its limits."""

    code = 'proxy_busy'
    msg_fmt = 'The console proxy is busy.'
    http_status = 503
    retryable = True


class ProxyStopping(ConsoledException):
    """The proxy is draining and opens no further sessions."""

    code = 'proxy_stopping'
    msg_fmt = 'The console proxy is being restarted.'
    http_status = 503
    retryable = True


class ModeUnsupported(ConsoledException):
    """The console's option ``mode`` asks for something that the proxy cannot do for its type."""

    code = 'mode_unsupported'
    msg_fmt = 'A console of this type cannot be opened for viewing only.'
    http_status = 400


class TargetForbidden(ConsoledException):
    """The console's address is outside the allowed networks and ports. Only the log has the address."""

    code = 'target_forbidden'
    msg_fmt = 'This proxy is not allowed to connect to the console.'
    http_status = 502


class TargetFailed(ConsoledException):
    """The connection to the console, or its handshake, failed. Only the log has the reason."""

    code = 'target_failed'
    msg_fmt = "The guest's console cannot be reached."
    http_status = 502
    retryable = True


class TargetTimeout(ConsoledException):
    """The connection to the console was not ready within ``[proxy] connect_timeout``."""

    code = 'target_timeout'
    msg_fmt = "The guest's console does not answer."
    http_status = 504
    retryable = True


# Raised by compute agents.


class ConsoleTypeUnavailable(ConsoledException):
    """The guest has no console of this type, or its compute host does not offer consoles of the type."""

    code = 'console_type_unavailable'
    msg_fmt = 'Instance %(instance_uuid)s has no %(console_type)s console.'
    http_status = 404


class InstanceNotReady(ConsoledException):
    """The guest is not running or is being migrated, so its consoles may change at any moment."""

    code = 'instance_not_ready'
    msg_fmt = 'Instance %(instance_uuid)s has no console at the moment: %(reason)s.'
    http_status = 409
    retryable = True


class HypervisorUnreachable(ConsoledException):
    """The compute host answers, but its hypervisor does not. Only the log has the reason."""

    code = 'hypervisor_unreachable'
    msg_fmt = 'The hypervisor of the compute host does not answer.'
    http_status = 503
    retryable = True
