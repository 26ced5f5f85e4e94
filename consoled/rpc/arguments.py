# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments that a peer sends, before a method runs.

A check takes a value and returns it normalized, or raises ValueError with a reason that does not contain the
value. ``checked`` turns that into InvalidArgument with the name of the argument.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

from oslo_utils import timeutils

from consoled import exception
from consoled import token as tokens
from consoled.objects import fields

Check = Callable[[object], Any]

_REQUIRED = object()


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of a method.

    :param default: its value when it is left out; without one the argument is required
    """

    check: Check
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED

    def or_none(self) -> Argument:
        """Return the same argument, optional and nullable."""

        def check(value: object) -> Any:
            return None if value is None else self.check(value)

        return Argument(check, None)

    def default_to(self, default: Any) -> Argument:
        """Return the same argument, optional with this default."""
        return Argument(self.check, default)


def uuid() -> Argument:
    """A UUID of 36 characters; returned in lower case."""
    return Argument(fields.checked_uuid)


def text(max_length: int = 255) -> Argument:
    """A non-empty printable text of at most ``max_length`` characters."""
    return Argument(lambda value: fields.checked_text(value, max_length))


def host() -> Argument:
    """An IP address or a host name."""
    return Argument(fields.checked_host)


def port() -> Argument:
    """A TCP port from 1 to 65535."""
    return Argument(fields.checked_port)


def console_type() -> Argument:
    """One of the console types of the contract."""
    return Argument(fields.OneConsoleType().check)


def integer(minimum: int, maximum: int) -> Argument:
    """An integer within bounds; a boolean is none."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise ValueError(f'must be an integer from {minimum} to {maximum}')
        return value

    return Argument(check)


def moment() -> Argument:
    """An ISO 8601 date and time; returned as an aware datetime in UTC."""

    def check(value: object) -> datetime.datetime:
        try:
            parsed: datetime.datetime = timeutils.parse_isotime(fields.checked_text(value, 64))
        except ValueError:
            raise ValueError('must be an ISO 8601 date and time') from None
        return parsed.astimezone(datetime.UTC)

    return Argument(check)


def token() -> Argument:
    """A clear token. A malformed one is refused like an unknown one, so that a guesser learns nothing."""

    def check(value: object) -> str:
        if not tokens.well_formed(value):
            raise exception.InvalidToken()
        return str(value)

    return Argument(check)


def instance_of(cls: type[Any]) -> Argument:
    """A versioned object of the contract. Its defaults are filled in; every other field must be set."""

    def check(value: object) -> Any:
        if not isinstance(value, cls):
            raise ValueError(f'must be a {cls.obj_name()}')
        if _unset(value):
            value.obj_set_defaults()
        if missing := _unset(value):
            raise ValueError('is missing ' + ', '.join(sorted(missing)))
        return value

    return Argument(check)


def _unset(value: Any) -> list[str]:
    return [name for name in value.fields if not value.obj_attr_is_set(name)]


def list_of(item: Argument, max_items: int) -> Argument:
    """A list of at most ``max_items`` such arguments."""

    def check(value: object) -> list[Any]:
        if not isinstance(value, list | tuple) or len(value) > max_items:
            raise ValueError(f'must be a list of at most {max_items} items')
        return [item.check(each) for each in value]

    return Argument(check)


def mapping(**keys: Argument) -> Argument:
    """A dict with these keys and no others; returned with the defaults of optional keys."""

    def check(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError('must be a dict')
        return checked(keys, value)

    return Argument(check)


def checked(spec: dict[str, Argument], values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` normalized, with the defaults of those that were left out.

    :raises InvalidArgument: a required argument is missing, one is unknown, or a check refuses its value; the
        error names the argument, never its value
    """
    for name in values:
        if name not in spec:
            shown = name if isinstance(name, str) and name.isidentifier() and len(name) <= 32 else '?'
            raise exception.InvalidArgument(argument=shown, reason='is unknown')
    result = {}
    for name, argument in spec.items():
        if name in values:
            try:
                result[name] = argument.check(values[name])
            except ValueError as exc:
                raise exception.InvalidArgument(argument=name, reason=str(exc)) from None
        elif argument.required:
            raise exception.InvalidArgument(argument=name, reason='is missing')
        else:
            result[name] = argument.default
    return result
