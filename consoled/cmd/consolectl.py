# SPDX-License-Identifier: Apache-2.0
"""``consolectl``: open consoles, list and revoke what consoled has granted, over the cell's message bus."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from consoled.cmd import _backend


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code.

    :param argv: arguments without the program's name; default: those of the process
    """
    argv = sys.argv[1:] if argv is None else argv
    # attaching needs threads that may block on the terminal
    _backend.select('threading' if 'attach' in argv else None)
    from consoled.cli import app
    from consoled.consolectl.main import Consolectl

    return app.run(Consolectl(), argv)


if __name__ == '__main__':
    sys.exit(main())
