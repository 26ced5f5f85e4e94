# SPDX-License-Identifier: Apache-2.0
"""The program ``consolectl`` with its commands."""

from __future__ import annotations

from consoled.consolectl import console, console_attach, revoke, session, token
from consoled.consolectl.base import ConsolectlApp


class Consolectl(ConsolectlApp):
    """The program."""

    COMMANDS = {
        'console open': console.OpenConsole,
        'console list': console.ListConsoles,
        'console list-free-ports': console.ListFreePorts,
        'console attach': console_attach.AttachConsole,
        'token validate': token.ValidateToken,
        'session list': session.ListSessions,
        'session cut': session.CutSession,
        'revoke': revoke.Revoke,
    }
