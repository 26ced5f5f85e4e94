# SPDX-License-Identifier: Apache-2.0
"""Add the source of the token to sessions, and the table of the manager that watches those of a source.

Revision: 0006
Revises: 0005
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from alembic import op

revision = '0006'
down_revision = '0005'

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
    # Not every database has IF NOT EXISTS for a column. Managers look for the table, so it comes last.
    columns = sa.inspect(op.get_bind()).get_columns('console_session')
    if not any(column['name'] == 'source' for column in columns):
        op.add_column('console_session', sa.Column('source', sa.String(32)))
    op.create_table(
        'session_watch',
        sa.Column('source', sa.String(32), primary_key=True),
        sa.Column('manager', sa.String(255), nullable=False),
        sa.Column('expires', MOMENT, nullable=False),
        **TABLE,
    )
