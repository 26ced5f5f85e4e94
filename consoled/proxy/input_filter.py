# SPDX-License-Identifier: Apache-2.0
"""Filters on what a user sends to a console: they enforce view-only mode and detect input. No I/O."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

from consoled import exception
from consoled.proxy.security.messages import ClientMessages
from consoled.proxy.spice_messages import SpiceInput
from consoled.proxy.terminal_reports import TerminalInput


class InputFilter(Protocol):
    """Filter on the bytes of one user."""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return the bytes to forward, and whether the data contains input by the user."""


class AllowAll:
    """Forwards everything; any byte counts as input."""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        return data, bool(data)


class DropAll:
    """Forwards nothing: view-only access to a plain stream of bytes."""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        return b'', False


def input_filter_for(console_type: str, mode: str | None) -> InputFilter:
    """Return a new filter for a console of this type with this ``mode`` option.

    :raises ModeUnsupported: the proxy cannot enforce this mode for this console type
    """
    make = _FILTERS.get((console_type, mode or None)) or (None if mode else AllowAll)
    if make is None:
        raise exception.ModeUnsupported()
    return make()


_FILTERS: dict[tuple[str, str | None], Callable[[], InputFilter]] = {
    ('novnc', None): functools.partial(ClientMessages, view_only=False),
    ('novnc', 'view'): functools.partial(ClientMessages, view_only=True),
    ('spice-html5', None): SpiceInput,
    ('serial', None): TerminalInput,
    ('serial', 'view'): DropAll,
}
