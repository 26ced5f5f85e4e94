# SPDX-License-Identifier: Apache-2.0
"""Every domain error of consoled: its stable code, its message, its HTTP status before an upgrade.

The codes are part of the contract (callers branch on them): do not change a code's value. The messages are
safe to show to users: they hold no token, no address of a hypervisor, and nothing of another user.

The classes travel over RPC as themselves: oslo.messaging builds them again from ``args`` and ``kwargs``, so
a constructor takes an optional message and the values of its format, and both are JSON primitives.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ConsoledException(Exception):
    """Base of all domain errors.

    :cvar code: stable, machine-readable name of the error
    :cvar http_status: what the proxy answers before the websocket upgrade
    :cvar retryable: whether the same request may succeed later without a change by the caller
    """

    code: ClassVar[str] = 'internal_error'
    msg_fmt: ClassVar[str] = 'An internal error occurred; the log of the service has the details.'
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, **kwargs: Any) -> None:
        self.kwargs = kwargs
        super().__init__(message if message is not None else self.msg_fmt % kwargs)


class InternalError(ConsoledException):
    """Anything unexpected. The text is neutral on purpose: the detail is in the server's log only."""


class InvalidArgument(ConsoledException):
    """An argument of a call has the wrong type, form or size. Names the argument, never its value."""

    code = 'invalid_argument'
    msg_fmt = 'Argument %(argument)s: %(reason)s.'
    http_status = 400


class InvalidToken(ConsoledException):
    """One answer for a token that is unknown, expired, used or malformed: a guesser learns nothing."""

    code = 'invalid_token'
    msg_fmt = 'The console token is not valid or has expired.'
    http_status = 401


class InvalidConsole(ConsoledException):
    """What was asked to be authorized is not a console that can be opened."""

    code = 'invalid_console'
    msg_fmt = 'The console can not be authorized: %(reason)s.'
    http_status = 400


class TTLTooLong(ConsoledException):
    code = 'ttl_too_long'
    msg_fmt = 'A token lifetime of %(ttl)s s is over the limit of %(limit)s s.'
    http_status = 400


class InstanceNotFound(ConsoledException):
    code = 'instance_not_found'
    msg_fmt = 'Instance %(instance_uuid)s has no consoles here.'
    http_status = 404


class ConsoleGone(ConsoledException):
    """The console that a token was issued for is not that guest's any more."""

    code = 'console_gone'
    msg_fmt = 'The console does not exist any more.'
    http_status = 404


class ConsolePortsExhausted(ConsoledException):
    code = 'console_ports_exhausted'
    msg_fmt = 'All %(console_type)s consoles of instance %(instance_uuid)s are connected.'
    http_status = 409
    retryable = True


class ConsoleInUse(ConsoledException):
    """Says since when, never by whom."""

    code = 'console_in_use'
    msg_fmt = 'The console is in use since %(since)s.'
    http_status = 409
    retryable = True


class TooManySessions(ConsoledException):
    code = 'too_many_sessions'
    msg_fmt = 'The limit of %(limit)s sessions per %(scope)s is reached.'
    http_status = 429
    retryable = True


class ProxyUnknown(ConsoledException):
    """The proxy has no live lease: it must register a new life."""

    code = 'proxy_unknown'
    msg_fmt = 'Proxy %(proxy_id)s is not registered.'
    http_status = 503
    retryable = True


class ComputeUnreachable(ConsoledException):
    code = 'compute_unreachable'
    msg_fmt = 'The compute host of the console does not answer.'
    http_status = 503
    retryable = True


class ManagerUnreachable(ConsoledException):
    """Raised on the caller's side: no manager answered in time, or the bus is away.

    The call may have been carried out all the same (DESIGN invariant 6): repeat it with the same ids.
    """

    code = 'manager_unreachable'
    msg_fmt = 'The console service does not answer (%(reason)s).'
    http_status = 503
    retryable = True


class ManagerBusy(ConsoledException):
    code = 'manager_busy'
    msg_fmt = 'The console service is busy.'
    http_status = 503
    retryable = True


