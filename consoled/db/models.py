# SPDX-License-Identifier: Apache-2.0
"""The tables of a cell's database, for SQLAlchemy Core.

They must equal the result of the migrations in ``alembic/``; a test compares them on each database.

MariaDB and MySQL compare text byte by byte (``utf8mb4_bin``), as PostgreSQL and SQLite do: with the server's
default collation, projects ``a`` and ``A`` would be the same.
"""

from __future__ import annotations

from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

metadata = sa.MetaData()

# Stands in for the compute host of an instance until an agent, or a token request, names it.
UNKNOWN_HOST = '(unknown)'


class Row(Protocol):
    """A row of a result: its columns by name, without static types."""

    def __getattr__(self, name: str) -> Any: ...


_TABLE_ARGS: dict[str, Any] = {
    'mysql_engine': 'InnoDB',
    'mysql_charset': 'utf8mb4',
    'mysql_collate': 'utf8mb4_bin',
    'mariadb_engine': 'InnoDB',
    'mariadb_charset': 'utf8mb4',
    'mariadb_collate': 'utf8mb4_bin',
}

# UTC without a zone, in microseconds.
Moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')
# SQLite generates values of an INTEGER primary key only.
BigId = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')

instances = sa.Table(
    'instances',
    metadata,
    sa.Column('uuid', sa.CHAR(36), primary_key=True),
    sa.Column('compute_host', sa.String(255), nullable=False),
    # A compute agent has defined its consoles, so the agent can be asked about them.
    sa.Column('defined', sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false()),
    # Set by the sweep on an unused instance: see cleanup.retire_instances.
    sa.Column('retired_at', Moment),
    sa.Column('created_at', Moment, nullable=False),
    sa.Index('ix_instances_host', 'compute_host'),
    **_TABLE_ARGS,
)

console_connection = sa.Table(
    'console_connection',
    metadata,
    sa.Column(
        'instance_uuid',
        sa.CHAR(36),
        sa.ForeignKey('instances.uuid', ondelete='CASCADE', name='fk_console_connection_instance'),
        primary_key=True,
    ),
    sa.Column('host', sa.String(255), primary_key=True),
    sa.Column('port', sa.Integer, primary_key=True, autoincrement=False),
    sa.Column('console_type', sa.String(32), nullable=False),
    sa.Column('access_url_base', sa.String(1024)),
    sa.Column('options', sa.Text, nullable=False),  # JSON with sorted keys
    sa.Column('created_at', Moment, nullable=False),
    sa.Column('updated_at', Moment, nullable=False),
    sa.Index('ix_console_connection_address', 'host', 'port'),
    **_TABLE_ARGS,
)

console_auth_token = sa.Table(
    'console_auth_token',
    metadata,
    sa.Column('id', BigId, primary_key=True, autoincrement=True),
    sa.Column('token_hash', sa.CHAR(64), nullable=False),
    sa.Column('instance_uuid', sa.CHAR(36), nullable=False),
    sa.Column('host', sa.String(255), nullable=False),
    sa.Column('port', sa.Integer, nullable=False),
    sa.Column('compute_host', sa.String(255), nullable=False),
    sa.Column('user_id', sa.String(255)),
    sa.Column('project_id', sa.String(255)),
    sa.Column('request_id', sa.String(64)),
    sa.Column('expires', Moment, nullable=False),
    sa.Column('used_at', Moment),
    sa.Column('created_at', Moment, nullable=False),
    # Set if the token was issued elsewhere, or through the old RPC: a ``source`` of ``legacy_use``.
    sa.Column('source', sa.String(32)),
    sa.ForeignKeyConstraint(
        ['instance_uuid', 'host', 'port'],
        ['console_connection.instance_uuid', 'console_connection.host', 'console_connection.port'],
        ondelete='CASCADE',
        name='fk_console_auth_token_console',
    ),
    sa.UniqueConstraint('token_hash', name='uq_console_auth_token_hash'),
    sa.Index('ix_console_auth_token_host_expires', 'compute_host', 'expires'),
    sa.Index('ix_console_auth_token_console', 'instance_uuid', 'host', 'port'),
    **_TABLE_ARGS,
)

