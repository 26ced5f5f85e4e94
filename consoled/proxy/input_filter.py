# SPDX-License-Identifier: Apache-2.0
"""What looks at the user's side of a console: for idle time, and for viewing only. Pure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

from consoled import exception
from consoled.proxy.security.messages import ClientMessages


class InputFilter(Protocol):
    """Looks at what a user sends: returns what to forward of it, and whether the user did something."""

    def feed(self, data: bytes) -> tuple[bytes, bool]: ...


class AllowAll:
    """Of a stream that is not looked into, every byte is the user's doing."""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        return data, bool(data)


class DropAll:
    """Of a stream that is only watched, nothing is forwarded."""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        return b'', False


def input_filter_for(console_type: str, mode: str | None) -> InputFilter:
    """What looks at the user's side of a console with this option ``mode``.

    :raises ModeUnsupported: it can't be kept to that mode
    """
    found = _INPUTS.get((console_type, mode or None)) or (None if mode else AllowAll)
    if found is None:
        raise exception.ModeUnsupported()
    return found()


_INPUTS: dict[tuple[str, str | None], Callable[[], InputFilter]] = {
    ('novnc', None): functools.partial(ClientMessages, view_only=False),
    ('novnc', 'view'): functools.partial(ClientMessages, view_only=True),
    ('serial', 'view'): DropAll,
}
