# SPDX-License-Identifier: Apache-2.0
"""``consoled-status``: whether a cell may be upgraded, and what an upgrade or a move has left to do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from consoled import deadline
from consoled.cli import app, database_app, errors
from consoled.cmd import _backend

if TYPE_CHECKING:
    from oslo_config import cfg

    from consoled.db.session import Database
    from consoled.upgradecheck.checks import Cell

# Those of oslo.upgradecheck: 0 success, 1 a warning, 2 a failure, and
_UNEXPECTED = 255

# For all that is asked of the database, in seconds. A driver may wait for ever for a server that went silent.
_TIMEOUT = 15.0

# The revisions that made the tables.
_LEGACY = '0003'
_MANAGERS = '0004'


class Status(database_app.App):
    """The program."""

    NAME = 'consoled-status'
    DESCRIPTION = (
        'Check a cell before, while and after it is upgraded or moved over. Changes nothing. Talks to the '
        'database of [database] connection directly: use the configuration files of a manager. Exit codes: '
        '0 all is well, 1 a warning, 2 a failure, 255 the checks could not be made (wrong usage or '
        'configuration, internal error).'
    )

    def run(self, argv: list[str]) -> int:
        try:
            return int(super().run(argv))
        except SystemExit as exc:
            if exc.code == errors.USAGE:  # a failure of a check, for those who read oslo.upgradecheck's codes
                raise SystemExit(_UNEXPECTED) from None
            raise

    def report(self, error: Exception) -> int:
        super().report(error)
        return _UNEXPECTED


class UpgradeCheck(app.Command):
    """Check the schema, the managers that are alive, the fall-back to an old consoleauth, and the options

    Says what to do next for each. Run it with the new release before and after "consoled-manage db upgrade",
    and once more when all managers are restarted: then each check is a success, or tells of an option
    that is to be removed. Options are those of the configuration files read here: files of managers on
    other hosts may differ.
    """

    app: Status
    example = 'consoled-status --config-file /etc/consoled/consoled.conf upgrade check --json'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('--json', action='store_true', help='Print JSON. Default: a table.')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from oslo_config import cfg
        from oslo_upgradecheck import upgradecheck

        from consoled.upgradecheck import checks, deprecated_options

        conf = self.app.conf
        no_memcached = _why_no_memcached(conf) if conf.workarounds.enable_consoleauth else ''
        found = checks.Checks(conf, _look(self.app.db), deprecated_options.in_files(conf), no_memcached)
        argv = ['upgrade', 'check', *(['--json'] if parsed_args.json else [])]
        # its command line is made here: ours has the options and the manners of the other programs
        return int(upgradecheck.main(cfg.ConfigOpts(), self.app.NAME, found, argv, default_config_files=[]))


def _look(db: Database) -> Cell | str:
    """What the database says, or why that is not known."""
    from oslo_db import exception as db_exc

    from consoled import exception

    check = 'Check [database] connection and the server.'
    try:
        return deadline.call(lambda: _ask(db), _TIMEOUT)
    except deadline.DeadlineExceeded:
        return f'The database has not answered within {_TIMEOUT:.0f} s. {check}'
    except (exception.DatabaseUnavailable, db_exc.DBNonExistentDatabase):
        return f'The database does not answer, does not exist, or does not let this user in. {check}'
    except db_exc.DBError as exc:
        # the error's own text may hold more than is to be shown
        return f'The database answers with an error ({type(exc).__name__}): see --debug.'


def _ask(db: Database) -> Cell:
    from consoled.db import clock, legacy, managers, migration
    from consoled.upgradecheck import checks

    revision = migration.current(db)
    pending = migration.pending(revision)
    counts = _LEGACY not in (pending or ())
    return checks.Cell(
        revision=revision,
        pending=pending,
        now=clock.now(db),
        managers=managers.list_alive(db) if _MANAGERS not in (pending or ()) else None,
        usage=legacy.usage(db) if counts else None,
        last_expiry=legacy.last_expiry(db) if counts else None,
    )


def _why_no_memcached(conf: cfg.ConfigOpts) -> str:
    """Why a manager with this configuration finds no tokens in memcached; '' if nothing speaks against it."""
    try:
        from consoled.legacy import memcached

        source = memcached.from_conf(conf)
    except ImportError as exc:
        return f'Managers can not work with it: {exc.name} is not installed (pip install consoled[legacy]).'
    except ValueError as exc:
        return f'Managers can not work with it: {exc}.'
    if isinstance(source, memcached.NoTokens):
        return 'No token is looked for in memcached: [cache] enabled and backend are not set.'
    return ''


Status.COMMANDS = {'upgrade check': UpgradeCheck}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``consoled-status``; return its exit code."""
    _backend.select('threading')  # a thread must be able to wait while another asks the database
    return app.run(Status(), argv)


if __name__ == '__main__':
    sys.exit(main())
