# SPDX-License-Identifier: Apache-2.0
"""Choose the concurrency of a program. The only module that may import eventlet.

A program calls ``select`` before it imports anything else of consoled: the libraries decide at import.
"""

from __future__ import annotations

import os
import warnings

VARIABLE = 'CONSOLED_CONCURRENCY'


def select(only: str | None = None) -> str:
    """Set up what ``CONSOLED_CONCURRENCY`` says: ``threading`` (default) or ``eventlet``.

    :param only: what this program needs, whatever the variable says
    :returns: its name
    :raises SystemExit: it is neither, or eventlet is not installed
    """
    name = only or os.environ.get(VARIABLE, 'threading')
    if name == 'eventlet':
        _patch()
    elif name != 'threading':
        raise SystemExit(f'{VARIABLE} must be threading or eventlet, not {name!r}')
    else:
        # where eventlet happens to be installed, futurist imports it, and nobody uses it
        warnings.filterwarnings('ignore', message=r'\s*Eventlet is deprecated')
    from oslo_service import backend

    backend.init_backend(backend.BackendType(name))
    return name


def _patch() -> None:
    try:
        import eventlet
    except ImportError:
        raise SystemExit(f'{VARIABLE}=eventlet needs eventlet: pip install consoled[eventlet]') from None
    eventlet.monkey_patch()
