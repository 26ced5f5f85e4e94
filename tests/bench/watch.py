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
from typing import Any

import sqlalchemy as sa

from consoled import token as tokens
from consoled.db import clock, migration, models, proxies
from consoled.db.engine import Database
from consoled.nova.database import NovaDatabase
from consoled.nova.source import NovaTokens
from consoled.nova.watch import Watcher
from consoled.testing import services
from tests.bench.command_line import EPILOG, print_section
from tests.unit.nova import base as nova_tables

_HOSTS = 1000
_BATCH = 1000  # rows in one INSERT
_INTERVAL = 2.0  # the default of [nova] watch_interval
_HOUR, _DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)


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
        guests = [_Guest(number) for number in range(start + 1, min(start + _BATCH, count) + 1)]
        nova.transaction(functools.partial(_fill, rows=_rows_of_nova(guests, now)))
        cell.transaction(functools.partial(_fill, rows=_rows_of_cell(guests, now, proxy)))


class _Guest:
    """An instance with a token that has opened a session.

    :ivar console: columns that all tables of the cell have in common
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.token_hash = tokens.hashed(str(uuid.uuid4()))
        self.console = {
            'instance_uuid': str(uuid.uuid4()),
            'compute_host': f'compute-{number % _HOSTS:04}.example.org',
            'host': '192.0.2.10',
            'port': 5900 + number,
        }

    def only(self, *names: str) -> dict[str, Any]:
        return {name: self.console[name] for name in names}


Rows = dict[sa.Table, list[dict[str, Any]]]


def _fill(conn: sa.Connection, rows: Rows) -> None:
    for table, values in rows.items():
        conn.execute(sa.insert(table), values)


def _rows_of_nova(guests: list[_Guest], now: datetime.datetime) -> Rows:
    launched = {'launched_at': now - _DAY, 'project_id': 'project-1', 'deleted': 0}
    issued = {'console_type': 'novnc', 'created_at': now, 'expires': 2**31 - 1}
    return {
        nova_tables.INSTANCES: [
            {
                'id': guest.number,
                'uuid': guest.console['instance_uuid'],
                'host': guest.console['compute_host'],
                **launched,
            }
            for guest in guests
        ],
        nova_tables.TOKENS: [
            {'token_hash': guest.token_hash, **guest.only('instance_uuid', 'host', 'port'), **issued}
            for guest in guests
        ],
    }


def _rows_of_cell(guests: list[_Guest], now: datetime.datetime, proxy: str) -> Rows:
    defined = {'console_type': 'novnc', 'options': '{}', 'created_at': now, 'updated_at': now}
    adopted = {'expires': now + _HOUR, 'created_at': now, 'source': NovaTokens.name}
    opened = {
        'proxy_id': proxy,
        'console_type': 'novnc',
        'connected_at': now - _HOUR,
        'source': NovaTokens.name,
    }
    return {
        models.instances: [
            {'uuid': guest.console['instance_uuid'], 'created_at': now, **guest.only('compute_host')}
            for guest in guests
        ],
        models.console_connection: [
            {**guest.only('instance_uuid', 'host', 'port'), **defined} for guest in guests
        ],
        models.console_auth_token: [
            {'id': guest.number, 'token_hash': guest.token_hash, **guest.console, **adopted}
            for guest in guests
        ],
        models.console_session: [
            {'id': str(uuid.uuid4()), 'token_id': guest.number, **guest.console, **opened} for guest in guests
        ],
    }


if __name__ == '__main__':
    main()
