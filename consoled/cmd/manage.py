# SPDX-License-Identifier: Apache-2.0
"""``consoled-manage``: the schema and the housekeeping of a cell database."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from consoled.cmd import _backend


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code.

    :param argv: arguments without the program's name; default: those of the process
    """
    _backend.select()
    from consoled.cli import app
    from consoled.manage.main import Manage

    return app.run(Manage(), argv)


if __name__ == '__main__':
    sys.exit(main())
