# SPDX-License-Identifier: Apache-2.0
"""The tables of a cell's database, for SQLAlchemy Core.

They must equal what the migrations in ``alembic/`` make; a functional test compares them on each database.

Text is compared byte by byte on MariaDB and MySQL (``utf8mb4_bin``), as PostgreSQL and SQLite do: with the
server's default collation, projects ``a`` and ``A`` would be one.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

metadata = sa.MetaData()

_TABLE_ARGS: dict[str, Any] = {
    'mysql_engine': 'InnoDB',
    'mysql_charset': 'utf8mb4',
    'mysql_collate': 'utf8mb4_bin',
    'mariadb_engine': 'InnoDB',
    'mariadb_charset': 'utf8mb4',
    'mariadb_collate': 'utf8mb4_bin',
}

# UTC, without a zone, to the microsecond.
Moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')
# SQLite numbers rows by itself for INTEGER only.
BigId = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')

instances = sa.Table(
    'instances',
    metadata,
    sa.Column('uuid', sa.CHAR(36), primary_key=True),
    sa.Column('compute_host', sa.String(255), nullable=False),
    # an agent has defined its consoles, so it can be asked about them
    sa.Column('defined', sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false()),
    # set by the sweep on an instance that nothing needs any more; see db/cleanup.py
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
    sa.Column('options', sa.Text, nullable=False),  # JSON, keys sorted
    sa.Column('created_at', Moment, nullable=False),
    sa.Column('updated_at', Moment, nullable=False),
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
    # where it came from, if not from authorize: a name of ``legacy_use``
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
    # The foreign key makes an open wait for a revocation in flight, and the other way round: a session
    # can't be born between the deletion of its token and the cut of the sessions (DESIGN invariant 5).
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
    # One session a slot, whatever the interleaving (DESIGN invariant 3). Serves look-ups by instance too.
    sa.UniqueConstraint('instance_uuid', 'host', 'port', 'slot', name='uq_console_session_slot'),
    sa.Index('ix_console_session_proxy', 'proxy_id'),
    sa.Index('ix_console_session_token', 'token_id'),
    sa.Index('ix_console_session_project', 'project_id'),
    **_TABLE_ARGS,
)

# How often, and when, something of the old consoleauth was used: says when the fall-back may go.
legacy_use = sa.Table(
    'legacy_use',
    metadata,
    sa.Column('source', sa.String(32), primary_key=True),
    sa.Column('uses', sa.BigInteger, nullable=False),
    sa.Column('last_used_at', Moment, nullable=False),
    **_TABLE_ARGS,
)

# What was taken back, while memcached may still have it: the UUID of an instance (what was issued for it
# until then), or the hash of a token.
legacy_void = sa.Table(
    'legacy_void',
    metadata,
    sa.Column('subject', sa.CHAR(64), primary_key=True),
    sa.Column('since', Moment, nullable=False),
    sa.Index('ix_legacy_void_since', 'since'),
    **_TABLE_ARGS,
)

# The managers of the cell and their releases, each with its last sign of life.
console_manager = sa.Table(
    'console_manager',
    metadata,
    sa.Column('name', sa.String(255), primary_key=True),
    sa.Column('version', sa.String(32), nullable=False),
    sa.Column('rpc_version', sa.String(16), nullable=False),
    sa.Column('seen_at', Moment, nullable=False),
    **_TABLE_ARGS,
)
