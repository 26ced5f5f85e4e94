# SPDX-License-Identifier: Apache-2.0
"""Types of command-line arguments, for argparse."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TypeVar

from consoled.objects import fields

T = TypeVar('T')


def checked(check: Callable[[str], T]) -> Callable[[str], T]:
    """Return an argparse type that shows the reason of a ValueError.

    argparse itself would echo the value instead, which may be a secret.

    :param check: converts a value, or raises ValueError with a reason that does not contain it
    """

    def convert(value: str) -> T:
        try:
            return check(value)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None

    return convert


def uuid(value: str) -> str:
    """argparse type of a UUID; it is returned in lower case with hyphens."""
    return str(checked(fields.checked_uuid)(value))


def text(max_length: int) -> Callable[[str], str]:
    """Return the argparse type of a name with at most ``max_length`` characters."""
    return checked(lambda value: fields.checked_text(value, max_length))


def at_least(minimum: int) -> Callable[[str], int]:
    """Return the argparse type of an integer that is not below ``minimum``."""

    def convert(value: str) -> int:
        if not re.fullmatch(r'-?[0-9]{1,9}', value) or int(value) < minimum:
            raise ValueError(f'must be an integer of at least {minimum}')
        return int(value)

    return checked(convert)