console_proxy = sa.Table(
    'console_proxy',
    metadata,
    sa.Column('id', sa.CHAR(36), primary_key=True),
    sa.Column('name', sa.String(255), nullable=False),
    sa.Column('lease_expires', Moment, nullable=False),
    sa.Index('ix_console_proxy_name', 'name'),
    **_TABLE_ARGS,
)

console_session = sa.Table(
    'console_session',
    metadata,
    sa.Column('id', sa.CHAR(36), primary_key=True),
    sa.Column(
        'proxy_id',
        sa.CHAR(36),
        sa.ForeignKey('console_proxy.id', ondelete='CASCADE', name='fk_console_session_proxy'),
        nullable=False,
    ),
    sa.Column('instance_uuid', sa.CHAR(36), nullable=False),
    sa.Column('host', sa.String(255), nullable=False),
    sa.Column('port', sa.Integer, nullable=False),
    sa.Column('console_type', sa.String(32), nullable=False),
    sa.Column('compute_host', sa.String(255), nullable=False),
    sa.Column('slot', sa.Integer),  # NULL: no limit; else 0..max_sessions-1
    # The foreign key makes an open and a revocation wait for each other: no session is created between the
    # deletion of its token and the cut of the sessions (doc/design.md, invariant 5).
    sa.Column(
        'token_id',
        BigId,
        sa.ForeignKey('console_auth_token.id', ondelete='SET NULL', name='fk_console_session_token'),
    ),
    sa.Column('user_id', sa.String(255)),
    sa.Column('project_id', sa.String(255)),
    sa.Column('client_address', sa.String(255)),
    sa.Column('connected_at', Moment, nullable=False),
    sa.Column('ends_at', Moment),
    sa.Column('cut_reason', sa.String(64)),
    # That of its token, if the session is watched.
    sa.Column('source', sa.String(32)),
    # One session per slot, whatever the interleaving (doc/design.md, invariant 3). It also serves lookups by
    # instance.
    sa.UniqueConstraint('instance_uuid', 'host', 'port', 'slot', name='uq_console_session_slot'),
    sa.Index('ix_console_session_proxy', 'proxy_id'),
    sa.Index('ix_console_session_token', 'token_id'),
    sa.Index('ix_console_session_project', 'project_id'),
    **_TABLE_ARGS,
)

# Uses of tokens of the old consoleauth service, and of its RPC: they tell when the fallback can be removed.
legacy_use = sa.Table(
    'legacy_use',
    metadata,
    sa.Column('source', sa.String(32), primary_key=True),
    sa.Column('uses', sa.BigInteger, nullable=False),
    sa.Column('last_used_at', Moment, nullable=False),
    **_TABLE_ARGS,
)

# Revocations that memcached may have missed. The subject is an instance's UUID, for all tokens that were
# issued for it until then, or the hash of one token.
legacy_void = sa.Table(
    'legacy_void',
    metadata,
    sa.Column('subject', sa.CHAR(64), primary_key=True),
    sa.Column('since', Moment, nullable=False),
    sa.Index('ix_legacy_void_since', 'since'),
    **_TABLE_ARGS,
)

# The managers of the cell, with their releases and their last heartbeats.
console_manager = sa.Table(
    'console_manager',
    metadata,
    sa.Column('name', sa.String(255), primary_key=True),
    sa.Column('version', sa.String(32), nullable=False),
    sa.Column('rpc_version', sa.String(16), nullable=False),
    sa.Column('seen_at', Moment, nullable=False),
    **_TABLE_ARGS,
)

# Which manager watches the sessions of a source: its turn, until it expires.
session_watch = sa.Table(
    'session_watch',
    metadata,
    sa.Column('source', sa.String(32), primary_key=True),
    sa.Column('manager', sa.String(255), nullable=False),
    sa.Column('expires', Moment, nullable=False),
    **_TABLE_ARGS,
)
