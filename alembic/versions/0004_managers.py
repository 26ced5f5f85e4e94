# SPDX-License-Identifier: Apache-2.0
"""Add the list of managers, with their releases and last heartbeats.

Revision: 0004
Revises: 0003
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from alembic import op

revision = '0004'
down_revision = '0003'

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')
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


def upgrade() -> None:
    op.create_table(
        'console_manager',
        sa.Column('name', sa.String(255), primary_key=True),
        sa.Column('version', sa.String(32), nullable=False),
        sa.Column('rpc_version', sa.String(16), nullable=False),
        sa.Column('seen_at', MOMENT, nullable=False),
        **TABLE,
    )
