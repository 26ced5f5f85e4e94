# SPDX-License-Identifier: Apache-2.0
"""``consoled-demo``: a whole cell in one process, to see what consoled does. Needs nothing else installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from consoled.cmd import _backend
from consoled.demo import main as demo


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit code.

    :param argv: arguments without the program's name; None for the process's
    """
    _backend.select()
    return demo.main(argv)


if __name__ == '__main__':
    sys.exit(main())
