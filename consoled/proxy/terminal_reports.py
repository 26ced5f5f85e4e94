# SPDX-License-Identifier: Apache-2.0
"""Reports of terminals: what a terminal sends by itself, because the program in the guest asked. No I/O.

A guest may ask without end (``ESC [ 6 n``), so reports must not count as input of the user. Their forms are
from ECMA-48 (5th edition), from DEC's VT510 manual, and from xterm's "XTerm Control Sequences", which other
terminals follow. No key sends any of them, with one exception: F3 with Shift, Alt or Ctrl is ``CSI 1 ; m R``,
as a report of the cursor's position in the first line is. That is a report here, because a guest could choose
it. Reports of the mouse are input: without a user's hand there are none.
"""

from __future__ import annotations

import re

# C1 control characters that begin or end a report, alone or in UTF-8, stand for ESC and a letter (ECMA-48,
# section 5.3): DCS, CSI, ST, OSC, APC. Within a character of UTF-8 such a byte follows another, which counts.
_C1 = re.compile(rb'\xc2?([\x90\x9b\x9c\x9d\x9f])')
_MAY_BE_REPORT = re.compile(rb'[\x1b\x90\x9b-\x9d\x9f]|\xc2\Z')

_STRING = rb"""
    \x1b (?: \] (?: [0-9]{1,5}; | [lL] )     # OSC: colours, the clipboard, titles
           | P [0-9;]{0,16} [!$+>]           # DCS: settings, capabilities, the terminal's version
           | _ G )                           # APC: graphics
"""
_REPORT = re.compile(
    rb"""
    \x1b\[ (?: [?=>] [0-?]{0,64} [ -/]{0,2} [@-~]   # device attributes, modes, DECXCPR, keyboard protocol
             | [0-9]{1,5} ; [0-9]{1,5} R            # position of the cursor
             | [0-9]{1,5} n                         # status
             # window, parameters, colours, mode, locator, size of the page, space for macros
             | [0-9;:]{1,64} (?: [txm] | \$y | &w | "w | \*\{ )
             | [IO] )                               # focus: also sent when a guest asks to be told
    | \x1b/Z                                        # identification in VT52 mode
    | """
    + _STRING
    + rb""" [^\x00-\x1f]* (?: \x07 | \x1b\\ )
    """,
    re.VERBOSE,
)
# The beginning of a report at the end of the data. What a string contains need not be remembered.
_UNFINISHED = re.compile(
    rb"""
    ( \xc2
    | \x1b (?: \[ [0-?]{0,64} [ -/]{0,2} | \] [0-9]{0,5} | P [0-9;]{0,16} | _ | / )?
    ) \Z
    | ( """
    + _STRING
    + rb""" ) [^\x00-\x1f]* (\x1b?) \Z
    """,
    re.VERBOSE,
)


class TerminalInput:
    """Input filter on what the user of a terminal sends: forwards everything; all but reports is input."""

    __slots__ = ('_unfinished',)

    def __init__(self) -> None:
        self._unfinished = b''  # what may become a report

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return ``data``, and whether it contains more than reports."""
        if not self._unfinished and not _MAY_BE_REPORT.search(data):
            return data, bool(data)
        return data, self._has_input(data)

    def _has_input(self, data: bytes) -> bool:
        if data == b'\x1b' and not self._unfinished:  # the Escape key: a terminal sends a report as a whole
            self._unfinished = data
            return True
        rest = _REPORT.sub(b'', _C1.sub(_seven_bits, self._unfinished + data))
        found = _UNFINISHED.search(rest)
        self._unfinished = b''.join(part for part in found.groups() if part) if found else b''
        return bool(rest[: found.start()] if found else rest)


def _seven_bits(found: re.Match[bytes]) -> bytes:
    return b'\x1b' + bytes([found[1][0] - 0x40])
