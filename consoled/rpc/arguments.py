# SPDX-License-Identifier: Apache-2.0
"""Checks of what a peer sends as arguments, before anything is done with it.

Each check takes the value and returns it, normalised, or raises ValueError with a reason that does not
hold the value. ``exposed`` in ``server.py`` turns that into InvalidArgument with the argument's name.
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
    """An argument of a method: its check, and its default when it may be left out."""

    check: Check
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED

    def or_none(self) -> Argument:
        """The same argument, which may be left out or None."""

        def check(value: object) -> Any:
            return None if value is None else self.check(value)

        return Argument(check, None)

    def default_to(self, default: Any) -> Argument:
        """The same argument, which may be left out."""
        return Argument(self.check, default)


def uuid() -> Argument:
    return Argument(fields.checked_uuid)


def text(max_length: int = 255) -> Argument:
    return Argument(lambda value: fields.checked_text(value, max_length))


def host() -> Argument:
    return Argument(fields.checked_host)


def port() -> Argument:
    return Argument(fields.checked_port)


def console_type() -> Argument:
    return Argument(fields.OneConsoleType().check)


def integer(minimum: int, maximum: int) -> Argument:
    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise ValueError(f'must be an integer from {minimum} to {maximum}')
        return value

    return Argument(check)


def moment() -> Argument:
    """An ISO 8601 date and time; returned aware, in UTC."""

    def check(value: object) -> datetime.datetime:
        try:
            parsed: datetime.datetime = timeutils.parse_isotime(fields.checked_text(value, 64))
        except ValueError:
            raise ValueError('must be an ISO 8601 date and time') from None
        return parsed.astimezone(datetime.UTC)

    return Argument(check)


def token() -> Argument:
    """A clear token. A malformed one gets the answer of an unknown one: a guesser learns nothing."""

    def check(value: object) -> str:
        if not tokens.well_formed(value):
            raise exception.InvalidToken()
        return str(value)

    return Argument(check)


def instance_of(cls: type[Any]) -> Argument:
    """A versioned object of the contract with every field set."""

    def check(value: object) -> Any:
        if not isinstance(value, cls):
            raise ValueError(f'must be a {cls.obj_name()}')
        if _unset(value):
            value.obj_set_defaults()
        if missing := _unset(value):
            raise ValueError('lacks ' + ', '.join(sorted(missing)))
        return value

    return Argument(check)


def _unset(value: Any) -> list[str]:
    return [name for name in value.fields if not value.obj_attr_is_set(name)]


def list_of(item: Argument, max_items: int) -> Argument:
    def check(value: object) -> list[Any]:
        if not isinstance(value, list | tuple) or len(value) > max_items:
            raise ValueError(f'must be a list of at most {max_items} items')
        return [item.check(each) for each in value]

    return Argument(check)


def mapping(**keys: Argument) -> Argument:
    """A dict with these keys and no others."""

    def check(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError('must be a dict')
        return checked(keys, value)

    return Argument(check)


def checked(spec: dict[str, Argument], values: dict[str, Any]) -> dict[str, Any]:
    """Check ``values`` against ``spec``: all required ones there, no unknown one, each of its form.

    :raises InvalidArgument: names the argument, never its value
    """
    for name in values:
        if name not in spec:
            shown = name if isinstance(name, str) and name.isidentifier() and len(name) <= 32 else '?'
            raise exception.InvalidArgument(argument=shown, reason='is not known')
    result = {}
    for name, argument in spec.items():
        if name not in values:
            if argument.required:
                raise exception.InvalidArgument(argument=name, reason='is missing')
            result[name] = argument.default
            continue
        try:
            result[name] = argument.check(values[name])
        except ValueError as exc:
            raise exception.InvalidArgument(argument=name, reason=str(exc)) from None
    return result
