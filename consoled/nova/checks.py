# SPDX-License-Identifier: Apache-2.0
"""Checks of what ``[nova]`` describes: the database of Nova's cell, the account in it, the message bus.

They change nothing. Each says what to do about what it has found.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exc
from sqlalchemy import exc as sa_exc

from consoled import exception
from consoled.context import RequestContext
from consoled.db import clock
from consoled.db.engine import Database
from consoled.nova import database
from consoled.nova.compute import NovaComputeAPI
from consoled.rpc.transport import get_transport

_MAX_SKEW = 5.0  # seconds between two clocks
_HOSTS = 5  # compute hosts that are asked

_NO_HOST = 'consoled-status.invalid'  # whose queue nobody has (RFC 6761)

# RabbitMQ's answer to an exchange or a queue that exists with other properties: 406 in AMQP 0-9-1.
_DECLARED_OTHERWISE = 'PRECONDITION_FAILED'
_REFUSED = ('AccessRefused', 'NotAllowed')

# Statements that need a right to write. EXPLAIN needs the same rights, and carries nothing out.
_WRITES = {
    'INSERT': 'EXPLAIN INSERT INTO {} (host) VALUES (NULL)',
    'UPDATE': 'EXPLAIN UPDATE {} SET host = host WHERE 1 = 0',
    'DELETE': 'EXPLAIN DELETE FROM {} WHERE 1 = 0',
}

_DENIED = (db_exc.DBError, sa_exc.SQLAlchemyError)


class Level(enum.Enum):
    """How bad a finding is: consoles of Nova cannot be opened after a failure."""

    SUCCESS = 0
    WARNING = 1
    FAILURE = 2


@dataclasses.dataclass(frozen=True)
class Finding:
    """Result of one check: its title, and sentences for the operator."""

    title: str
    level: Level
    text: str


def inspect(conf: cfg.ConfigOpts, cell: Database | None) -> list[Finding]:
    """Return what there is to say about the Nova that ``[nova]`` describes.

    :param cell: consoled's own database; None if it does not answer
    """
    try:
        nova = database.connect(conf)
    except ValueError as exc:
        return [Finding('Nova database', Level.FAILURE, f'{exc}.')]
    try:
        found = [check_database(nova)]
        hosts: Sequence[str] = []
        if found[0].level is Level.SUCCESS:
            found.append(check_account(nova))
            if cell is not None:
                found.append(check_clock(nova, cell))
            hosts = list_hosts(nova)
    finally:
        nova.dispose()
    return [*found, *check_bus(conf, hosts)]


def check_database(nova: Database) -> Finding:
    """Check that the database answers, and that each column that consoled reads can be read."""
    try:
        nova.ping()
        unreadable = [name for table in database.TABLES for name in _unreadable(nova, table)]
    except exception.DatabaseUnavailable:
        unreadable = None
    except _DENIED:
        unreadable = None
    if unreadable is None:
        text = (
            'It does not answer, does not exist, or refuses the user. Until it answers, users with tokens of '
            'Nova get 503. Check [nova] connection, the server and the account.'
        )
        return Finding('Nova database', Level.FAILURE, text)
    if unreadable:
        text = (
            f'Cannot be read: {", ".join(unreadable)}. The account of [nova] connection needs GRANT SELECT '
            'on console_auth_tokens and instances. The database must be that of the cell ([database] '
            "connection of the cell's conductor), not nova_api or cell0."
        )
        return Finding('Nova database', Level.FAILURE, text)
    return Finding('Nova database', Level.SUCCESS, 'It answers, and all that is needed can be read.')


def _unreadable(nova: Database, table: sa.TableClause) -> list[str]:
    """Return the columns of a table that cannot be read; the name of the table alone for all of them."""

    def readable(*columns: sa.ColumnElement[Any]) -> bool:
        try:
            nova.single(lambda conn: conn.execute(sa.select(*columns).limit(0)).all())
        except _DENIED:
            return False
        return True

    if readable(*table.c):
        return []
    missing = [f'{table.name}.{column.name}' for column in table.c if not readable(column)]
    return [table.name] if len(missing) in (0, len(table.c)) else missing


def check_account(nova: Database) -> Finding:
    """Check that the account has no right to write what is only read."""
    writable = [
        f'{verb} {table.name}'
        for table in database.TABLES
        for verb, statement in _WRITES.items()
        if _succeeds(nova, statement.format(table.name))
    ]
    if not writable:
        return Finding('Nova account', Level.SUCCESS, 'It may not write what consoled reads.')
    text = (
        f'It may do more than consoled ever does: {", ".join(writable)}. SELECT on console_auth_tokens and '
        'instances is enough: give [nova] connection an account of its own (doc/nova.md).'
    )
    return Finding('Nova account', Level.WARNING, text)


def _succeeds(nova: Database, statement: str) -> bool:
    try:
        nova.single(lambda conn: conn.exec_driver_sql(statement).close())
    except (exception.DatabaseUnavailable, *_DENIED):
        return False
    return True


def check_clock(nova: Database, cell: Database) -> Finding:
    """Compare the clock of Nova's database with that of consoled's."""
    try:
        ours = clock.now(cell).timestamp()
        theirs = nova.single(lambda conn: float(conn.execute(sa.select(database.unix_now())).scalar_one()))
    except (exception.DatabaseUnavailable, *_DENIED):
        return Finding('Nova clock', Level.WARNING, 'Unknown: a database does not answer.')
    return compare_clocks(theirs, ours)


def compare_clocks(theirs: float, ours: float) -> Finding:
    """Return what to say of the time of Nova's database and of consoled's, in seconds since 1970."""
    ahead = theirs - ours
    if abs(ahead) <= _MAX_SKEW:
        return Finding('Nova clock', Level.SUCCESS, 'The clocks of the two databases agree.')
    text = (
        f"The clock of Nova's database is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of "
        'consoled. What is revoked is compared with the time at which Nova issued a token, so a token from '
        'before may open, or one from after may not. Let all these hosts, and those of Nova, keep time (NTP).'
    )
    return Finding('Nova clock', Level.WARNING, text)


def list_hosts(nova: Database) -> list[str]:
    """Return the names of some compute hosts that have instances."""
    try:
        return list(nova.single(lambda conn: conn.execute(database.SOME_HOSTS, {'n': _HOSTS}).scalars()))
    except (exception.DatabaseUnavailable, *_DENIED):
        return []


def check_bus(conf: cfg.ConfigOpts, hosts: Sequence[str]) -> list[Finding]:
    """Check that the bus of Nova lets consoled in, and that nova-compute answers over it.

    :param hosts: compute hosts to ask
    """
    option = '[nova] transport_url' if conf.nova.transport_url else '[DEFAULT] transport_url'
    try:
        transport = get_transport(conf, conf.nova.transport_url, option)
    except ValueError as exc:
        return [Finding('Nova message bus', Level.FAILURE, f'{exc}.')]
    compute = NovaComputeAPI.from_conf(conf, transport)
    timeout = conf.manager.check_port_timeout
    # Nobody has this queue, so a bus that works says that the message cannot be delivered.
    reason = _silence(compute, _NO_HOST, timeout)
    if reason not in (None, 'MessageUndeliverable'):
        # The transport is left as it is: to close a connection that is still being made would block.
        return [Finding('Nova message bus', Level.FAILURE, _bus_advice(conf, option, reason))]
    found = Finding('Nova message bus', Level.SUCCESS, f'It lets consoled in, by {option}.')
    answers = _check_hosts({host: _silence(compute, host, timeout) for host in hosts})
    transport.cleanup()
    return [found, answers]


def _silence(compute: NovaComputeAPI, host: str, timeout: float) -> str | None:
    """Return why a compute host does not answer; None if it does."""
    try:
        compute.ask_uptime(RequestContext(), host, timeout)
    except exception.ComputeUnreachable as exc:
        # The library wraps what the broker says if it said so when a message was published.
        declared = _DECLARED_OTHERWISE in str(exc.__cause__)
        return _DECLARED_OTHERWISE if declared else str(exc.kwargs.get('reason'))
    except exception.ConsoledException:  # an error is an answer too
        return None
    return None


def _bus_advice(conf: cfg.ConfigOpts, option: str, reason: str | None) -> str:
    if reason == _DECLARED_OTHERWISE:
        return (
            f'It refuses what consoled declares: the exchange {conf.nova.exchange} exists with other '
            'properties, because the queues of Nova are quorum queues, or durable. Add '
            '?rabbit_quorum_queue=true or ?amqp_durable_queues=true to the URL in [nova] transport_url.'
        )
    if reason in _REFUSED:
        return (
            f'It refuses the user, the password or the virtual host, or the exchange {conf.nova.exchange} to '
            f'this user: check {option}, and the permissions in doc/nova.md.'
        )
    return f'It cannot be reached ({reason}): check {option} and the broker.'


def _check_hosts(silence: dict[str, str | None]) -> Finding:
    """Return what the compute hosts that were asked have said.

    :param silence: why a host does not answer, or None, by its name
    """
    title = 'Nova compute hosts'
    if not silence:
        text = 'None was asked: no instance is on one. If there are servers, this is another cell, or cell0.'
        return Finding(title, Level.WARNING, text)
    silent = [f'{host} ({reason})' for host, reason in silence.items() if reason is not None]
    if not silent:
        return Finding(title, Level.SUCCESS, f'nova-compute answers: {", ".join(silence)}.')
    text = (
        f'nova-compute does not answer: {", ".join(silent)}. Users of consoles there get 503. Check '
        'nova-compute, and that the virtual host in [nova] transport_url, [nova] exchange and [nova] topic '
        'are those of Nova.'
    )
    return Finding(title, Level.FAILURE if len(silent) == len(silence) else Level.WARNING, text)