class DatabaseUnavailable(ConsoledException):
    code = 'database_unavailable'
    msg_fmt = 'The database of the console service does not answer.'
    http_status = 503
    retryable = True


class IncompatibleObject(ConsoledException):
    """A peer sent an object, or a version of one, that this release does not know."""

    code = 'incompatible_object'
    msg_fmt = 'Object %(name)s is not supported in version %(version)s; supported: %(supported)s.'
    http_status = 400


# What a proxy refuses by itself.


class BadRequest(ConsoledException):
    """Not HTTP/1.1 (RFC 9112), or no websocket handshake (RFC 6455, section 4.2.1)."""

    code = 'bad_request'
    msg_fmt = 'The request is not understood: %(reason)s.'
    http_status = 400


class UpgradeRequired(ConsoledException):
    code = 'upgrade_required'
    msg_fmt = 'This address speaks websocket; open it with a console page or a websocket client.'
    http_status = 426


class NotFound(ConsoledException):
    code = 'not_found'
    msg_fmt = 'There is no such page.'
    http_status = 404


class MethodNotAllowed(ConsoledException):
    code = 'method_not_allowed'
    msg_fmt = 'Only GET and HEAD are answered.'
    http_status = 405


class RequestTimeout(ConsoledException):
    code = 'request_timeout'
    msg_fmt = 'The request did not arrive in time.'
    http_status = 408


class RequestTooLarge(ConsoledException):
    code = 'request_too_large'
    msg_fmt = 'The head of the request is too large.'
    http_status = 431


class OriginRefused(ConsoledException):
    """RFC 6455, section 10.2: a page of another site opened the websocket."""

    code = 'origin_refused'
    msg_fmt = 'Consoles can not be opened from this web site.'
    http_status = 403


class RateLimited(ConsoledException):
    code = 'rate_limited'
    msg_fmt = 'Too many attempts from your address.'
    http_status = 429
    retryable = True


class ProxyBusy(ConsoledException):
    code = 'proxy_busy'
    msg_fmt = 'The console proxy is busy.'
    http_status = 503
    retryable = True


class ProxyStopping(ConsoledException):
    code = 'proxy_stopping'
    msg_fmt = 'The console proxy is being restarted.'
    http_status = 503
    retryable = True


class ModeUnsupported(ConsoledException):
    """Its option ``mode`` asks for what the proxy can't do with consoles of its type."""

    code = 'mode_unsupported'
    msg_fmt = 'A console of this type can not be opened for viewing only.'
    http_status = 400


class TargetForbidden(ConsoledException):
    """The console lies outside of the allowed networks and ports. Where it lies is for the log only."""

    code = 'target_forbidden'
    msg_fmt = 'The console is in a place that this proxy may not connect to.'
    http_status = 502


class TargetFailed(ConsoledException):
    code = 'target_failed'
    msg_fmt = "The guest's console can not be reached."
    http_status = 502
    retryable = True


class TargetTimeout(ConsoledException):
    code = 'target_timeout'
    msg_fmt = "The guest's console does not answer."
    http_status = 504
    retryable = True


# What a compute agent says of its guests.


class ConsoleTypeUnavailable(ConsoledException):
    """The guest has none of this type, or its compute host does not offer them."""

    code = 'console_type_unavailable'
    msg_fmt = 'Instance %(instance_uuid)s has no %(console_type)s console.'
    http_status = 404


class InstanceNotReady(ConsoledException):
    """The guest is not running, or is on its way: what holds of its consoles now may not hold in a moment."""

    code = 'instance_not_ready'
    msg_fmt = 'Instance %(instance_uuid)s has no console now: %(reason)s.'
    http_status = 409
    retryable = True


class HypervisorUnreachable(ConsoledException):
    """The compute host answers, its hypervisor does not. Why is for the log only."""

    code = 'hypervisor_unreachable'
    msg_fmt = 'The hypervisor of the compute host does not answer.'
    http_status = 503
    retryable = True
