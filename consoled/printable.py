# SPDX-License-Identifier: Apache-2.0
"""Text of others, made harmless for a terminal and for a log.

A terminal obeys the escape sequences in what it shows, bidirectional controls reorder it, and a newline
begins what looks like another line. So what a peer may have written is shown with such characters escaped.
"""

from __future__ import annotations

import re

# Select Graphic Rendition of ECMA-48: colours only
_COLOUR = re.compile('(\x1b\\[[0-9;]*m)')


def line(text: str) -> str:
    r"""Return the text in one line of printable characters; others become ``\n``, ``\x1b``, ``\u202e``.

    Those others are the controls (C0 and C1), format characters such as bidirectional and zero-width ones,
    surrogates, and separators other than the space: what ``str.isprintable`` says.
    """
    if text.isprintable():
        return text
    return ''.join(char if char.isprintable() else _escaped(char) for char in text)


def lines(text: str, *, colours: bool = False) -> str:
    """Return the text with its newlines kept, and each line as ``line`` returns it.

    :param colours: whether to keep sequences that only change the colour
    """
    if colours:
        parts = _COLOUR.split(text)
        return ''.join(part if number % 2 else lines(part) for number, part in enumerate(parts))
    return '\n'.join(line(part) for part in text.split('\n'))


def _escaped(char: str) -> str:
    return char.encode('unicode_escape').decode('ascii')
