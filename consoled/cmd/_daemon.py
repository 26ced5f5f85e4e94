# SPDX-License-Identifier: Apache-2.0
"""What the daemons share before they import anything else: metrics of several processes."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_METRICS_DIR = 'PROMETHEUS_MULTIPROC_DIR'


def prepare_metrics() -> None:
    """Give the processes a directory to add up their metrics in; it goes with the first of them.

    To be called before prometheus_client is imported: it looks at the variable then.
    """
    if os.environ.get(_METRICS_DIR):
        return
    directory = tempfile.mkdtemp(prefix='consoled-metrics-')
    os.environ[_METRICS_DIR] = directory
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
