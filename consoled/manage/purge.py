# SPDX-License-Identifier: Apache-2.0
"""``consoled-manage purge``: delete expired data, and on request a compute host."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tqdm

from consoled.cli import app, arguments
from consoled.cli.database_app import DatabaseCommand
from consoled.db import cleanup, revocation
from consoled.manage import schema
from consoled.objects import EndReason


class Purge(DatabaseCommand, app.ShowOne):
    """Delete expired tokens and dead proxies, and on request a compute host

    The managers do this themselves from time to time; this command does it now and shows how many rows it
    deleted. It deletes in small batches, so the cell may be in use; it may be repeated or interrupted.

    With --compute-host it also forgets all guests of a host that is gone for good: it deletes their consoles
    and tokens, and cuts their sessions when their proxies next renew their lease. Guests that now run on
    another host are defined again by that host. It asks for confirmation; without a terminal, --yes is
    required.
    """

    columns = ('tokens', 'proxies', 'instances')
    example = 'consoled-manage purge --older-than 86400'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--older-than',
            type=arguments.at_least(0),
            default=0,
            metavar='SECONDS',
            help='Keep tokens that expired, and proxies whose lease ended, less than this many seconds ago. '
            f'Default: 0. Proxies are always kept for {cleanup.GRACE_LEASES} leases ([manager] '
            'lease), in which they can come back.',
        )
        parser.add_argument(
            '--compute-host',
            type=arguments.text(255),
            metavar='HOST',
            help='Forget all guests of this compute host (name of its service).',
        )
        parser.add_argument('--yes', action='store_true', help='Do not ask for confirmation.')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], tuple[Any, ...]]:
        db, older_than, host = self.app.db, parsed_args.older_than, parsed_args.compute_host
        schema.refuse_older(schema.require_revision(db))
        instances = 0 if host is None else revocation.count_instances(db, host)
        if instances and not parsed_args.yes:
            self.app.confirm(
                f'Forget the instances of compute host {host} ({instances} in all)?', required=True
            )
        with self._progress(cleanup.count_expired(db, older_than=older_than), 'tokens') as advance:
            tokens = cleanup.delete_expired(db, older_than=older_than, progress=advance)
        ended_for = max(older_than, self.app.conf.manager.lease * cleanup.GRACE_LEASES)
        proxies = cleanup.delete_dead_proxies(db, ended_for=ended_for)
        if instances:
            with self._progress(instances, 'instances') as advance:
                instances = revocation.forget_compute_host(db, host, EndReason.COMPUTE_HOST_GONE, advance)
        return self.columns, (tokens, proxies, instances)

    @contextlib.contextmanager
    def _progress(self, total: int, label: str) -> Iterator[Callable[[int], object]]:
        """Show a progress bar if standard error is a terminal; yields the function that advances it."""
        stderr = self.app.stderr
        with tqdm.tqdm(
            total=total, desc=label, unit='', file=stderr, leave=False, disable=not stderr.isatty()
        ) as bar:
            yield bar.update
