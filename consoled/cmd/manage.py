# SPDX-License-Identifier: Apache-2.0
"""``consoled-manage``: the schema and the housekeeping of a cell's database, without a running manager."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from consoled.cli import app, arguments, database_app, errors
from consoled.cmd import _backend

if TYPE_CHECKING:
    from consoled.db.session import Database

_UPGRADE = 'Run consoled-manage db upgrade.'


class Manage(database_app.App):
    """The program."""

    NAME = 'consoled-manage'
    DESCRIPTION = (
        "Keep a cell's database: create and upgrade its schema, purge what is worthless. Talks to the "
        'database of [database] connection directly; needs neither bus nor manager. "consoled-manage help '
        'COMMAND" has the arguments and an example of a command. Exit codes: 0 done, 1 refused, 2 wrong '
        'usage or configuration, 3 the database does not answer, 4 internal error.'
    )

    def explain(self, error: Exception) -> errors.Failed:
        from alembic.util import CommandError
        from oslo_db import exception as db_exc

        from consoled import exception

        if isinstance(error, CommandError):
            hint = "A database that a newer release has upgraded needs that release's consoled-manage."
            return errors.Failed(errors.REFUSED, 'migration_refused', f'{error}.', hint)
        if isinstance(error, db_exc.DBNonExistentTable):
            return errors.Failed(errors.REFUSED, 'database_behind', 'A table is missing.', _UPGRADE)
        if isinstance(error, exception.DatabaseUnavailable | db_exc.DBNonExistentDatabase):
            return errors.Failed(
                errors.UNREACHABLE,
                exception.DatabaseUnavailable.code,
                'The database does not answer, does not exist, or does not let this user in.',
                "Check [database] connection and the server; --debug shows the server's answer.",
            )
        return super().explain(error)


class _ManageCommand(app.Command):
    app: Manage


class DbUpgrade(_ManageCommand):
    """Create the schema, or bring it to this release's revision

    Safe to repeat. Upgrades add and never take away what the release before needs, so that its managers may
    run on meanwhile: upgrade the schema first, then restart the managers one by one.
    """

    example = 'consoled-manage --config-file /etc/consoled/consoled.conf db upgrade'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--revision',
            type=arguments.text(64),
            default='head',
            metavar='ID',
            help="Stop at this revision. Default: head, this release's.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from consoled.db import migration

        migration.upgrade(self.app.db, parsed_args.revision)
        self.app.stdout.write(f'The database is at revision {migration.current(self.app.db)}.\n')


class DbVersion(_ManageCommand, app.ShowOne):
    """Show the schema's revision: the database's, and the one that this release needs"""

    columns = ('current', 'head')
    example = 'consoled-manage db version -f json'

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        from consoled.db import migration

        return self.columns, (migration.current(self.app.db), migration.head())


class DbCheck(_ManageCommand):
    """Check that the schema is at the revision that this release needs

    Exit code 0 if it is; 1 if it is behind or not known; 3 if the database does not answer.
    """

    example = 'consoled-manage db check && systemctl restart consoled'

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from consoled.db import migration

        head = migration.head()
        current = _present_revision(self.app.db)
        if current != head:
            raise errors.Failed(
                errors.REFUSED,
                'database_behind',
                f'The database is at revision {current}, this release needs {head}.',
                f'{_UPGRADE} (If a newer release has upgraded the database, this one may work on with it.)',
            )
        self.app.stdout.write(f'The database is at revision {head}, as this release needs.\n')


def _present_revision(db: Database) -> str:
    """The database's revision.

    :raises Failed: it has no schema of ours at all
    """
    from consoled.db import migration

    current = migration.current(db)
    if current is None:
        raise errors.Failed(
            errors.REFUSED, 'database_behind', 'The database has no tables of consoled.', _UPGRADE
        )
    return current


class Purge(_ManageCommand, app.ShowOne):
    """Delete what is worthless: expired tokens, dead proxies, and on request a compute host

    The managers sweep by themselves; this does it now, and tells how much there was. Deletes in small
    batches, so the cell may be in use; may be repeated or interrupted.

    With --compute-host also all guests of a host that is gone for good: their consoles and tokens are
    deleted, and their sessions cut when their proxies next renew their lease. Guests that live on elsewhere
    are defined anew by that host. Asks first; where there is no terminal to ask at, --yes is needed.
    """

    columns = ('tokens', 'proxies', 'instances')
    example = 'consoled-manage purge --older-than 86400'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        from consoled.db import cleanup

        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--older-than',
            type=arguments.at_least(0),
            default=0,
            metavar='SECONDS',
            help='Leave tokens that expired, and proxies whose lease ended, within the last so many seconds. '
            f'Default: 0. Proxies always have {cleanup.GRACE_LEASES} leases ([manager] lease) '
            'to come back.',
        )
        parser.add_argument(
            '--compute-host',
            type=arguments.text(255),
            metavar='HOST',
            help='Forget all guests of this compute host (the name of its service).',
        )
        parser.add_argument('--yes', action='store_true', help='Do not ask.')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        from consoled.db import cleanup
        from consoled.objects import EndReason

        db, older_than, host = self.app.db, parsed_args.older_than, parsed_args.compute_host
        _present_revision(db)
        instances = 0 if host is None else cleanup.count_instances(db, host)
        if instances and not parsed_args.yes:
            self.app.confirm(f'Forget the instances of compute host {host}, {instances} in all?', must=True)
        with self._progress(cleanup.count_expired(db, older_than=older_than), 'tokens') as advance:
            tokens = cleanup.delete_expired(db, older_than=older_than, progress=advance)
        ended_for = max(older_than, self.app.conf.manager.lease * cleanup.GRACE_LEASES)
        proxies = cleanup.delete_dead_proxies(db, ended_for=ended_for)
        if instances:
            with self._progress(instances, 'instances') as advance:
                instances = cleanup.forget_compute_host(db, host, EndReason.COMPUTE_HOST_GONE, advance)
        return self.columns, (tokens, proxies, instances)

    @contextlib.contextmanager
    def _progress(self, total: int, what: str) -> Iterator[Callable[[int], object]]:
        """A bar for those who watch; nothing for logs and pipes."""
        import tqdm

        stderr = self.app.stderr
        with tqdm.tqdm(
            total=total, desc=what, unit='', file=stderr, leave=False, disable=not stderr.isatty()
        ) as bar:
            yield bar.update


Manage.COMMANDS = {
    'db upgrade': DbUpgrade,
    'db version': DbVersion,
    'db check': DbCheck,
    'purge': Purge,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``consoled-manage``; return its exit code."""
    _backend.select()
    return app.run(Manage(), argv)


if __name__ == '__main__':
    sys.exit(main())
