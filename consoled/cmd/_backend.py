# SPDX-License-Identifier: Apache-2.0
"""Select the concurrency backend of a program. The only module that may import eventlet.

A program calls ``select`` before it imports other modules of consoled: oslo's libraries read the backend at
import.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

VARIABLE = 'CONSOLED_CONCURRENCY'

_USAGE = 2  # cli.errors.USAGE, which must not be imported yet


def select(only: str | None = None) -> str:
    """Initialize the backend that ``CONSOLED_CONCURRENCY`` names: ``threading`` (default) or ``eventlet``.

    :param only: the one backend that this program supports; the variable is ignored then
    :returns: name of the backend
    :raises SystemExit: there is no such backend, or eventlet is not installed
    """
    name = only or os.environ.get(VARIABLE, 'threading')
    if name == 'eventlet':
        _patch()
    elif name != 'threading':
        _refuse('must be threading or eventlet')
    else:
        # oslo's libraries import eventlet wherever it is installed, even if nothing uses it, and that takes a
        # quarter of a program's start. None makes the import fail as if it were not installed.
        sys.modules.setdefault('eventlet', None)  # type: ignore[arg-type]
    from oslo_service import backend

    backend.init_backend(backend.BackendType(name))
    return name


def _patch() -> None:
    try:
        import eventlet
    except ImportError:
        _refuse('is eventlet, which is not installed: pip install consoled[eventlet]')
    eventlet.monkey_patch()


def _refuse(reason: str) -> NoReturn:
    """Report in one line, as the programs do, that the configuration is wrong."""
    sys.stderr.write(f'{os.path.basename(sys.argv[0])}: configuration_error: {VARIABLE} {reason}.\n')
    raise SystemExit(_USAGE)
