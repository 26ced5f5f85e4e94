# SPDX-License-Identifier: Apache-2.0
"""What all programs do first: read their options, set up logging."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from oslo_config import cfg
from oslo_log import log

from consoled import conf as consoled_conf
from consoled import version
from consoled.conf import opts

PROJECT = 'consoled'

# amqp warns of each frame that arrives while a channel closes, at every stop; what matters of a lost
# connection oslo.messaging logs itself. alembic tells twice per look at the schema which dialect it saw.
_QUIETER = {'amqp': 'ERROR', 'alembic': 'WARN'}


# what --help of each daemon says last
EXIT_CODES = (
    'Exit codes: 0 after SIGTERM; 1 an option is wrong, or what it names (a file, an address) can not be '
    'had; 2 wrong usage.'
)


def files(*names: str) -> str:
    """What --help says of the configuration files that a program reads."""
    return (
        f'Configuration: {" and ".join(names)}, where there (the first of each in ~/.consoled, ~, '
        '/etc/consoled, /etc), or what --config-file names instead; then the *.conf of --config-dir. '
        'etc/consoled/consoled.conf.sample in the source explains every option.'
    )


def read_options(
    argv: Sequence[str],
    *,
    prog: str,
    conf: cfg.ConfigOpts,
    description: str | None = None,
    epilog: str | None = None,
) -> None:
    """Register all options on ``conf``, parse the arguments and the files.

    :param argv: arguments without the program's name
    :param description: what ``--help`` says first
    :param epilog: what it says last
    :raises cfg.Error: a file can't be read or parsed
    :raises ValueError: an option is wrong
    """
    log.register_options(conf)
    conf.set_default('default_log_levels', _log_levels())
    consoled_conf.register_opts(conf)
    conf(
        list(argv),
        project=PROJECT,
        prog=prog,
        version=version.VERSION,
        description=description,
        epilog=epilog,
        default_config_dirs=[],
    )


def configure(
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str | None = None,
    epilog: str | None = None,
    conf: cfg.ConfigOpts | None = None,
) -> cfg.ConfigOpts:
    """Register all options, parse the command line and the files, set logging up.

    :param argv: arguments without the program's name; None for the process's
    :param description: what ``--help`` says first
    :param epilog: what it says last
    :param conf: where to register; None for the global one, which libraries look at too
    :raises SystemExit: an option is wrong; the message says which
    """
    conf = cfg.CONF if conf is None else conf
    try:
        read_options(
            sys.argv[1:] if argv is None else argv,
            prog=prog,
            description=description,
            epilog=epilog,
            conf=conf,
        )
        _read_all(conf)
    except (cfg.Error, ValueError) as exc:
        raise SystemExit(f'{prog}: {exc}') from None
    log.setup(conf, PROJECT, version=version.VERSION)
    return conf


def _read_all(conf: cfg.ConfigOpts) -> None:
    """Read each option once: oslo.config checks a value of a file when it is read, which may be late."""
    for group, options in opts.list_opts():
        values = conf if group is None else conf[group]
        for option in options:
            values[option.dest]


def _log_levels() -> list[str]:
    levels = dict(level.split('=') for level in log.get_default_log_levels())
    return [f'{name}={level}' for name, level in (levels | _QUIETER).items()]
