# SPDX-License-Identifier: Apache-2.0
"""Create the tables of the first release.

Revision: 0001
Revises: none
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from alembic import op

revision = '0001'
down_revision = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
TABLE = {
    'mysql_engine': 'InnoDB',
    'mysql_charset': 'utf8mb4',
    'mysql_collate': 'utf8mb4_bin',
    'mariadb_engine': 'InnoDB',
    'mariadb_charset': 'utf8mb4',
    'mariadb_collate': 'utf8mb4_bin',
    # MariaDB and MySQL commit each CREATE, so an interrupted upgrade must be repeatable.
    'if_not_exists': True,
}

INDEXES = (
    ('ix_console_auth_token_host_expires', 'console_auth_token', ['compute_host', 'expires']),
    ('ix_console_auth_token_console', 'console_auth_token', ['instance_uuid', 'host', 'port']),
    ('ix_console_proxy_name', 'console_proxy', ['name']),
    ('ix_console_session_proxy', 'console_session', ['proxy_id']),
    ('ix_console_session_token', 'console_session', ['token_id']),
    ('ix_console_session_project', 'console_session', ['project_id']),
)


def upgrade() -> None:
    op.create_table(
        'instances',
        sa.Column('uuid', sa.CHAR(36), primary_key=True),
        sa.Column('compute_host', sa.String(255), nullable=False),
        sa.Column('defined', sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false()),
        sa.Column('retired_at', MOMENT),
        sa.Column('created_at', MOMENT, nullable=False),
        **TABLE,
    )
    op.create_table(
        'console_connection',
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
        sa.Column('options', sa.Text, nullable=False),
        sa.Column('created_at', MOMENT, nullable=False),
        sa.Column('updated_at', MOMENT, nullable=False),
        **TABLE,
    )
    _create_tokens()
    _create_sessions()
    for name, table, columns in INDEXES:
        # MySQL has no IF NOT EXISTS for an index.
        if not any(index['name'] == name for index in sa.inspect(op.get_bind()).get_indexes(table)):
            op.create_index(name, table, columns)


def _create_tokens() -> None:
    op.create_table(
        'console_auth_token',
        sa.Column('id', BIG_ID, primary_key=True, autoincrement=True),
        sa.Column('token_hash', sa.CHAR(64), nullable=False),
        sa.Column('instance_uuid', sa.CHAR(36), nullable=False),
        sa.Column('host', sa.String(255), nullable=False),
        sa.Column('port', sa.Integer, nullable=False),
        sa.Column('compute_host', sa.String(255), nullable=False),
        sa.Column('user_id', sa.String(255)),
        sa.Column('project_id', sa.String(255)),
        sa.Column('request_id', sa.String(64)),
        sa.Column('expires', MOMENT, nullable=False),
        sa.Column('used_at', MOMENT),
        sa.Column('created_at', MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ['instance_uuid', 'host', 'port'],
            ['console_connection.instance_uuid', 'console_connection.host', 'console_connection.port'],
            ondelete='CASCADE',
            name='fk_console_auth_token_console',
        ),
        sa.UniqueConstraint('token_hash', name='uq_console_auth_token_hash'),
        **TABLE,
    )


def _create_sessions() -> None:
    op.create_table(
        'console_proxy',
        sa.Column('id', sa.CHAR(36), primary_key=True),
        sa.Column('name', sa.String(255), nullable=False),
        sa.Column('lease_expires', MOMENT, nullable=False),
        **TABLE,
    )
    op.create_table(
        'console_session',
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
        sa.Column('slot', sa.Integer),
        sa.Column(
            'token_id',
            BIG_ID,
            sa.ForeignKey('console_auth_token.id', ondelete='SET NULL', name='fk_console_session_token'),
        ),
        sa.Column('user_id', sa.String(255)),
        sa.Column('project_id', sa.String(255)),
        sa.Column('client_address', sa.String(255)),
        sa.Column('connected_at', MOMENT, nullable=False),
        sa.Column('ends_at', MOMENT),
        sa.Column('cut_reason', sa.String(64)),
        sa.UniqueConstraint('instance_uuid', 'host', 'port', 'slot', name='uq_console_session_slot'),
        **TABLE,
    )
