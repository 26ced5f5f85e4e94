# SPDX-License-Identifier: Apache-2.0
"""``consolectl``: open consoles, see and take back what consoled has granted, over the cell's message bus."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from consoled.cli import app
from consoled.cmd import _backend
from consoled.consolectl import attach, console, revoke, session, token
from consoled.consolectl.app import ConsolectlApp


class Consolectl(ConsolectlApp):
    """The program."""

    COMMANDS = {
        'console open': console.OpenConsole,
        'console list': console.ListConsoles,
        'console list-free-ports': console.ListFreePorts,
        'console attach': attach.AttachConsole,
        'token validate': token.ValidateToken,
        'session list': session.ListSessions,
        'session cut': session.CutSession,
        'revoke': revoke.Revoke,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``consolectl``; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    # a terminal needs threads that may wait for it, which eventlet's may not
    _backend.select('threading' if 'attach' in argv else None)
    return app.run(Consolectl(), argv)


if __name__ == '__main__':
    sys.exit(main())
