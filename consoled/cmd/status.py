# SPDX-License-Identifier: Apache-2.0
"""``consoled-status``: checks of a cell before and after an upgrade."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from consoled.cmd import _backend


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code.

    :param argv: arguments without the program's name; default: those of the process
    """
    _backend.select('threading')  # it waits, with a deadline, for a thread that queries the database
    from consoled.cli import app
    from consoled.upgradecheck.main import Status

    return app.run(Status(), argv)


if __name__ == '__main__':
    sys.exit(main())
