# SPDX-License-Identifier: Apache-2.0
"""Types of command-line arguments, for argparse."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any


def checked(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """An argparse type from a function that raises ValueError with a reason that does not hold the value."""

    def convert(value: str) -> Any:
        try:
            return check(value)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None

    return convert


def uuid(value: str) -> str:
    """argparse type: a UUID."""
    from consoled.objects import fields

    return str(checked(fields.checked_uuid)(value))


def text(max_length: int) -> Callable[[str], str]:
    """argparse type: a name of at most that many characters."""

    def convert(value: str) -> str:
        from consoled.objects import fields

        return fields.checked_text(value, max_length)

    return checked(convert)


def at_least(minimum: int) -> Callable[[str], int]:
    """argparse type: an integer from ``minimum``."""

    def convert(value: str) -> int:
        if not re.fullmatch(r'-?[0-9]{1,9}', value) or int(value) < minimum:
            raise ValueError(f'must be an integer from {minimum}')
        return int(value)

    return checked(convert)
