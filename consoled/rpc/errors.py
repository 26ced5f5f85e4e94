# SPDX-License-Identifier: Apache-2.0
"""Errors that peers send, made anew: a peer decides which error it is, and writes nothing of its text.

The class must be one that the called method may raise, the text is our own, and the values in it are those
that the caller sent, or are checked. So an attacker who has taken over a compute host cannot speak to users,
and no peer can raise an error that its caller takes for its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from consoled import exception
from consoled.objects import fields
from consoled.rpc import arguments as arg
from consoled.rpc import versions

Kinds = frozenset[type[exception.ConsoledException]]

# Only proxies raise these, and nobody calls a proxy.
_OF_PROXIES = frozenset(
    {
        exception.BadRequest,
        exception.UpgradeRequired,
        exception.NotFound,
        exception.MethodNotAllowed,
        exception.RequestTimeout,
        exception.RequestTooLarge,
        exception.OriginRefused,
        exception.RateLimited,
        exception.ProxyBusy,
        exception.ProxyStopping,
        exception.ModeUnsupported,
        exception.TargetForbidden,
        exception.TargetFailed,
        exception.TargetTimeout,
    }
)

OF_MANAGERS = frozenset(
    each
    for each in vars(exception).values()
    if isinstance(each, type) and issubclass(each, exception.ConsoledException) and each not in _OF_PROXIES
)

# What an agent says when a manager asks it about a console. A user reads it, or acts on it.
OF_CHECKS = frozenset(
    {
        exception.ConsoleGone,
        exception.InstanceNotFound,
        exception.InstanceNotReady,
        exception.HypervisorUnreachable,
        exception.InternalError,
    }
)
# An agent that authorizes a console passes on what its manager says of that.
OF_AGENTS = OF_CHECKS | {
    exception.ConsoleTypeUnavailable,
    exception.ConsolePortsExhausted,
    exception.ConsoleContested,
    exception.InvalidArgument,
    exception.InvalidConsole,
    exception.TTLTooLong,
    exception.IncompatibleObject,
    exception.ManagerUnreachable,
    exception.ManagerBusy,
    exception.DatabaseUnavailable,
}

# Reasons that agents may give. Any other is replaced by the one of the error's class.
_REASONS_OF_AGENTS = frozenset(
    {
        'it is not running',
        'it is being shut down',
        'it is being migrated',
        'it is being started, or migrated to or from this host',
    }
)
_REASON_INSTEAD: dict[type[exception.ConsoledException], str] = {
    exception.InstanceNotReady: 'it is not ready',
    exception.InvalidArgument: 'is not accepted by the compute host',
    exception.InvalidConsole: 'its compute host describes it wrongly',
    exception.ManagerUnreachable: 'the compute host got no answer',
}

_UNKNOWN = '?'  # stands for a value that is missing or malformed

# In the text these are what the caller has sent, if it has sent them.
_SAID_BY_CALLER = frozenset({'console_type', 'instance_uuid', 'proxy_id', 'ttl'})


def _matching(pattern: str) -> arg.Check:
    compiled = re.compile(pattern)

    def check(value: object) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError
        return value

    return check


def _object_name(value: object) -> str:
    if not isinstance(value, str) or value not in versions.OBJECTS_OF_VERSION[versions.RPC_VERSION]:
        raise ValueError
    return value


_MAX_PORTS = 256
_PORT_NUMBER = arg.integer(1, _MAX_PORTS)

# The values in the texts of errors, and those besides.
_VALUES: dict[str, Callable[[object], Any]] = {
    'argument': _matching(r'[a-z_]{1,32}'),
    'console_type': arg.console_type().check,
    'instance_uuid': fields.checked_uuid,
    'free_ports': arg.list_of(_PORT_NUMBER, _MAX_PORTS).check,
    'limit': arg.integer(0, 2**31).check,
    'name': _object_name,
    'proxy_id': fields.checked_uuid,
    'reason': lambda value: fields.checked_text(value, 255),
    'scope': lambda value: fields.checked_text(value, 64),
    'serial_ports': _PORT_NUMBER.check,
    'since': lambda value: fields.checked_text(value, 64),
    'supported': _matching(r'[0-9]{1,4}\.[0-9]{1,4}'),
    'ttl': arg.integer(0, 2**31).check,
    'version': _matching(r'[0-9]{1,4}(\.[0-9]{1,4}){1,2}'),
}
_PLACEHOLDER = re.compile(r'%\((\w+)\)s')


def rebuild(
    error: exception.ConsoledException,
    allowed: Kinds,
    sent: Mapping[str, Any],
    *,
    trusted: bool,
) -> exception.ConsoledException | None:
    """Return the error that a peer sent, made anew; None if it is none of those that are allowed.

    :param error: as the RPC library made it of what the peer sent
    :param sent: arguments of the call
    :param trusted: whether words of the peer are shown
    """
    cls = _class_of(error)
    if cls not in allowed:
        return None
    given = {**error.kwargs, **{name: sent[name] for name in _SAID_BY_CALLER if sent.get(name) is not None}}
    if not trusted:
        given['argument'] = given.get('argument') if given.get('argument') in list(sent) else None
        given['reason'] = _reason_of_agent(cls, given.get('reason'))
    extra = {name: _checked(name, given[name]) for name in cls.extra if name in given}
    return cls(
        **{name: _checked(name, given.get(name)) for name in _PLACEHOLDER.findall(cls.msg_fmt)},
        **(extra if _UNKNOWN not in extra.values() else {}),
    )


def forget(error: Exception) -> None:
    """Drop what a peer wrote from an error that the library made of it.

    The text is in a class that the library derives for each error, and the traceback leads back to the error.
    Only the garbage collector frees such circles, and to it a megabyte is no reason to hurry.
    """
    cls = type(error)
    if cls.__module__ == exception.__name__:
        return  # the peer's own object: on a bus in memory
    for derived in (cls, *cls.__subclasses__()):  # the library fails to give a builtin error its new class
        if derived.__module__.endswith('_Remote'):
            for name in {'__str__', '__unicode__'} & vars(derived).keys():
                delattr(derived, name)
    vars(error).clear()
    error.args = ()
    error.__traceback__ = None


def _class_of(error: exception.ConsoledException) -> type[exception.ConsoledException] | None:
    """Return the class of an error. The library derives one from it, with a traceback in its text."""
    return next((cls for cls in type(error).__mro__ if cls.__module__ == exception.__name__), None)


def _reason_of_agent(cls: type[exception.ConsoledException], given: object) -> str | None:
    if isinstance(given, str) and given in _REASONS_OF_AGENTS:
        return given
    return _REASON_INSTEAD.get(cls)


def _checked(name: str, given: object) -> Any:
    """Return a value for the text of an error: the given one if it is well-formed."""
    try:
        return _VALUES[name](given)
    except (KeyError, ValueError):
        return _UNKNOWN
