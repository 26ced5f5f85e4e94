# SPDX-License-Identifier: Apache-2.0
"""The program ``consoled-status``, and its command ``upgrade check``."""

from __future__ import annotations

import argparse

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from consoled.cli import database_app, errors
from consoled.conf import files, written
from consoled.conf.nova import NO_CONNECTION
from consoled.db.engine import Database
from consoled.upgradecheck import checks, deprecated_options
from consoled.upgradecheck.cell import inspect_database

# oslo.upgradecheck's exit codes are 0 success, 1 warning, 2 failure, and this one if no check was made.
_NOT_CHECKED = 255


_CODES = {code.name: code for code in upgradecheck.Code}


class UpgradeCheck(database_app.DatabaseCommand):
    """Check the schema, the live managers, the fallback to an old consoleauth, and the options

    Each check says what to do next. Run it with the new release before and after "consoled-manage db
    upgrade", and once more when all managers have been restarted: by then every check succeeds or names an
    option to remove. The options are those of the configuration files read here; those of managers on other
    hosts may differ.
    """

    example = 'consoled-status --config-file /etc/consoled/consoled.conf upgrade check --json'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('--json', action='store_true', help='Print JSON. Default: a table.')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        conf = self.app.conf
        problem = memcached_problem(conf) if conf.workarounds.enable_consoleauth else ''
        cell = inspect_database(self.app.db)
        deprecated, unknown = deprecated_options.in_files(conf), written.unknown(conf)
        ours = None if isinstance(cell, str) else self.app.db
        found = checks.Checks(conf, cell, deprecated, problem, unknown, nova_findings(conf, ours))
        # oslo.upgradecheck parses a command line of its own; ours has the same options as the other tools
        argv = ['upgrade', 'check', *(['--json'] if parsed_args.json else [])]
        return int(upgradecheck.main(cfg.ConfigOpts(), self.app.NAME, found, argv, default_config_files=[]))


class Status(database_app.DatabaseApp):
    """The program."""

    NAME = 'consoled-status'
    DESCRIPTION = (
        'Check a cell before, during and after an upgrade or the migration from an old consoleauth. Changes '
        'nothing. Connects directly to the database of [database] connection: use the configuration files '
        'of a manager. Exit codes: 0 success, 1 a warning, 2 a failure, 255 no check could be made (wrong '
        'usage or configuration, internal error).'
    )
    COMMANDS = {'upgrade check': UpgradeCheck}

    def run(self, argv: list[str]) -> int:
        try:
            return int(super().run(argv))
        except SystemExit as exc:
            if exc.code == errors.USAGE:  # the same number as a failed check
                raise SystemExit(_NOT_CHECKED) from None
            raise

    def report(self, error: Exception) -> int:
        super().report(error)
        return _NOT_CHECKED


def nova_findings(conf: cfg.ConfigOpts, cell: Database | None) -> list[checks.Finding]:
    """Return what there is to say about Nova, if it is a source of tokens.

    :param cell: the database of the cell; None if it does not answer
    """
    if not conf.nova.connection:
        return (
            [('Nova database', upgradecheck.Code.FAILURE, f'{NO_CONNECTION}.')]
            if conf.nova.config_file
            else []
        )
    from consoled.nova import checks as nova_checks

    return [
        (finding.title, _CODES[finding.level.name], files.located(conf, finding.text))
        for finding in nova_checks.inspect(conf, cell)
    ]


def memcached_problem(conf: cfg.ConfigOpts) -> str:
    """Return why managers with this configuration find no tokens in memcached, as a sentence.

    :returns: '' if nothing prevents it; memcached itself is not contacted
    """
    try:
        from consoled.legacy import memcached  # its libraries are an extra

        source = memcached.from_conf(conf)
    except ImportError as exc:
        return f'Managers cannot use it: {exc.name} is not installed (pip install consoled[legacy]).'
    except ValueError as exc:
        return f'Managers cannot use it: {exc}.'
    if isinstance(source, memcached.NoTokens):
        return 'Tokens are not looked up in memcached: [cache] enabled and backend are not set.'
    return ''
