# SPDX-License-Identifier: Apache-2.0
"""Steps that the daemons share: options, logging, and a directory for the metrics of several processes.

Imported before the backend is selected, so it imports oslo's libraries inside the functions only.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oslo_config import cfg

_METRICS_DIR = 'PROMETHEUS_MULTIPROC_DIR'

_EXIT_CODES = (
    'Exit codes: 0 after SIGTERM; 1 an option is invalid, or what it names (a file, an address) is not '
    'available; 2 wrong usage.'
)


def prepare_metrics() -> None:
    """Create the directory in which the processes share their metrics; the calling process removes it.

    Call this before prometheus_client is imported, which reads the environment variable at import.
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


def epilog(signals: str, *file_names: str) -> str:
    """Return the last paragraph of a daemon's ``--help``.

    :param signals: the signals and environment variables it reacts to
    :param file_names: the configuration files it reads
    """
    return (
        f'Configuration: {" and ".join(file_names)}, if present (the first of each in ~/.consoled, ~, '
        '/etc/consoled, /etc), or the files named with --config-file instead; then *.conf in --config-dir. '
        'etc/consoled/consoled.conf.sample in the source explains every option. '
        f'{signals} {_EXIT_CODES}'
    )


def configure(
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str | None = None,
    epilog: str | None = None,
    conf: cfg.ConfigOpts | None = None,
) -> cfg.ConfigOpts:
    """Read and check all options, and set up logging.

    :param argv: arguments without the program's name; default: those of the process
    :param description: first paragraph of ``--help``
    :param epilog: last paragraph of ``--help``
    :param conf: where to register the options; default: the global object, which libraries read too
    :raises SystemExit: an option is invalid; the message names it
    """
    from oslo_config import cfg
    from oslo_log import log

    from consoled import version
    from consoled.conf import files

    conf = cfg.CONF if conf is None else conf
    try:
        files.load(
            conf,
            sys.argv[1:] if argv is None else argv,
            prog=prog,
            description=description,
            epilog=epilog,
        )
        files.check(conf)
    except (cfg.Error, ValueError) as exc:
        raise SystemExit(f'{prog}: {exc}') from None
    log.setup(conf, files.PROJECT, version=version.VERSION)
    return conf
