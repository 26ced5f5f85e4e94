# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.watch``: what the watch of Nova's sessions costs. See doc/benchmarks.md."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import pathlib
import statistics
import time
import uuid

import sqlalchemy as sa

from consoled import token as tokens
from consoled.db import clock, migration, models, proxies
from consoled.db.engine import Database
from consoled.nova.database import NovaDatabase
from consoled.nova.watch import Watcher
from consoled.testing import services
from tests.bench.command_line import EPILOG, print_section
from tests.unit.nova import base as nova_tables

_HOSTS = 1000
_BATCH = 1000  # rows in one INSERT
_INTERVAL = 2.0  # the default of [nova] watch_interval


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m tests.bench.watch',
        description='Measure passes of the watch over live sessions on a private MariaDB.',
        epilog=EPILOG,
    )
    parser.add_argument('--sessions', type=int, default=10_000, metavar='N', help='default %(default)s')
    parser.add_argument('--passes', type=int, default=30, metavar='N', help='default %(default)s')
    return parser.parse_args()


def main() -> None:
    """Print the report."""
    options = _arguments()
    with contextlib.ExitStack() as resources:
        mariadb = services.MariaDB()
        mariadb.setUp()
        resources.callback(mariadb.cleanUp)
        cell, nova = (Database(mariadb.new_database()) for _ in range(2))
        resources.callback(cell.dispose)
        resources.callback(nova.dispose)
        _load(cell, nova, options.sessions)
        _measure(cell, nova, options.passes, options.sessions)


def _measure(cell: Database, nova: Database, passes: int, sessions: int) -> None:
    watcher = Watcher(cell, NovaDatabase(nova), lambda ids, reason: None, manager='bench', interval=_INTERVAL)
    sent: list[str] = []
    sa.event.listen(nova._autocommit, 'before_cursor_execute', lambda *args: sent.append(args[2]))
    run = functools.partial(_run, watcher, sent, _server(nova))
    first = run()
    steady = [run() for _ in range(passes)]
    one = nova_tables.INSTANCES.c.id == 1
    nova.single(lambda conn: conn.execute(sa.update(nova_tables.INSTANCES).where(one).values(deleted=1)))
    cutting = run()
    nova.single(lambda conn: conn.execute(sa.delete(nova_tables.TOKENS)))
    cell.single(
        lambda conn: conn.execute(sa.update(models.console_auth_token).values(expires=clock.utc_after(-1)))
    )
    watcher._guests.clear()
    watcher._listed_all_at = -float('inf')
    run()
    expired = [run() for _ in range(passes)]
    lines = ['| passes | CPU s of the watch | s in all | CPU s of MariaDB | queries to Nova | core at 2 s |']
    lines.append('|---|---|---|---|---|---|')
    for title, found in (
        ('first', [first]),
        (f'{passes} steady ones, tokens alive', steady),
        ('one guest deleted', [cutting]),
        (f'{passes} steady ones, tokens expired', expired),
    ):
        own, total, server, queries = (statistics.mean(column) for column in zip(*found, strict=True))
        core = own / _INTERVAL
        lines.append(f'| {title} | {own:.3f} | {total:.3f} | {server:.3f} | {queries:.0f} | {core:.1%} |')
    print_section([f'{sessions} sessions, guests and tokens, {_HOSTS} compute hosts', '', *lines])


def _run(watcher: Watcher, sent: list[str], server: int) -> tuple[float, float, float, int]:
    """Make a pass; return the CPU seconds here, the seconds, the CPU seconds of the server, the queries."""
    sent.clear()
    before = time.process_time(), time.monotonic(), _cpu(server)
    watcher.run()
    if watcher._trouble is not None:
        raise RuntimeError(watcher._trouble)
    own, total, used = before
    return time.process_time() - own, time.monotonic() - total, _cpu(server) - used, len(sent)


def _server(db: Database) -> int:
    """Return the process id of the server."""
    file = db.single(lambda conn: conn.exec_driver_sql('SELECT @@pid_file').scalar_one())
    return int(pathlib.Path(str(file)).read_text())


def _cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used; the kernel counts in hundredths."""
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _load(cell: Database, nova: Database, count: int) -> None:
    migration.upgrade(cell)
    nova_tables.METADATA.create_all(nova.transactional_engine)
    proxy = str(uuid.uuid4())
    proxies.register(cell, proxy, 'bench', 86400)
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
    for start in range(0, count, _BATCH):
        numbers = range(start + 1, min(start + _BATCH, count) + 1)
        _insert(cell, nova, numbers, proxy, now)


def _insert(cell: Database, nova: Database, numbers: range, proxy: str, now: datetime.datetime) -> None:
    uuids = {number: str(uuid.uuid4()) for number in numbers}
    hashes = {number: tokens.hashed(str(uuid.uuid4())) for number in numbers}
    hour, day = datetime.timedelta(hours=1), datetime.timedelta(days=1)
    where = {number: {'host': '192.0.2.10', 'port': 5900 + number} for number in numbers}

    def compute_host(number: int) -> str:
        return f'compute-{number % _HOSTS:04}.example.org'

    def fill_nova(conn: sa.Connection) -> None:
        conn.execute(
            sa.insert(nova_tables.INSTANCES),
            [
                {
                    'id': number,
                    'uuid': uuids[number],
                    'host': compute_host(number),
                    'project_id': 'project-1',
                    'launched_at': now - day,
                    'deleted': 0,
                }
                for number in numbers
            ],
        )
        conn.execute(
            sa.insert(nova_tables.TOKENS),
            [
                {
                    'created_at': now,
                    'token_hash': hashes[number],
                    'console_type': 'novnc',
                    'instance_uuid': uuids[number],
                    'expires': 2**31 - 1,
                    **where[number],
                }
                for number in numbers
            ],
        )

    def fill_cell(conn: sa.Connection) -> None:
        console = {
            number: {'instance_uuid': uuids[number], 'compute_host': compute_host(number), **where[number]}
            for number in numbers
        }
        conn.execute(
            sa.insert(models.instances),
            [
                {'uuid': each['instance_uuid'], 'compute_host': each['compute_host'], 'created_at': now}
                for each in console.values()
            ],
        )
        conn.execute(
            sa.insert(models.console_connection),
            [
                {
                    'instance_uuid': each['instance_uuid'],
                    **where[number],
                    'console_type': 'novnc',
                    'options': '{}',
                    'created_at': now,
                    'updated_at': now,
                }
                for number, each in console.items()
            ],
        )
        conn.execute(
            sa.insert(models.console_auth_token),
            [
                {
                    'id': number,
                    'token_hash': hashes[number],
                    'expires': now + hour,
                    'created_at': now,
                    'source': 'nova',
                    **each,
                }
                for number, each in console.items()
            ],
        )
        conn.execute(
            sa.insert(models.console_session),
            [
                {
                    'id': str(uuid.uuid4()),
                    'proxy_id': proxy,
                    'console_type': 'novnc',
                    'token_id': number,
                    'connected_at': now - hour,
                    'source': 'nova',
                    **each,
                }
                for number, each in console.items()
            ],
        )

    nova.transaction(fill_nova)
    cell.transaction(fill_cell)


if __name__ == '__main__':
    main()
