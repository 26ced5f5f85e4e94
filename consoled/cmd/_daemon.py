# SPDX-License-Identifier: Apache-2.0
"""Steps that the daemons share: options, logging, and a directory for the metrics of several processes.

Imported before the backend is selected, so it imports oslo's libraries inside the functions only.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oslo_config import cfg

    from consoled.cli import errors

LOG = logging.getLogger(__name__)

_METRICS_DIR = 'PROMETHEUS_MULTIPROC_DIR'

_EXIT_CODES = (
    'Exit codes: 0 after SIGTERM; 2 wrong usage or configuration; 3 an address is in use, or the environment '
    'lacks something else that may come back; 4 internal error.'
)


def prepare_metrics() -> None:
    """Create the directory in which the processes share their metrics; the calling process removes it.

    Call this before prometheus_client is imported, which reads the environment variable at import.

    :raises ValueError: the variable names a directory that cannot be used
    """
    if given := os.environ.get(_METRICS_DIR):
        if not os.access(given, os.R_OK | os.W_OK | os.X_OK) or not os.path.isdir(given):
            raise ValueError(f'{_METRICS_DIR}: {given} is not a directory that this user may write to')
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
    :raises cfg.Error: an option is invalid; the message names it
    """
    from oslo_config import cfg
    from oslo_log import log

    from consoled import logs, version
    from consoled.conf import files

    conf = cfg.CONF if conf is None else conf
    with _usage_in_one_line(prog):
        files.load(
            conf,
            sys.argv[1:] if argv is None else argv,
            prog=prog,
            description=description,
            epilog=epilog,
        )
    files.check(conf)
    try:
        log.setup(conf, files.PROJECT, version=version.VERSION)
    except OSError as exc:
        option = 'log_file' if conf.log_file else 'log_dir'
        raise cfg.Error(f'[DEFAULT] {option}: {exc.filename} cannot be written: {exc.strerror}') from None
    except log.LogConfigError as exc:
        raise cfg.Error(f'[DEFAULT] log_config_append: {exc}') from None
    except RuntimeError:
        raise cfg.Error('[DEFAULT] use_journal needs systemd-python, which is not installed') from None
    except ValueError as exc:
        raise cfg.Error(f'[DEFAULT] default_log_levels: {exc}') from None
    throttle = logs.Throttle(lambda: bool(conf.debug), functools.partial(files.located, conf))
    installation = logs.Installation(throttle, logging.getLogger(), colours=conf.log_color)
    installation.apply()
    files.after_reload[:] = [installation.apply]
    threading.excepthook = _log_uncaught  # oslo.log has done the same for the main thread
    return conf


def _log_uncaught(uncaught: threading.ExceptHookArgs) -> None:
    """Log an error that ends a thread. It would be printed as it is, and never be in a log file."""
    if uncaught.exc_type is not SystemExit:
        name = uncaught.thread.name if uncaught.thread else '?'
        LOG.critical('Unhandled error in the thread %s', name, exc_info=uncaught.exc_value)


@contextlib.contextmanager
def _usage_in_one_line(prog: str) -> Iterator[None]:
    """Report wrong arguments as the tools do, instead of with all the options that there are."""
    from consoled.cli import errors

    printed = io.StringIO()
    text = None
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as exc:
        if exc.code == errors.USAGE:
            text = errors.usage_line(prog, printed.getvalue().partition(': error: ')[2].rstrip())
        raise
    finally:
        sys.stderr.write(printed.getvalue() if text is None else text)


def warn_of_unknown(conf: cfg.ConfigOpts) -> None:
    """Log a warning for each option in the files that no program of consoled has, a misspelled one.

    Log what was taken from Nova's files too.
    """
    from consoled.conf import from_nova, written

    from_nova.log(conf)
    for sentence in written.unknown(conf):
        LOG.warning('%s', sentence)


def run(prog: str, start: Callable[[], None], conf: cfg.ConfigOpts | None = None) -> int:
    """Start a daemon, and report in one line why it cannot be started.

    :param start: returns when the daemon ends
    :param conf: as for ``configure``
    :returns: exit code: one rule for all programs, see ``cli.errors``
    """
    from oslo_config import cfg

    from consoled.cli import errors
    from consoled.conf import files

    try:
        start()
    except Exception as exc:  # noqa: BLE001 - whatever it is, the operator reads one line
        failed = explain(exc)
        failed.args = (files.located(cfg.CONF if conf is None else conf, str(failed)),)
        sys.stderr.write(errors.report(prog, failed))
        return failed.exit_code
    return errors.OK


def explain(error: Exception) -> errors.Failed:
    """Translate why a daemon cannot be started into the failure to report to the operator."""
    from oslo_config import cfg

    from consoled.cli import errors

    if isinstance(error, cfg.RequiredOptError):
        group = 'DEFAULT' if error.group is None else error.group.name
        text = f'[{group}] {error.opt_name} is not set'
    else:
        text = str(error)
    if isinstance(error, ValueError | cfg.Error | ImportError):
        return errors.Failed(errors.USAGE, 'configuration_error', f'{text}.')
    return errors.explain(error)
