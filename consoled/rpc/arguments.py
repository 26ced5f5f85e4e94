# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments that a peer sends, before a method runs.

A check takes a value and returns it normalized, or raises ValueError with a reason that does not contain the
value. ``checked`` turns that into InvalidArgument with the name of the argument.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Callable
from typing import Any

from oslo_utils import timeutils

from consoled import exception
from consoled import token as tokens
from consoled.objects import ConsoledObject, fields

Check = Callable[[object], Any]

_REQUIRED = object()

_VERSION = re.compile(r'[0-9]{1,4}\.[0-9]{1,4}')


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


def seconds(maximum: float) -> Argument:
    """A length of time: a number above 0, and at most ``maximum``."""

    def check(value: object) -> float:
        # Neither comparison holds for NaN.
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= maximum:
            raise ValueError(f'must be a number of seconds above 0, at most {maximum}')
        return value

    return Argument(check)


def boolean() -> Argument:
    """True or false; nothing else counts as either."""
    return Argument(fields.Boolean().check)


def version() -> Argument:
    """A version of the contract: MAJOR.MINOR."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not _VERSION.fullmatch(value):
            raise ValueError('must be MAJOR.MINOR')
        return value

    return Argument(check)


def moment() -> Argument:
    """An ISO 8601 date and time; returned as an aware datetime in UTC."""

    def check(value: object) -> datetime.datetime:
        try:
            parsed: datetime.datetime = timeutils.parse_isotime(fields.checked_text(value, 64))
            return parsed.astimezone(datetime.UTC)
        except (ValueError, OverflowError):
            raise ValueError('must be an ISO 8601 date and time') from None

    return Argument(check)


def identifier(max_length: int) -> Argument:
    """The name of a method or an argument."""

    def check(value: object) -> str:
        if not isinstance(value, str) or len(value) > max_length or not value.isidentifier():
            raise ValueError(f'must be a name of at most {max_length} characters')
        return value

    return Argument(check)


def tree(max_depth: int, max_nodes: int) -> Argument:
    """A dict of JSON values of any form, nested no deeper and with no more values than that."""

    def check(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError('must be a dict')
        level: list[Any] = [value]
        nodes = depth = 0
        while level:
            depth, nodes = depth + 1, nodes + sum(len(each) for each in level)
            if depth > max_depth or nodes > max_nodes:
                raise ValueError(f'must be nested at most {max_depth} deep, with at most {max_nodes} values')
            inner = (each.values() if isinstance(each, dict) else each for each in level)
            level = [part for each in inner for part in each if isinstance(part, dict | list | tuple)]
        return value

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
        return _completed(value)

    return Argument(check)


def objects_of(cls: type[Any], max_items: int) -> Argument:
    """A ``...List`` object of at most ``max_items`` complete objects."""

    def check(value: object) -> Any:
        found = instance_of(cls).check(value)
        if len(found.objects) > max_items:
            raise ValueError(f'must have at most {max_items} items')
        for each in found.objects:
            _completed(each)
        return found

    return Argument(check)


def _completed(value: Any) -> Any:
    if _unset(value):
        value.obj_set_defaults()
    if missing := _unset(value):
        raise ValueError('is missing ' + ', '.join(sorted(missing)))
    for name in value.fields:
        if isinstance(part := getattr(value, name), ConsoledObject):
            _completed(part)
    return value


def _unset(value: Any) -> list[str]:
    return [name for name in value.fields if not value.obj_attr_is_set(name)]


def list_of(item: Argument, max_items: int) -> Argument:
    """A list of at most ``max_items`` such arguments."""

    def check(value: object) -> list[Any]:
        if not isinstance(value, list | tuple) or len(value) > max_items:
            raise ValueError(f'must be a list of at most {max_items} items')
        return [item.check(each) for each in value]

    return Argument(check)


def mapping_of(key: Argument, item: Argument, max_items: int) -> Argument:
    """A dict of at most ``max_items`` such keys and values."""

    def check(value: object) -> dict[Any, Any]:
        if not isinstance(value, dict) or len(value) > max_items:
            raise ValueError(f'must be a dict of at most {max_items} items')
        return {key.check(name): item.check(each) for name, each in value.items()}

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
