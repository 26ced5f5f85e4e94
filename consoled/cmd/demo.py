# SPDX-License-Identifier: Apache-2.0
"""``consoled-demo``: a whole cell in one process, for a first look. It needs no other service."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from consoled.cmd import _backend


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code.

    :param argv: arguments without the program's name; default: those of the process
    """
    _backend.select()
    from consoled.demo import main as demo

    return demo.main(argv)


if __name__ == '__main__':
    sys.exit(main())
